//! One attempt to connect to an endpoint, without blocking and without a timer of its own: the
//! caller drops the attempt when the cluster's connect timeout is over.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::Path,
    task::{Context, Poll, ready},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

use crate::{
    cluster::endpoint::{Endpoint, EndpointAddress},
    config::{cluster::Cluster, model::TcpKeepalive},
    progress,
    sys::reserve,
    transport::Stream,
};

/// Why connecting could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The source address cannot be used.
    #[error("cannot bind to the source address {address}")]
    Bind {
        /// The address.
        address: IpAddr,
        /// Why not.
        source: io::Error,
    },
    /// Anything else.
    #[error(transparent)]
    Socket(#[from] io::Error),
}

impl ConnectError {
    /// It is about the source address.
    pub fn is_bind(&self) -> bool {
        match self {
            Self::Bind { .. } => true,
            Self::Socket(_) => false,
        }
    }

    /// What the system said.
    pub fn cause(&self) -> &io::Error {
        match self {
            Self::Bind { source, .. } | Self::Socket(source) => source,
        }
    }

    /// Why there is no connection to this address, in the words of Envoy's logs.
    pub fn reason(&self, to: &EndpointAddress) -> String {
        match self {
            Self::Bind { address, source } => {
                let address = SocketAddr::new(*address, 0);
                format!("failed to bind to {address}: {}", describe(source))
            }
            Self::Socket(source) => {
                format!("immediate connect error: {}|remote address:{to}", describe(source))
            }
        }
    }
}

/// Why a connection that was on its way failed, in the words of Envoy's logs.
pub fn delayed_reason(error: &io::Error) -> String {
    format!("delayed connect error: {}", describe(error))
}

/// What the system says, without its number.
fn describe(error: &io::Error) -> String {
    let mut text = error.to_string();
    text.truncate(text.find(" (os error ").unwrap_or(text.len()));
    text
}

/// A connection on its way.
#[derive(Debug)]
pub struct Connecting {
    /// `None` once the stream was handed out.
    stream: Option<Stream>,
}

impl Connecting {
    /// Starts to connect to the endpoint's present address with the cluster's socket options.
    ///
    /// # Errors
    /// When the socket cannot be made or the kernel refuses at once (no route, no such path, a
    /// source address that is not ours, no descriptors left).
    pub fn start(endpoint: &Endpoint, cluster: &Cluster) -> Result<Self, ConnectError> {
        progress::moved(1);
        let stream = match &*endpoint.address() {
            EndpointAddress::Ip(address) => connect_tcp(*address, cluster)?,
            EndpointAddress::Pipe(path) => connect_pipe(path)?,
        };
        Ok(Self { stream: Some(stream) })
    }

    /// Waits for the outcome. Must not be called again after it was `Ready`.
    ///
    /// # Errors
    /// Why the peer could not be reached.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let Some(stream) = &self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        ready!(stream.poll_write_ready(cx))?;
        if let Some(error) = take_error(stream)? {
            self.stream = None;
            return Poll::Ready(Err(error));
        }
        Poll::Ready(self.stream.take().ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// The pending error of the socket (`SO_ERROR`).
fn take_error(stream: &Stream) -> io::Result<Option<io::Error>> {
    match stream {
        Stream::Tcp(stream) => stream.take_error(),
        Stream::Unix(stream) => stream.take_error(),
    }
}

fn new_socket(domain: Domain, protocol: Option<Protocol>) -> io::Result<Socket> {
    reserve::open(|| Socket::new(domain, Type::STREAM.nonblocking(), protocol))
}

fn connect_tcp(address: SocketAddr, cluster: &Cluster) -> Result<Stream, ConnectError> {
    let socket = new_socket(Domain::for_address(address), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = cluster.keepalive {
        set_keepalive(&socket, keepalive)?;
    }
    // A source address of the other family cannot be used for this endpoint.
    if let Some(source) = cluster.source_address.filter(|ip| ip.is_ipv4() == address.is_ipv4()) {
        bind_source(&socket, source)
            .map_err(|error| ConnectError::Bind { address: source, source: error })?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Stream::Tcp(TcpStream::from_std(socket.into())?))
}

/// Binds to the address and leaves the port to `connect`, which can then share one local port
/// among many destinations.
fn bind_source(socket: &Socket, source: IpAddr) -> io::Result<()> {
    // A kernel without the option only has fewer ports to choose from.
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true).ok();
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Sets Envoy's `tcp_keepalive`; what is missing stays at the kernel's default.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn set_keepalive(socket: &Socket, keepalive: TcpKeepalive) -> io::Result<()> {
    let mut options = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        options = options.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes);
    }
    socket.set_tcp_keepalive(&options)
}

fn connect_pipe(path: &Path) -> io::Result<Stream> {
    let address = pipe_address(path)?;
    let socket = new_socket(Domain::UNIX, None)?;
    socket.connect(&address).map_err(|error| {
        // The backlog of the peer is full; a Unix socket cannot wait for it in the background.
        let full = error.kind() == io::ErrorKind::WouldBlock;
        if full { io::ErrorKind::ConnectionRefused.into() } else { error }
    })?;
    UnixStream::from_std(socket.into()).map(Stream::Unix)
}

/// `@name` stands for an abstract socket.
fn pipe_address(path: &Path) -> io::Result<SockAddr> {
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => {
            let mut raw = Vec::with_capacity(name.len().saturating_add(1));
            raw.push(0);
            raw.extend_from_slice(name);
            SockAddr::unix(std::ffi::OsStr::from_bytes(&raw))
        }
        None => SockAddr::unix(path),
    }
}

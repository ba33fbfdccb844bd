//! A connected byte stream: TCP or a Unix socket, later also TLS. Everything above reads and
//! writes through [`Stream`], so that both kinds of socket work everywhere.
//!
//! Not here: how a connection is made (`upstream::connect`) or accepted (`listener`).

use std::{
    io,
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use nix::{
    libc,
    sys::socket::{MsgFlags, sendmsg},
};
use socket2::{Domain, SockRef, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{
    buffer::Outbound,
    outbox::{self, Returned, Ticket},
    progress,
    sys::tcp,
};

/// A connected, non-blocking byte stream registered with the thread's reactor.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain stream socket.
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.recall());
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

impl Stream {
    /// Reads into `buf`; 0 is the end of the stream. A short read clears the readiness, so that
    /// the next call does not cost a system call to learn that nothing is there.
    ///
    /// # Errors
    /// What `recv(2)` says, never `WouldBlock`.
    pub fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        progress::moved(buf.filled().len());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Writes from `buf` and says how many bytes went.
    ///
    /// # Errors
    /// What `send(2)` says, never `WouldBlock`.
    pub fn poll_write_from(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(self).poll_write(cx, buf))?;
        progress::moved(count);
        Poll::Ready(Ok(count))
    }

    /// Takes all of `out` to be sent when the other connections of this thread had their turn; `None`
    /// when it has to be written in another way. Nothing else may be written before [`Self::recall`].
    /// `owner` is woken when something comes back.
    pub fn post(&self, out: &mut Outbound, owner: &Waker) -> Option<Ticket> {
        outbox::post(self.as_raw_fd(), out, owner)
    }

    /// Sends what was posted and still waits; returns what the kernel did not take, now or before.
    pub fn recall(&self) -> Option<Returned> {
        outbox::recall(self.as_raw_fd())
    }

    /// Writes from several buffers with one system call and says how many bytes went.
    ///
    /// # Errors
    /// What `sendmsg(2)` says, never `WouldBlock`.
    pub fn poll_write_vectored_from(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write_vectored(cx, bufs)
    }

    /// Writes bytes that something follows at once: more bytes, or the end (FIN), because the caller
    /// closes this stream or its half of it. It leaves in the same packet. Says how many bytes went.
    ///
    /// # Errors
    /// What `sendmsg(2)` says, never `WouldBlock`.
    pub fn poll_write_more(
        &self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            let socket = self.as_raw_fd();
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::from_bits_retain(libc::MSG_MORE);
            let send = || Ok(sendmsg::<()>(socket, bufs, &[], flags, None)?);
            match self.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Waits until reading may make progress.
    ///
    /// # Errors
    /// Only when the reactor is gone.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Waits until writing may make progress.
    ///
    /// # Errors
    /// Only when the reactor is gone.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Reads without registering a waker.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, else what `recv(2)` says.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buf),
            Self::Unix(stream) => stream.try_read(buf),
        }
    }

    /// True when the peer neither ended the connection nor sent bytes nobody asked for.
    ///
    /// Costs a system call only when the reactor saw an event on the socket.
    pub fn is_quiet(&self) -> bool {
        let read = self.try_read(&mut [0]);
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether bytes of the peer wait in the kernel. The reactor may not know of them yet, when this thread got no
    /// processor: what came before a limit is served although the limit is looked at first.
    ///
    /// Costs a system call.
    pub fn has_unread(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            Self::Unix(stream) => SockRef::from(stream).peek(&mut byte),
        };
        peeked.is_ok_and(|count| count > 0)
    }

    /// Writes without registering a waker.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full, else what `send(2)` says.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(buf),
            Self::Unix(stream) => stream.try_write(buf),
        }
    }

    /// Runs a non-blocking operation on the descriptor; `WouldBlock` clears the readiness.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is not ready, else what `operation` says.
    pub fn try_io<R>(
        &self,
        interest: Interest,
        operation: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, operation),
            Self::Unix(stream) => stream.try_io(interest, operation),
        }
    }

    /// A copy of the descriptor, for another process. While it is open, closing this stream sends
    /// nothing to the peer.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Takes over a connected stream socket, of either kind, and watches it with the thread's
    /// reactor.
    ///
    /// # Errors
    /// When it is no stream socket of a known kind, or cannot be watched.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let (domain, kind) = {
            let socket = SockRef::from(&socket);
            socket.set_nonblocking(true)?;
            (socket.domain()?, socket.r#type()?)
        };
        if kind != Type::STREAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match domain {
            Domain::IPV4 | Domain::IPV6 => {
                TcpStream::from_std(std::net::TcpStream::from(socket)).map(Self::Tcp)
            }
            Domain::UNIX => {
                let socket = std::os::unix::net::UnixStream::from(socket);
                UnixStream::from_std(socket).map(Self::Unix)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Sends the end of our half of the stream (FIN); reading goes on.
    ///
    /// # Errors
    /// What `shutdown(2)` says, except that a peer that is gone already is no error.
    pub fn shutdown_write(&self) -> io::Result<()> {
        match SockRef::from(self).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }

    /// Makes the close of this stream a reset: what is queued is thrown away and the peer sees
    /// RST. Unix sockets know no reset, they are closed as usual.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // A socket that refuses the option is closed with FIN, which is the best left.
            drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
        }
    }

    /// Resets the connection now, even if other processes have its descriptor. Unix sockets know no
    /// reset, they are shut down.
    pub fn reset_now(&self) {
        let reset = match self {
            Self::Tcp(stream) => tcp::reset(stream),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        if reset.is_err() {
            self.end_now();
        }
    }

    /// Ends both halves now, even if other processes have the descriptor: what was written is still
    /// sent, then FIN.
    pub fn end_now(&self) {
        // A peer that is gone needs no end.
        drop(SockRef::from(self).shutdown(Shutdown::Both));
    }

    /// Address of the peer; `None` on Unix sockets and when the peer is gone.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Our own address; `None` on Unix sockets.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Writes all bytes as the last ones; how many had arrived before the end was sent.
    fn write_last(server: TcpStream, client: &TcpStream, bytes: &[u8]) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let stream = Stream::adopt(server.into()).unwrap();
            let mut rest = bytes;
            while !rest.is_empty() {
                let bufs = [io::IoSlice::new(&rest[..1]), io::IoSlice::new(&rest[1..])];
                let count = poll_fn(|cx| stream.poll_write_more(cx, &bufs)).await.unwrap();
                rest = &rest[count..];
            }
            let arrived = tcp::info(client).unwrap().received;
            stream.shutdown_write().unwrap();
            arrived
        })
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn the_last_bytes_wait_for_the_end() {
        // The kernel waits for a fifth of a second, which may pass on a busy machine, but not always.
        let waited = (0..20).any(|_| {
            let (server, mut client) = pair();
            let arrived = write_last(server, &client, b"last bytes");
            let mut read = Vec::new();
            client.read_to_end(&mut read).unwrap();
            assert_eq!(read, b"last bytes");
            arrived == 0
        });
        assert!(waited, "they left alone");
    }

    #[test]
    fn more_last_bytes_than_the_socket_takes_at_once_are_all_sent() {
        let bytes = b"0123456789".repeat(2_000_000);
        let (server, client) = pair();
        let mut reading = client.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            reading.read_to_end(&mut read).unwrap();
            read
        });
        write_last(server, &client, &bytes);
        assert!(reader.join().unwrap() == bytes, "bytes are missing");
    }
}

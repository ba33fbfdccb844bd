//! Making sockets.

use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{SocketAddr as UnixAddr, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use baton_contract::listener_key::{ListenerKey, ListenerSpec, Place, SocketOptions};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::{Inherited, Shard};
use crate::sys;

/// A socket file with its device and inode.
type SocketFile = Option<(PathBuf, u64, u64)>;

/// Binds the first socket of a listener.
pub(super) fn first(
    key: &ListenerKey,
    options: &SocketOptions,
) -> io::Result<(Socket, SocketFile)> {
    match key.place() {
        Place::Tcp(address) => Ok((tcp(*address, options)?, None)),
        Place::Unix(path) => unix(path, options.mode),
        Place::Abstract(name) => {
            let address = UnixAddr::from_abstract_name(name)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
            let bytes = [b"\0", address.as_abstract_name().unwrap_or_default()].concat();
            let text = std::str::from_utf8(&bytes).map_err(io::Error::other)?;
            socket.bind(&SockAddr::unix(text)?)?;
            Ok((socket, None))
        }
    }
}

/// Binds one more socket to the address of a TCP listener.
pub(super) fn another(address: &SockAddr, options: &SocketOptions) -> io::Result<Socket> {
    let address = address.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    tcp(address, options)
}

fn tcp(address: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    change_tcp(&socket, &SocketOptions::default(), options)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Gives a TCP socket, which may accept already, the options that differ. `ipv4_compat` cannot be
/// changed once it is bound, and the backlog is an argument of `listen`.
fn change_tcp(socket: &Socket, from: &SocketOptions, to: &SocketOptions) -> io::Result<()> {
    let ipv6 = socket.domain()? == Domain::IPV6;
    if from.freebind != to.freebind {
        if ipv6 {
            socket.set_freebind_v6(to.freebind)?;
        } else {
            socket.set_freebind_v4(to.freebind)?;
        }
    }
    if from.transparent != to.transparent {
        if ipv6 {
            socket.set_ip_transparent_v6(to.transparent)?;
        } else {
            socket.set_ip_transparent_v4(to.transparent)?;
        }
    }
    if from.fast_open_queue != to.fast_open_queue {
        sys::set_fast_open(socket.as_fd(), to.fast_open_queue.unwrap_or(0))?;
    }
    Ok(())
}

/// Changes the options of all sockets of a listener while it accepts, or of none.
pub(super) fn change(
    key: &ListenerKey,
    shards: &[Shard],
    from: &SocketOptions,
    to: &SocketOptions,
) -> io::Result<()> {
    let all = |from: &SocketOptions, to: &SocketOptions| match key.place() {
        Place::Tcp(_) => shards.iter().try_for_each(|shard| change_tcp(&shard.socket, from, to)),
        Place::Unix(path) if to.mode != from.mode && to.mode != 0 => {
            fs::set_permissions(path, fs::Permissions::from_mode(to.mode))
        }
        Place::Unix(_) | Place::Abstract(_) => Ok(()),
    };
    all(from, to).inspect_err(|_| {
        if let Err(error) = all(to, from) {
            tracing::warn!(%key, %error, "some sockets of a listener keep options of a refused reload");
        }
    })
}

fn unix(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if mode != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let metadata = fs::metadata(path)?;
    Ok((socket, Some((path.to_owned(), metadata.dev(), metadata.ino()))))
}

/// Removes a socket file nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        let text = "there is a file of another kind under this name";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

/// Whether this file is still there.
pub(super) fn is_file(path: &Path, device: u64, inode: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.dev() == device && m.ino() == inode)
}

/// Removes a socket file of ours, unless another one took its place.
pub(super) fn remove_file(path: &Path, device: u64, inode: u64) {
    if is_file(path, device, inode)
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a socket file");
    }
}

/// Drops packets that would begin a connection: SYN without ACK. Handshakes under way go on, and
/// connections in the queue can be accepted.
const NO_SYN: [SockFilter; 5] = [
    // A = flags of the TCP header
    SockFilter::new(0x30, 0, 0, 13),
    // A = A & (SYN | ACK)
    SockFilter::new(0x54, 0, 0, 0x12),
    // if A == SYN drop, else keep
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Lets no new connection begin.
pub(super) fn close_ears(shards: &[Shard]) {
    for shard in shards {
        if let Err(error) = shard.socket.attach_filter(&NO_SYN) {
            tracing::warn!(%error, "a removed listener may lose its last connections");
        }
    }
}

/// Takes [`close_ears`] back.
pub(super) fn open_ears(shards: &[Shard]) -> io::Result<()> {
    shards.iter().try_for_each(|shard| match shard.socket.detach_filter() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    })
}

/// The key an inherited socket would have.
pub(super) fn key_of(socket: &Socket) -> Option<ListenerKey> {
    let address = socket.local_addr().ok()?;
    if let Some(address) = address.as_socket() {
        return Some(ListenerKey::tcp(address));
    }
    if let Some(name) = address.as_abstract_namespace() {
        let name = std::str::from_utf8(name).ok()?;
        return Some(ListenerKey::unix(format!("@{name}")));
    }
    address.as_pathname().map(ListenerKey::unix)
}

/// Says that clients can connect from now on, and where: port 0 has become a real one.
pub(super) fn announce(spec: &ListenerSpec, shards: &[Shard]) {
    let Some(first) = shards.first() else { return };
    let port = first.socket.local_addr().ok().and_then(|bound| bound.as_socket());
    let address = match (spec.key.place(), port) {
        (Place::Tcp(_), Some(bound)) => ListenerKey::tcp(bound),
        (Place::Tcp(_) | Place::Unix(_) | Place::Abstract(_), _) => spec.key.clone(),
    };
    tracing::info!(listener = spec.name, %address, sockets = shards.len(), "listening");
}

/// An inherited socket as a shard.
pub(super) fn inherited_shard(inherited: Inherited) -> Shard {
    let Inherited { socket, name, .. } = inherited;
    if let Err(error) = socket.set_nonblocking(true) {
        tracing::warn!(name, %error, "cannot make an inherited socket non-blocking");
    }
    let listening = socket.is_listener().unwrap_or(true);
    tracing::info!(name, "an inherited socket is used");
    Shard { socket, listening }
}

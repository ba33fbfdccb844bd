//! Accepts connections on one shard of a listener, on one thread.
//!
//! ```text
//! idle ── start ──→ polling ── stop ──→ idle        the socket stays open throughout
//!   └─────────────────┴── empty ──→ closed          a removed listener: what waits is accepted first
//! ```
//! Starting registers with the poller before it returns, and after `stop` returned nothing more is
//! accepted: the handover from one generation to the next depends on both.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use nix::errno::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};

use super::{
    Accepted, Serve,
    limit::{Door, Limit, Permit},
};
use crate::{
    clock,
    config::model,
    sys::reserve::{self, Turn},
    upstream::shortage,
};

/// Connections accepted in a row before other tasks of the thread get their turn.
const BURST: usize = 32;
/// First pause after the process or the system ran out of descriptors or memory.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest such pause; it doubles from [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long the queue of a listener that goes is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long the queue must stay empty before it is closed.
    quiet: Duration,
    /// After this time the first empty moment is enough: clients that keep coming must not keep it
    /// open for ever.
    within: Duration,
}

impl Patience {
    /// For a listener that was removed while the service goes on: a client that sent its SYN before
    /// gets through in this time even if one packet is lost twice.
    pub const REMOVED: Self =
        Self { quiet: Duration::from_secs(2), within: Duration::from_secs(3) };

    /// For a listener that somebody drains and then expects to refuse clients: what waits is served, and
    /// a handshake that is under way ends within a round trip. A client that came too late asks again
    /// after a second, and is refused by then.
    pub const DRAINED: Self =
        Self { quiet: Duration::from_millis(500), within: Duration::from_millis(1500) };

    /// Whether anything that waits is served at all.
    pub const fn waits(self) -> bool {
        !self.within.is_zero()
    }

    /// For a listener whose queue another generation empties.
    pub const NONE: Self = Self { quiet: Duration::ZERO, within: Duration::ZERO };

    /// For all listeners of a service that stops, which has `graceful` for it: what waits is served,
    /// and a handshake that is under way ends within a round trip.
    pub fn stopping(graceful: Duration) -> Self {
        let quiet = Duration::from_millis(500).min(graceful / 4);
        Self { quiet, within: (quiet * 3).min(graceful / 2) }
    }
}

/// What the acceptors of one listener on one thread have in common.
pub struct Shared {
    /// Takes the connections; another one does when the listener changes.
    pub serve: RefCell<Rc<dyn Serve>>,
    /// Connections over all listeners.
    pub global: Rc<Door>,
    /// Connections of this listener.
    pub listener: Rc<Door>,
    /// What may change with the listener.
    pub rules: Cell<Rules>,
}

/// What is to be heeded when a connection is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    /// The limit over all listeners does not apply to this one.
    pub ignores_global: bool,
    /// Keepalive of accepted connections.
    pub keepalive: Option<model::TcpKeepalive>,
}

impl Shared {
    fn serve(&self) -> Rc<dyn Serve> {
        Rc::clone(&self.serve.borrow())
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// One shard.
#[derive(Debug)]
pub struct Acceptor {
    socket: Arc<OwnedFd>,
    shared: Rc<Shared>,
    polling: Option<(Rc<Socket>, JoinHandle<()>)>,
}

impl Acceptor {
    /// An acceptor that does not poll yet.
    pub fn new(socket: Arc<OwnedFd>, shared: Rc<Shared>) -> Self {
        Self { socket, shared, polling: None }
    }

    /// Begins to poll, if it does not yet. Must run inside a `LocalSet`.
    ///
    /// # Errors
    /// When there is no descriptor left to poll with; nothing changed then.
    pub fn start(&mut self) -> io::Result<()> {
        if self.polling.is_none() {
            // Not before: until now the socket was another generation's alone.
            self.set_options();
            let socket = Rc::new(Socket::open(&self.socket)?);
            reserve::keep_of_many();
            let task = run(Rc::clone(&socket), Rc::clone(&self.shared));
            self.polling = Some((socket, tokio::task::spawn_local(task)));
        }
        Ok(())
    }

    /// Whether it is one of the acceptors with this in common.
    pub fn is_of(&self, shared: &Rc<Shared>) -> bool {
        Rc::ptr_eq(&self.shared, shared)
    }

    /// Gives the socket the options that accepted connections inherit.
    pub fn set_options(&self) {
        let keepalive = self.shared.rules.get().keepalive;
        if let Err(error) = set_inherited_options(&self.socket, keepalive.as_ref()) {
            tracing::warn!(%error, "cannot set options of a listener");
        }
    }

    /// Stops polling at once; the socket stays open and may be started again.
    pub fn stop(&mut self) {
        if let Some((_, task)) = self.polling.take() {
            // The task belongs to this thread and is not running now, so it never runs again.
            task.abort();
        }
    }

    /// Goes on accepting until nothing came for a while, then closes the socket.
    ///
    /// # Errors
    /// When there is no descriptor left to poll with.
    pub async fn empty(mut self, patience: Patience) -> io::Result<()> {
        // What is polled already needs no descriptor, of which there may be none left.
        let socket = match self.polling.take() {
            Some((socket, task)) => {
                task.abort();
                socket
            }
            None if patience.within.is_zero() => return Ok(()),
            None => Rc::new(Socket::open(&self.socket)?),
        };
        let started = clock::now();
        loop {
            let late = clock::now().duration_since(started) >= patience.within;
            let quiet = if late { Duration::ZERO } else { patience.quiet };
            match tokio::time::timeout(quiet, accept(&socket, &self.shared)).await {
                Err(_quiet) => return Ok(()),
                Ok(Ok(())) => {}
                Ok(Err(_)) => tokio::time::sleep(PAUSE_MIN).await,
            }
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes accepted connections of a listening TCP socket send at once and keep alive as configured.
///
/// Linux copies these options to each accepted connection, which saves system calls for each.
///
/// # Errors
/// When the socket does not take an option.
fn set_inherited_options(
    socket: &OwnedFd,
    keepalive: Option<&model::TcpKeepalive>,
) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.domain()? == socket2::Domain::UNIX {
        return Ok(());
    }
    socket.set_tcp_nodelay(true)?;
    // The first request is acknowledged by its response, as all later ones are: one packet less.
    socket.set_tcp_quickack(false)?;
    let Some(wanted) = keepalive else { return socket.set_keepalive(false) };
    // What is not configured is set too: an earlier generation may have configured it.
    let seconds = |name| system_default(name).map(|n| Duration::from_secs(n.into()));
    let mut options = TcpKeepalive::new();
    if let Some(time) = wanted.time.or_else(|| seconds("tcp_keepalive_time")) {
        options = options.with_time(time);
    }
    if let Some(interval) = wanted.interval.or_else(|| seconds("tcp_keepalive_intvl")) {
        options = options.with_interval(interval);
    }
    if let Some(probes) = wanted.probes.or_else(|| system_default("tcp_keepalive_probes")) {
        options = options.with_retries(probes);
    }
    socket.set_tcp_keepalive(&options)
}

/// A setting of the kernel for TCP.
fn system_default(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?.trim().parse().ok()
}

/// A polled copy of a shard.
#[derive(Debug)]
enum Socket {
    /// With the address all its connections have, if there is one.
    Tcp(TcpListener, Option<SocketAddr>),
    Unix(UnixListener),
}

impl Socket {
    fn open(socket: &OwnedFd) -> io::Result<Self> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        if SockRef::from(&copy).domain()? == socket2::Domain::UNIX {
            let listener = std::os::unix::net::UnixListener::from(copy);
            listener.set_nonblocking(true)?;
            return UnixListener::from_std(listener).map(Self::Unix);
        }
        let listener = std::net::TcpListener::from(copy);
        listener.set_nonblocking(true)?;
        let address = only_address(&listener);
        Ok(Self::Tcp(TcpListener::from_std(listener)?, address))
    }

    /// A connection, and the moment before it got its descriptor.
    async fn accept(&self) -> io::Result<(Accepted, Turn)> {
        poll_fn(|cx| {
            let turn = Turn::now();
            let accepted = match self {
                Self::Tcp(listener, address) => {
                    let (stream, peer) = ready!(listener.poll_accept(cx))?;
                    let local = address.or_else(|| stream.local_addr().ok());
                    Accepted::Tcp { stream, peer, local }
                }
                Self::Unix(listener) => {
                    let (stream, _) = ready!(listener.poll_accept(cx))?;
                    Accepted::Unix { stream }
                }
            };
            Poll::Ready(Ok((accepted, turn)))
        })
        .await
    }
}

/// The address all connections of a listener have: its own, unless it listens to all addresses, or takes
/// connections to others for a transparent proxy.
fn only_address(listener: &std::net::TcpListener) -> Option<SocketAddr> {
    let address = listener.local_addr().ok()?;
    let others = SockRef::from(listener).ip_transparent_v4().unwrap_or(true);
    (!others && !address.ip().is_unspecified()).then_some(address)
}

async fn run(socket: Rc<Socket>, shared: Rc<Shared>) {
    let mut pause = PAUSE_MIN;
    loop {
        for _ in 0..BURST {
            match accept(&socket, &shared).await {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    // Waiting connections stay in the queue of the kernel meanwhile.
                    tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept");
                    shortage::ask_for_room();
                    if pause == PAUSE_MAX {
                        refuse_waiting(&socket, &shared).await;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Closes the connections that wait, with the descriptor that is kept for it. Another thread may have it: it
/// is asked for again after the next pause.
async fn refuse_waiting(socket: &Socket, shared: &Shared) {
    let Some(_lent) = reserve::lend() else { return };
    for _ in 0..BURST {
        let accepted = tokio::time::timeout(Duration::ZERO, socket.accept()).await;
        let Ok(Ok((connection, _))) = accepted else { break };
        drop(connection);
        shared.serve().refused(Limit::Descriptors);
    }
}

/// Accepts one connection and hands it on.
///
/// # Errors
/// Only those that need a pause. A client that gave up while it waited is none of them.
async fn accept(socket: &Socket, shared: &Shared) -> io::Result<()> {
    let (connection, turn) = match socket.accept().await {
        Ok(connection) => connection,
        Err(error) if needs_pause(&error) => return Err(error),
        Err(_gone) => return Ok(()),
    };
    if turn.has_reserve() {
        drop(connection);
        reserve::keep();
        shared.serve().refused(Limit::Descriptors);
        return Ok(());
    }
    let ask = if shared.rules.get().ignores_global { Permit::ask_listener } else { Permit::ask };
    match ask(&shared.global, &shared.listener) {
        Ok(permit) => shared.serve().serve(connection, permit),
        Err(limit @ (Limit::Global | Limit::Listener | Limit::Descriptors)) => {
            shared.serve().refused(limit);
        }
    }
    Ok(())
}

/// Whether the error will come again at once. See `accept(2)`, "Error handling".
fn needs_pause(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return true };
    !matches!(
        Errno::from_raw(code),
        Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
    )
}

#[cfg(test)]
mod tests;

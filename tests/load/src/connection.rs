//! One connection of the generator: what it is in the middle of, and its moves.
//!
//! ```text
//! Closed -> Connecting -> [Upgrading] -> Answering -> Free -> Answering -> …
//! ```
//!
//! A connection that fails goes back to Closed; the engine counts the failure.

use crate::exchange::{Exchange, Progress, Receiver};
use crate::outcome::Failure;
use crate::poll::{Interest, Poll};
use socket2::{Domain, Socket, Type};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Closed,
    Connecting,
    Upgrading,
    Answering,
    Free,
}

/// What an event led to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Nothing to do yet.
    Wait,
    /// The exchange is complete.
    Done,
    /// It failed; the connection is closed.
    Failed(Failure),
    /// The other side closed it between two exchanges.
    Ended,
}

/// Where connections go, and what they say.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    /// The proxy.
    pub(crate) target: SocketAddr,
    /// What is sent.
    pub(crate) exchange: &'a Exchange,
    /// Whether a connection serves one exchange only.
    pub(crate) once: bool,
    /// Who reports events.
    pub(crate) poll: &'a Poll,
}

/// A place for one connection after the other.
#[derive(Debug)]
pub(crate) struct Connection {
    token: usize,
    stream: Option<TcpStream>,
    phase: Phase,
    interest: Interest,
    /// Number of the request in progress.
    number: usize,
    /// Bytes of it that are written.
    sent: usize,
    receiver: Receiver,
    /// When the request in progress should have been sent.
    pub(crate) due: Instant,
}

impl Connection {
    /// A closed one.
    pub(crate) fn new(token: usize, now: Instant) -> Self {
        Self {
            token,
            stream: None,
            phase: Phase::Closed,
            interest: Interest::Read,
            number: 0,
            sent: 0,
            receiver: Receiver::default(),
            due: now,
        }
    }

    /// Whether the next exchange needs a new connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.stream.is_none()
    }

    /// Sends request `number`, after connecting if need be.
    pub(crate) fn start(&mut self, way: &Way<'_>, number: usize, due: Instant) -> Step {
        self.number = number;
        self.due = due;
        self.sent = 0;
        self.receiver.reset();
        if self.phase == Phase::Free {
            self.phase = Phase::Answering;
            return self.send(way);
        }
        match self.connect(way) {
            Ok(step) => step,
            Err(_) => self.fail(Failure::Connect),
        }
    }

    fn connect(&mut self, way: &Way<'_>) -> io::Result<Step> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(way.target), kind, None)?;
        socket.set_tcp_nodelay(true)?;
        let connected = match socket.connect(&way.target.into()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => false,
            Err(error) => return Err(error),
        };
        // On the loopback device the handshake is over before `connect` returns, most often.
        self.interest = if connected { Interest::Read } else { Interest::Write };
        way.poll.add(&socket, self.token, self.interest)?;
        self.stream = Some(socket.into());
        self.phase = Phase::Connecting;
        Ok(if connected { self.connected(way) } else { Step::Wait })
    }

    fn connected(&mut self, way: &Way<'_>) -> Step {
        let upgrades = way.exchange.upgrade().is_some();
        self.phase = if upgrades { Phase::Upgrading } else { Phase::Answering };
        self.send(way)
    }

    /// Writes what is left of the request.
    fn send(&mut self, way: &Way<'_>) -> Step {
        let all = match (self.phase, way.exchange.upgrade()) {
            (Phase::Upgrading, Some(upgrade)) => upgrade,
            _ => way.exchange.request(self.number),
        };
        let rest = all.get(self.sent..).unwrap_or_default();
        let Some(stream) = &mut self.stream else { return Step::Wait };
        match stream.write(rest) {
            Ok(written) => self.sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return self.fail(Failure::Cut),
        }
        let interest = if self.sent < all.len() { Interest::Write } else { Interest::Read };
        if interest != self.interest {
            self.interest = interest;
            let Some(stream) = &self.stream else { return Step::Wait };
            if way.poll.change(stream, self.token, interest).is_err() {
                return self.fail(Failure::Cut);
            }
        }
        Step::Wait
    }

    /// Handles an event; `buffer` is for reading and may be shared. Adds the bytes read to `bytes`.
    pub(crate) fn ready(&mut self, way: &Way<'_>, buffer: &mut [u8], bytes: &mut u64) -> Step {
        match (self.phase, self.interest) {
            (Phase::Closed, _) => return Step::Wait,
            (Phase::Connecting, _) => {
                let error = self.stream.as_ref().map(TcpStream::take_error);
                return match error {
                    Some(Ok(None)) => self.connected(way),
                    _ => self.fail(Failure::Connect),
                };
            }
            (Phase::Upgrading | Phase::Answering, Interest::Write) => return self.send(way),
            (Phase::Upgrading | Phase::Answering | Phase::Free, _) => {}
        }
        let Some(stream) = &mut self.stream else { return Step::Wait };
        let count = match stream.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
            Err(_) => 0,
        };
        *bytes += count as u64;
        let received = buffer.get(..count).unwrap_or_default();
        match (self.phase, count) {
            (Phase::Free, 0) => {
                self.close();
                Step::Ended
            }
            (Phase::Free, _) => self.fail(Failure::Content),
            (_, 0) => self.fail(Failure::Cut),
            _ => self.received(way, received),
        }
    }

    fn received(&mut self, way: &Way<'_>, bytes: &[u8]) -> Step {
        if self.phase == Phase::Upgrading {
            return match self.receiver.take_upgrade(bytes) {
                Progress::More => Step::Wait,
                Progress::Done | Progress::DoneLast => {
                    self.phase = Phase::Answering;
                    self.sent = 0;
                    self.receiver.reset();
                    self.send(way)
                }
                Progress::Failed(failure) => self.fail(failure),
            };
        }
        match self.receiver.take(way.exchange, self.number, bytes) {
            Progress::More => Step::Wait,
            Progress::Done if !way.once => {
                self.phase = Phase::Free;
                Step::Done
            }
            Progress::Done | Progress::DoneLast => {
                self.close();
                Step::Done
            }
            Progress::Failed(failure) => self.fail(failure),
        }
    }

    fn fail(&mut self, failure: Failure) -> Step {
        self.close();
        Step::Failed(failure)
    }

    fn close(&mut self) {
        self.stream = None;
        self.phase = Phase::Closed;
    }
}

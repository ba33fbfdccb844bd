//! The handoff channel: frames and descriptors over a `SOCK_SEQPACKET` socket pair.
//!
//! The socket is non-blocking. It can be polled with `poll(2)` or wrapped in an `AsyncFd`. All
//! descriptors that arrive are close-on-exec and owned before anything else happens to them, and
//! their number is checked against the frame, because the kernel drops descriptors silently when
//! the receiver has no room left in its table.
#![expect(unsafe_code, reason = "descriptors that arrive as numbers become owned here")]

mod outbox;

pub use outbox::{Flushed, Outbox, OutboxError};

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
};
use sendfd::{RecvWithFd, SendWithFd};

use crate::{
    frame::{Frame, FrameError, MAX_FDS, MAX_FRAME_LEN},
    words::counted,
};

/// The number under which a worker inherits its end of the channel.
pub const WORKER_FD: RawFd = 3;

/// Takes over the descriptor this process was started with under [`WORKER_FD`]. To be called once,
/// before anything is opened.
///
/// # Errors
/// When nothing was inherited under that number.
pub fn inherited_fd() -> io::Result<OwnedFd> {
    // SAFETY: the number is only borrowed to ask the kernel whether it is open.
    let probe = unsafe { BorrowedFd::borrow_raw(WORKER_FD) };
    fcntl(probe, FcntlArg::F_GETFD)?;
    // SAFETY: the descriptor is open, it was inherited for this purpose, and a process calls this
    // once before it opens anything, so nothing else owns the number.
    Ok(unsafe { OwnedFd::from_raw_fd(WORKER_FD) })
}

/// Why a frame could not be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The socket is full; try again when it is writable.
    #[error("the handoff channel is full")]
    Full,
    /// The other side is gone.
    #[error("the other side of the handoff channel is gone")]
    Closed,
    /// The frame names another number of descriptors than were given.
    #[error("the frame names {}, given: {given}", counted(*named, "descriptor"))]
    Descriptors {
        /// Descriptors named in the frame.
        named: usize,
        /// Descriptors given.
        given: usize,
    },
    /// The frame breaks a limit.
    #[error("the frame cannot be encoded")]
    Frame(#[source] FrameError),
    /// The socket failed.
    #[error("cannot write to the handoff channel")]
    Io(#[source] io::Error),
}

/// Why no frame could be received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// Nothing is there; try again when the socket is readable.
    #[error("nothing to receive")]
    Empty,
    /// The packet is not a frame. It is consumed; its descriptors are closed.
    #[error("the packet is not a frame")]
    Frame(#[source] FrameError),
    /// Another number of descriptors arrived than the frame names. They are closed.
    #[error("the frame names {}, arrived: {received}", counted(*named, "descriptor"))]
    Descriptors {
        /// Descriptors named in the frame.
        named: usize,
        /// Descriptors received.
        received: usize,
    },
    /// The socket failed.
    #[error("cannot read from the handoff channel")]
    Io(#[source] io::Error),
}

/// One end of the channel.
#[derive(Debug)]
pub struct Channel {
    socket: UnixDatagram,
}

impl Channel {
    /// Makes a connected pair. Both ends are non-blocking and close-on-exec.
    ///
    /// # Errors
    /// When the process is out of descriptors or memory.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self { socket: ours.into() }, Self { socket: theirs.into() }))
    }

    /// Takes over a descriptor, for example the inherited [`WORKER_FD`], and makes it
    /// non-blocking and close-on-exec.
    ///
    /// # Errors
    /// When its flags cannot be changed.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
        Ok(Self { socket: fd.into() })
    }

    /// Takes over the descriptor a worker inherits. To be called once, at the start of a worker.
    ///
    /// # Errors
    /// When nothing was inherited under that number.
    pub fn inherited() -> io::Result<Self> {
        Self::from_fd(inherited_fd()?)
    }

    /// Sends one frame with its descriptors, or nothing of it.
    ///
    /// # Errors
    /// [`SendError::Full`] when it has to be tried again later, others when it is lost.
    pub fn send(&self, frame: &Frame, fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        if usize::from(frame.nfds) != fds.len() {
            let named = usize::from(frame.nfds);
            return Err(SendError::Descriptors { named, given: fds.len() });
        }
        let bytes = frame.encode().map_err(SendError::Frame)?;
        let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        loop {
            let sent = if numbers.is_empty() {
                self.socket.send(&bytes)
            } else {
                self.socket.send_with_fd(&bytes, &numbers)
            };
            let Err(error) = sent else { return Ok(()) };
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EAGAIN) => SendError::Full,
                Some(Errno::EPIPE | Errno::ECONNRESET | Errno::ECONNREFUSED | Errno::ENOTCONN) => {
                    SendError::Closed
                }
                _ => SendError::Io(error),
            });
        }
    }

    /// Receives one frame and its descriptors; `None` when the other side is gone.
    ///
    /// # Errors
    /// [`ReceiveError::Empty`] when nothing is there, others when a packet is lost.
    pub fn recv(&self) -> Result<Option<(Frame, Vec<OwnedFd>)>, ReceiveError> {
        let mut packet = vec![0_u8; MAX_FRAME_LEN.saturating_add(1)];
        let mut numbers = [-1; MAX_FDS];
        let (length, count) = loop {
            match self.socket.recv_with_fd(&mut packet, &mut numbers) {
                Ok(got) => break got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ReceiveError::Empty);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(ReceiveError::Io(error)),
            }
        };
        let fds = adopt(&numbers, count).map_err(ReceiveError::Io)?;
        if length == 0 {
            return Ok(None);
        }
        let bytes = packet.get(..length).unwrap_or_default();
        let frame = Frame::decode(bytes).map_err(ReceiveError::Frame)?;
        let named = usize::from(frame.nfds);
        if named != fds.len() {
            return Err(ReceiveError::Descriptors { named, received: fds.len() });
        }
        Ok(Some((frame, fds)))
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.socket.into()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Owns the first `count` descriptors, then makes them close-on-exec.
fn adopt(numbers: &[RawFd], count: usize) -> io::Result<Vec<OwnedFd>> {
    let fds: Vec<OwnedFd> = numbers
        .iter()
        .take(count)
        // SAFETY: the kernel made these descriptors for us in this very call, nothing else holds
        // their numbers, and each is wrapped exactly once.
        .map(|number| unsafe { OwnedFd::from_raw_fd(*number) })
        .collect();
    for fd in &fds {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok(fds)
}

#[cfg(test)]
mod tests;

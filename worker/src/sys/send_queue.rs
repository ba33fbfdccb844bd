//! How much of what was written to a TCP socket has not reached the peer.
#![expect(unsafe_code, reason = "no dependency wraps ioctl(SIOCOUTQ)")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

/// Bytes in the send queue of a TCP socket: written, but not acknowledged by the peer's kernel.
///
/// # Errors
/// What `ioctl(2)` says, for example on another kind of socket.
pub fn unacknowledged(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and `SIOCOUTQ` (which is
    // `TIOCOUTQ`) writes exactly one int to the pointer, which is valid for it.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

//! How much can be read from a pipe or a socket without waiting.
#![expect(unsafe_code, reason = "no dependency wraps ioctl(FIONREAD)")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

/// Bytes that a read would find now, in a pipe (either end may be asked) or in the receive queue
/// of a socket.
///
/// # Errors
/// What `ioctl(2)` says, for example on another kind of descriptor.
pub fn readable(descriptor: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as `descriptor` is borrowed, and `FIONREAD` writes
    // exactly one int to the pointer, which is valid for it.
    let result = unsafe { libc::ioctl(descriptor, libc::FIONREAD, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

//! The few system calls no safe crate offers. All unsafe code of the supervisor is here.
#![expect(unsafe_code, reason = "system calls that no safe crate offers")]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{fcntl, libc, sys::signal::Signal};

/// Opens a descriptor that becomes readable when the process ends. It is close-on-exec.
///
/// # Errors
/// When there is no such process, or Linux is older than 5.3.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let number = RawFd::try_from(number).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sends a signal to exactly this process, whatever became of its number.
///
/// # Errors
/// When it ended, or belongs to another user.
pub(crate) fn pidfd_send_signal(process: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let (fd, number) = (process.as_raw_fd(), signal as libc::c_int);
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: integers and a null pointer, which means "as kill(2) does"; no memory is touched.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A copy of a descriptor another process of ours has, close-on-exec.
///
/// # Errors
/// When that process may not be looked into, or has no such descriptor.
pub(crate) fn pidfd_getfd(process: BorrowedFd<'_>, theirs: RawFd) -> io::Result<OwnedFd> {
    let fd = process.as_raw_fd();
    // SAFETY: the call takes three integers and touches no memory of ours.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd, theirs, 0) };
    let number = RawFd::try_from(number).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets the child have `fd` under the number `as_number`, open across exec.
///
/// `as_number` must be in use in this process when the child is started, so that the standard
/// library does not put a descriptor of its own there. `fd` must stay open until then.
pub(crate) fn hand_down(command: &mut Command, fd: BorrowedFd<'_>, as_number: RawFd) {
    let number = fd.as_raw_fd();
    let place = move || {
        let result = if number == as_number {
            // SAFETY: `fcntl` with these arguments is async-signal-safe and touches no memory.
            unsafe { libc::fcntl(number, libc::F_SETFD, 0) }
        } else {
            // SAFETY: `dup2` is async-signal-safe and touches no memory.
            unsafe { libc::dup2(number, as_number) }
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes one async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(place) };
}

/// Lets the child ignore the signals that mean something to the supervisor, also after exec:
/// `pkill -HUP baton` reaches every process of that name and must not end a worker.
pub(crate) fn ignore_requests(command: &mut Command) {
    let ignore = || {
        for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
            // SAFETY: `signal` is async-signal-safe, and SIG_IGN is no function of ours.
            if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(ignore) };
}

/// Owns a descriptor that this process inherited under a known number, and makes it close-on-exec.
/// To be called at most once for each number, before anything else uses it.
///
/// # Errors
/// When the number is not open.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only borrowed to ask the kernel whether it is open.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl::fcntl(probe, fcntl::FcntlArg::F_SETFD(fcntl::FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, the service manager passed it to us, and nothing owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number of a descriptor, for a program that inherits it.
pub(crate) fn number(fd: BorrowedFd<'_>) -> RawFd {
    fd.as_raw_fd()
}

/// Lets a descriptor stay open when another program is executed in place of this one.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn keep_over_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl::fcntl(fd, fcntl::FcntlArg::F_SETFD(fcntl::FdFlag::empty()))?;
    Ok(())
}

/// Closes every descriptor but standard input, output and error. To be called before this process
/// owns any.
///
/// # Errors
/// When Linux is older than 5.9.
pub(crate) fn close_inherited() -> io::Result<()> {
    // SAFETY: integers only. Nothing owns these descriptors yet: they came with the process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets `TCP_FASTOPEN` on a listening socket.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn set_fast_open(socket: BorrowedFd<'_>, queue: u32) -> io::Result<()> {
    let queue = libc::c_int::try_from(queue).unwrap_or(libc::c_int::MAX);
    let size = libc::socklen_t::try_from(size_of_val(&queue)).map_err(io::Error::other)?;
    let value = (&raw const queue).cast();
    // SAFETY: `value` points to a live integer of `size` bytes, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, value, size)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

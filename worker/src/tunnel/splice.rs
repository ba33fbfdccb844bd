//! Moves bytes from socket to socket through a pipe, without copying them to this process.
//!
//! Pipes are kept in a pool of the thread. A direction holds one only while bytes are in it, so
//! that idle tunnels cost no descriptors. A pipe that came from another process, or that lives as
//! long as its tunnel, is none of them and is closed after use: a copy of it may be open elsewhere,
//! and a pipe of the pool must be nobody else's.
//!
//! `splice(2)` to a socket whose peer is gone raises SIGPIPE, which the Rust runtime ignores.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::{SysconfVar, pipe2, sysconf},
};
use tokio::io::Interest;

use crate::{
    progress,
    sys::{receive_queue, reserve},
    transport::Stream,
};

/// Capacity asked for, in bytes. Enough for one large read of a fast socket; an unprivileged user
/// may have 64 MiB in pipes by default, which is 128 of these.
const CAPACITY: i32 = 512 * 1024;
/// The same.
const LARGEST: usize = 512 * 1024;
/// Least capacity of a pipe that lives as long as its tunnel, bytes: what the kernel gives unless
/// the user has too much in pipes.
const OWN_CAPACITY: usize = 64 * 1024;
/// Capacity of a pipe that does not say it, bytes; the least there is.
const DEFAULT_CAPACITY: usize = 4096;
/// Empty pipes kept by a thread, pipes. Two descriptors each.
const MOST_IDLE: usize = 16;
/// Pipes of a thread in use and idle, pipes. Beyond it tunnels copy.
pub(crate) const MOST_OPEN: usize = 64;

/// Share of the pipes of the process for tunnels that keep theirs, in quarters; the rest is for the pools.
const KEPT_QUARTERS: usize = 3;

/// Pipes of the process, and how many it may have: sockets come first.
static PIPES: AtomicUsize = AtomicUsize::new(0);
static PIPES_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Beyond so many pipes in the process tunnels copy, and are not kept for a crash.
pub(crate) fn limit_pipes(max: usize) {
    PIPES_MAX.store(max, Ordering::Relaxed);
}

/// Counts as a pipe of the process until dropped.
#[derive(Debug)]
struct Place;

impl Place {
    /// One more, if there are fewer than `max`.
    fn take(max: usize) -> Result<Self, Errno> {
        let place = Self::anyway();
        if PIPES.load(Ordering::Relaxed) > max { Err(Errno::EMFILE) } else { Ok(place) }
    }

    /// One that is there already.
    fn anyway() -> Self {
        PIPES.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { idle: Vec::new(), open: 0 }) };
}

struct Pool {
    idle: Vec<Ends>,
    open: usize,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    /// Parts of the socket's queue it has room for, each of one byte at least.
    parts: usize,
    /// Whether other processes may have copies of the descriptors.
    shared: Cell<bool>,
    /// Whether it counts among those of the thread.
    counted: bool,
    _place: Place,
}

/// A pipe and how many bytes are in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// `None` only while it is dropped.
    ends: Option<Ends>,
    filled: usize,
}

impl Pipe {
    /// A pipe of the pool or a new one; `None` when the thread has enough of them or the system
    /// gives no more.
    pub(crate) fn take() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            let ends = match pool.idle.pop() {
                Some(ends) => ends,
                None if pool.open < MOST_OPEN => {
                    let ends = open().ok()?;
                    pool.open += 1;
                    ends
                }
                None => return None,
            };
            Some(Self { ends: Some(ends), filled: 0 })
        })
    }

    /// Takes over a pipe with whatever is in it: the end to read from and the one to write to.
    pub(super) fn adopt(read: OwnedFd, write: OwnedFd) -> io::Result<Self> {
        let filled = receive_queue::readable(&read)?;
        // Fails on anything but a pipe.
        let capacity = capacity(&write)?;
        for end in [&read, &write] {
            let flags = OFlag::from_bits_retain(fcntl(end, FcntlArg::F_GETFL)?);
            fcntl(end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(Self::apart((read, write), capacity, filled, Place::anyway()))
    }

    /// A new pipe that never belongs to the pool.
    ///
    /// # Errors
    /// When there are no descriptors left, or the user has so much in pipes that the kernel would
    /// give only a very small one.
    pub(super) fn own() -> io::Result<Self> {
        let max = PIPES_MAX.load(Ordering::Relaxed);
        let place = Place::take(max / 4 * KEPT_QUARTERS)?;
        let (read, write) = new_pipe()?;
        let capacity = capacity(&write)?;
        if capacity < OWN_CAPACITY {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Self::apart((read, write), capacity, 0, place))
    }

    /// A pipe that is none of the pool's.
    fn apart(
        (read, write): (OwnedFd, OwnedFd),
        capacity: usize,
        filled: usize,
        place: Place,
    ) -> Self {
        let (parts, shared) = (parts(capacity), Cell::new(true));
        let ends = Ends { read, write, capacity, parts, shared, counted: false, _place: place };
        Self { ends: Some(ends), filled }
    }

    /// Makes room for more at once after `moved` bytes filled the pipe.
    pub(super) fn grow(&mut self, moved: usize) {
        let Some(ends) = &mut self.ends else { return };
        if moved >= ends.capacity
            && ends.capacity < LARGEST
            // Refused when the user has too much in pipes already.
            && let Ok(capacity) = fcntl(&ends.write, FcntlArg::F_SETPIPE_SZ(CAPACITY))
        {
            ends.capacity = usize::try_from(capacity).unwrap_or(ends.capacity);
            ends.parts = parts(ends.capacity);
        }
    }

    /// Copies of the descriptors. From now on it never goes back to the pool.
    pub(super) fn duplicate(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::NotConnected.into()) };
        ends.shared.set(true);
        let (read, write) = (ends.read.as_fd(), ends.write.as_fd());
        Ok((read.try_clone_to_owned()?, write.try_clone_to_owned()?))
    }

    /// Bytes in it.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// Waits until the socket has something and moves it into the pipe, which must be empty, but not more than
    /// `most` bytes; 0 is the end of the stream.
    pub(crate) fn poll_fill_from(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(source.poll_read_ready(cx))?;
            match self.fill_from(source, most) {
                Err(error) if may_try_again(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Waits until the socket has room and moves bytes of the pipe, which must not be empty, into it.
    pub(crate) fn poll_drain_to(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Stream,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(sink.poll_write_ready(cx))?;
            match self.drain_to(sink) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Err(error) if may_try_again(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn fill_from(&mut self, source: &Stream, most: usize) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut moved = 0;
        let result = source.try_io(Interest::READABLE, || {
            let most = ends.capacity.min(most);
            moved = splice(source, None, &ends.write, None, most, flags())?;
            // There was room for more parts, so there are none. Saying so forgets the readiness, which
            // saves the call that would find nothing.
            let is_all = (1..ends.parts.min(most)).contains(&moved);
            if is_all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if moved == 0 {
            result?;
        }
        self.filled += moved;
        progress::moved(moved);
        Ok(moved)
    }

    fn drain_to(&mut self, sink: &Stream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::NotConnected.into()) };
        let moved = sink.try_io(Interest::WRITABLE, || {
            Ok(splice(&ends.read, None, sink, None, self.filled, flags())?)
        })?;
        self.filled = self.filled.saturating_sub(moved);
        progress::moved(moved);
        Ok(moved)
    }

    /// Takes all bytes out of it.
    pub(crate) fn empty_to(mut self, mut to: impl FnMut(&[u8])) -> io::Result<()> {
        let Some(ends) = &self.ends else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut bytes = [0; 4096];
        while self.filled > 0 {
            let count = match nix::unistd::read(&ends.read, &mut bytes) {
                Err(Errno::EINTR) => continue,
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                result => result?,
            };
            to(&bytes[..count]);
            self.filled = self.filled.saturating_sub(count);
        }
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // The thread may be gone already; then the descriptors are simply closed.
        POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            match self.ends.take() {
                Some(ends)
                    if self.filled == 0
                        && ends.counted
                        && !ends.shared.get()
                        && pool.idle.len() < MOST_IDLE =>
                {
                    pool.idle.push(ends);
                }
                Some(Ends { counted: false, .. }) | None => {}
                Some(_) => pool.open = pool.open.saturating_sub(1),
            }
        })
        .ok();
    }
}

/// The readiness was stale or a signal came; the next wait sorts it out.
fn may_try_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}

fn new_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    reserve::open(|| pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(io::Error::from))
}

fn open() -> io::Result<Ends> {
    let place = Place::take(PIPES_MAX.load(Ordering::Relaxed))?;
    let (read, write) = new_pipe()?;
    // Refused when the user has too much in pipes already; the default size works too.
    let capacity = match fcntl(&write, FcntlArg::F_SETPIPE_SZ(CAPACITY)) {
        Ok(capacity) => usize::try_from(capacity).unwrap_or(DEFAULT_CAPACITY),
        Err(_) => capacity(&write)?,
    };
    let (parts, shared) = (parts(capacity), Cell::new(false));
    Ok(Ends { read, write, capacity, parts, shared, counted: true, _place: place })
}

/// Parts a pipe has room for: the kernel gives each a page (`pipe(7)`).
fn parts(capacity: usize) -> usize {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|bytes| usize::try_from(bytes).ok());
    // Without an answer no number of bytes is too few to fill it.
    page.map_or(0, |page| capacity / page.max(1))
}

/// Capacity of a pipe, bytes.
fn capacity(end: &OwnedFd) -> Result<usize, Errno> {
    let capacity = fcntl(end, FcntlArg::F_GETPIPE_SZ)?;
    Ok(usize::try_from(capacity).unwrap_or(DEFAULT_CAPACITY))
}

#[cfg(test)]
/// Pipes of this thread, in use and idle, and the idle ones.
pub(super) fn pool_of_this_thread() -> (usize, usize) {
    POOL.with_borrow(|pool| (pool.open, pool.idle.len()))
}

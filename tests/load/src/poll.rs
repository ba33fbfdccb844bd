//! epoll, level-triggered: what is not read now is reported again, so one read per event is enough.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Events taken at once.
const EVENTS: usize = 256;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interest {
    /// Bytes, or the end.
    Read,
    /// Room for more bytes.
    Write,
    /// Either.
    Both,
    /// Nothing for now; that it is broken is reported, once.
    Nothing,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Read => EpollFlags::EPOLLIN,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            // Level-triggered, a hang-up would be reported again and again.
            Self::Nothing => EpollFlags::EPOLLET,
        }
    }
}

/// Descriptors that are waited for, each known by a token.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll descriptor");
        Self { epoll, events: vec![EpollEvent::empty(); EVENTS] }
    }

    /// Waits for one more descriptor, until it is closed.
    pub(crate) fn add(&self, fd: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(interest.flags(), token as u64))?)
    }

    /// Waits for something else on it.
    pub(crate) fn change(&self, fd: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(interest.flags(), token as u64))?)
    }

    /// Waits; the number of events that [`Self::token`] knows now.
    pub(crate) fn wait(&mut self, timeout: EpollTimeout) -> usize {
        match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => panic_with(error),
        }
    }

    /// The token of an event of the last wait.
    pub(crate) fn token(&self, index: usize) -> usize {
        self.events
            .get(index)
            .map_or(usize::MAX, |event| usize::try_from(event.data()).unwrap_or(usize::MAX))
    }

    /// What an event of the last wait says.
    pub(crate) fn flags(&self, index: usize) -> EpollFlags {
        self.events.get(index).map_or(EpollFlags::empty(), EpollEvent::events)
    }
}

#[expect(clippy::panic, reason = "without epoll there is nothing to go on with")]
fn panic_with(error: nix::errno::Errno) -> usize {
    panic!("wait for events: {error}")
}

/// A descriptor that becomes readable again and again; exact, unlike the milliseconds of epoll.
#[derive(Debug)]
pub(crate) struct Ticker {
    timer: TimerFd,
}

impl Ticker {
    /// Ticks every `period`, for the first time after one.
    pub(crate) fn new(period: Duration) -> Self {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).expect("a timer");
        let every = Expiration::Interval(TimeSpec::from_duration(period));
        timer.set(every, TimerSetTimeFlags::empty()).expect("an armed timer");
        Self { timer }
    }

    /// Takes the ticks until now.
    pub(crate) fn take(&self) {
        // A spurious event finds no tick; there is nothing to do about that.
        self.timer.wait().unwrap_or(());
    }
}

impl AsFd for Ticker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

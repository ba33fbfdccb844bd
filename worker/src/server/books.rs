//! What a worker thread tells about itself without being asked: that it makes progress, and its
//! books. Written by the thread, read by the main thread.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use baton_contract::{
    message::{Ended, Kinds, Status},
    peer::Stay,
};

/// Connections by what became of them, since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Books {
    /// Accepted, or taken over from another generation.
    pub opened: u64,
    /// Ended, in the order of `EndReason::ALL`.
    pub ended: [u64; 7],
    /// HTTP requests in flight.
    pub active_requests: u64,
    /// Open now, in the order of `ConnectionKind::ALL`.
    pub open: [u64; 3],
    /// Given to another generation, in the same order, idle upstream connections last.
    pub moved: [u64; 4],
    /// Ended while others moved, in the order of `Stay::ALL`.
    pub stayed: [u64; Stay::ALL.len()],
}

/// Numbers of a thread's books.
const NUMBERS: usize = 2 + 7 + 3 + 4 + Stay::ALL.len();

impl Books {
    fn numbers(&self) -> impl Iterator<Item = u64> {
        let Self { opened, ended, active_requests, open, moved, stayed } = *self;
        let lists = ended.into_iter().chain(open).chain(moved).chain(stayed);
        [opened, active_requests].into_iter().chain(lists)
    }

    fn from_numbers(mut numbers: impl Iterator<Item = u64>) -> Self {
        let mut next = || numbers.next().unwrap_or(0);
        Self {
            opened: next(),
            active_requests: next(),
            ended: std::array::from_fn(|_| next()),
            open: std::array::from_fn(|_| next()),
            moved: std::array::from_fn(|_| next()),
            stayed: std::array::from_fn(|_| next()),
        }
    }

    /// Connections that are open.
    pub(super) fn open_now(&self) -> u64 {
        self.ended.iter().fold(self.opened, |open, ended| open.saturating_sub(*ended))
    }

    /// The sum of two.
    #[must_use]
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self::from_numbers(self.numbers().zip(other.numbers()).map(|(a, b)| a.wrapping_add(b)))
    }

    /// As the supervisor is told.
    pub(super) fn status(&self) -> Status {
        let [client, upstream, timeout, drained, migrated, cut_by_deadline, crash] = self.ended;
        let kinds = |[http1, upgraded, tcp]: [u64; 3]| Kinds { http1, upgraded, tcp };
        let [http1, upgraded, tcp, moved_upstream] = self.moved;
        let stayed = Stay::ALL.iter().zip(self.stayed).filter(|(_, count)| *count > 0);
        Status {
            opened: self.opened,
            ended: Ended { client, upstream, timeout, drained, migrated, cut_by_deadline, crash },
            active_requests: self.active_requests,
            open: kinds(self.open),
            moved: kinds([http1, upgraded, tcp]),
            moved_upstream,
            stayed: stayed.map(|(why, count)| (why.as_str().to_owned(), count)).collect(),
            ..Status::default()
        }
    }
}

/// Where a thread shows them.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Number of the thread for the kernel; 0 = it has not begun.
    thread: AtomicU32,
    over: AtomicBool,
    mono_ms: AtomicU64,
    numbers: [AtomicU64; NUMBERS],
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            thread: AtomicU32::new(0),
            over: AtomicBool::new(false),
            mono_ms: AtomicU64::new(0),
            numbers: [const { AtomicU64::new(0) }; NUMBERS],
        }
    }
}

impl Pulse {
    /// The thread: it has begun to work.
    pub(super) fn begin(&self) {
        let thread = u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0);
        self.thread.store(thread, Relaxed);
    }

    /// The thread: it ends, without having been told to.
    pub(super) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// Number of the thread for the kernel; `None` before it works.
    pub(super) fn thread(&self) -> Option<u32> {
        Some(self.thread.load(Relaxed)).filter(|thread| *thread != 0)
    }

    /// The thread ended without having been told to.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// The thread: its books, and that it was there at this time.
    pub(super) fn show(&self, books: &Books, mono_ms: u64) {
        for (cell, number) in self.numbers.iter().zip(books.numbers()) {
            cell.store(number, Relaxed);
        }
        self.mono_ms.store(mono_ms, Relaxed);
    }

    /// When the thread was there last, in ms of `mono_ms`.
    pub(super) fn at(&self) -> u64 {
        self.mono_ms.load(Relaxed)
    }

    /// The books as they were then.
    pub(super) fn books(&self) -> Books {
        Books::from_numbers(self.numbers.iter().map(|cell| cell.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_are_read_as_they_were_shown() {
        let books = Books {
            opened: 1,
            ended: [2, 3, 4, 5, 6, 7, 8],
            active_requests: 9,
            open: [10, 11, 12],
            moved: [13, 14, 15, 16],
            stayed: [17, 18, 19, 20, 21, 22, 23, 24],
        };
        let pulse = Pulse::default();
        pulse.show(&books, 77);
        assert_eq!((pulse.books(), pulse.at()), (books, 77));
        assert_eq!(books.plus(&books).stayed[7], 48);
        assert_eq!(books.status().moved, Kinds { http1: 13, upgraded: 14, tcp: 15 });
    }
}

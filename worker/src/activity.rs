//! What a worker thread began last: one word, stored when a task gets its turn, read by the main thread
//! when the thread makes no progress. It costs one relaxed store a turn.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of the number of a connection within its thread.
const NUMBER_BITS: u32 = 48;

/// A kind of work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Work {
    /// The thread starts.
    Start,
    /// What comes back again and again: logs, idle connections.
    Housekeeping,
    /// What the main thread asked for.
    Command,
    /// A new connection.
    Accept,
    /// An HTTP connection between two requests, or at the head of one.
    RequestHead,
    /// A request with its body and its response.
    Exchange,
    /// The end of an HTTP connection.
    Close,
    /// A WebSocket, or CONNECT.
    Upgraded,
    /// A connection of `tcp_proxy`.
    Tcp,
}

impl Work {
    const ALL: [Self; 9] = [
        Self::Start,
        Self::Housekeeping,
        Self::Command,
        Self::Accept,
        Self::RequestHead,
        Self::Exchange,
        Self::Close,
        Self::Upgraded,
        Self::Tcp,
    ];

    /// As the log has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Housekeeping => "housekeeping",
            Self::Command => "command of the main thread",
            Self::Accept => "new connection",
            Self::RequestHead => "request head",
            Self::Exchange => "request and response",
            Self::Close => "closing",
            Self::Upgraded => "upgraded connection",
            Self::Tcp => "tcp connection",
        }
    }
}

/// The word of one thread.
#[derive(Debug, Default)]
pub struct Activity(AtomicU64);

impl Activity {
    /// The thread: it begins this now, for no connection in particular.
    pub fn begin(&self, work: Work) {
        self.0.store((work as u64) << NUMBER_BITS, Relaxed);
    }

    /// The thread: it begins this now for the connection with this id.
    pub fn begin_for(&self, work: Work, connection: u64) {
        let number = connection & ((1 << NUMBER_BITS) - 1);
        self.0.store((work as u64) << NUMBER_BITS | number, Relaxed);
    }

    /// What thread number `thread` began last, and for which connection.
    pub fn last(&self, thread: u64) -> (Work, Option<u64>) {
        let word = self.0.load(Relaxed);
        let work = Work::ALL.into_iter().find(|work| *work as u64 == word >> NUMBER_BITS);
        let number = word & ((1 << NUMBER_BITS) - 1);
        let connection = (number != 0).then_some(thread << NUMBER_BITS | number);
        (work.unwrap_or(Work::Start), connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_and_the_connection_are_read_as_they_were_stored() {
        let activity = Activity::default();
        assert_eq!(activity.last(1), (Work::Start, None));
        for (at, work) in Work::ALL.into_iter().enumerate() {
            assert_eq!(work as usize, at);
            activity.begin_for(work, (3 << NUMBER_BITS) + 77);
            assert_eq!(activity.last(3), (work, Some((3 << NUMBER_BITS) + 77)));
            activity.begin(work);
            assert_eq!(activity.last(3), (work, None));
        }
    }
}

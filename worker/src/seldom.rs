//! A log line that may have very many causes: at most one a second, and it says for how many it stands.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::clock;

/// Least time between two lines, milliseconds.
const PAUSE_MS: u64 = 1000;

/// What happened since the last line, over all threads.
#[derive(Debug)]
pub struct Seldom {
    count: AtomicU64,
    /// When the next line may be written, milliseconds since [`began`].
    next_ms: AtomicU64,
}

impl Seldom {
    /// Nothing has happened.
    #[expect(clippy::new_without_default, reason = "a constant, for statics")]
    pub const fn new() -> Self {
        Self { count: AtomicU64::new(0), next_ms: AtomicU64::new(0) }
    }

    /// It happened once more: how often since the last line, when it is time for one.
    pub fn count(&self) -> Option<u64> {
        let elapsed = clock::now().saturating_duration_since(began()).as_millis();
        self.count_at(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    fn count_at(&self, now_ms: u64) -> Option<u64> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let next = self.next_ms.load(Ordering::Relaxed);
        let then = now_ms.saturating_add(PAUSE_MS);
        // Of several threads one writes the line.
        let mine = now_ms >= next
            && self
                .next_ms
                .compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        mine.then(|| self.count.swap(0, Ordering::Relaxed))
    }
}

fn began() -> Instant {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    *BEGAN.get_or_init(clock::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_says_for_how_many_it_stands() {
        let seldom = Seldom::new();
        let lines = [0, 1, 999, 1000, 1001, 5000].map(|at| seldom.count_at(at));
        assert_eq!(lines, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}

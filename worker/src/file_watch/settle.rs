//! When a change is reported: after a pause, but not never when there is none. Reads no clock.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::WatchId;

/// Nothing must happen to a file for so long. Programs write a file in many pieces.
const QUIET: Duration = Duration::from_millis(100);
/// Longest time from the first event to the report.
const LONGEST: Duration = Duration::from_secs(1);

/// Files that were touched and are not reported yet.
#[derive(Debug, Default)]
pub(super) struct Settle {
    touched: BTreeMap<WatchId, Touched>,
}

#[derive(Debug)]
struct Touched {
    first: Instant,
    last: Instant,
}

impl Touched {
    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

impl Settle {
    /// Something happened to a file.
    pub(super) fn touch(&mut self, id: WatchId, now: Instant) {
        self.touched.entry(id).or_insert(Touched { first: now, last: now }).last = now;
    }

    /// Nobody wants to know any more.
    pub(super) fn forget(&mut self, id: WatchId) {
        self.touched.remove(&id);
    }

    /// When the next report is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.touched.values().map(Touched::due).min()
    }

    /// The files to report now.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<WatchId> {
        self.touched.extract_if(.., |_, touched| touched.due() <= now).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_report_comes_after_a_pause() {
        let (start, ms) = (clock::now(), Duration::from_millis);
        let mut settle = Settle::default();
        settle.touch(WatchId(1), start);
        settle.touch(WatchId(1), start + ms(80));
        settle.touch(WatchId(2), start + ms(20));
        assert_eq!(settle.take_due(start + ms(119)), []);
        assert_eq!(settle.next(), Some(start + ms(120)));
        assert_eq!(settle.take_due(start + ms(120)), [WatchId(2)]);
        assert_eq!(settle.take_due(start + ms(180)), [WatchId(1)]);
        assert_eq!(settle.next(), None);
    }

    #[test]
    fn a_file_that_never_rests_is_reported_after_a_second() {
        let (start, ms) = (clock::now(), Duration::from_millis);
        let mut settle = Settle::default();
        let reports: Vec<u64> = (0..=2500)
            .step_by(50)
            .filter(|at| {
                settle.touch(WatchId(1), start + ms(*at));
                !settle.take_due(start + ms(*at)).is_empty()
            })
            .collect();
        // The event after a report begins the next second.
        assert_eq!(reports, [1000, 2050]);
    }

    #[test]
    fn a_forgotten_file_is_not_reported() {
        let start = clock::now();
        let mut settle = Settle::default();
        settle.touch(WatchId(1), start);
        settle.forget(WatchId(1));
        assert_eq!(settle.take_due(start + LONGEST), []);
    }
}

//! The clock of the event loop: time since the supervisor started.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use baton_contract::clock;

use crate::state::event::Time;

/// Counts from its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    start_mono_ms: u64,
    started_unix_s: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: clock::now(),
            start_mono_ms: clock::mono_ms(),
            started_unix_s: unix_seconds(),
        }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Time {
        clock::now().saturating_duration_since(self.start)
    }

    /// `CLOCK_MONOTONIC` in milliseconds at a time of ours.
    pub(crate) fn mono_ms(&self, at: Time) -> u64 {
        let since = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.start_mono_ms.saturating_add(since)
    }

    /// Wall clock at the start, seconds since 1970.
    pub(crate) const fn started_unix_s(&self) -> u64 {
        self.started_unix_s
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

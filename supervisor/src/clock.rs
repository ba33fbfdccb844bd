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

    /// Goes on counting from an earlier start, given as ms of `CLOCK_MONOTONIC` and seconds since
    /// 1970. Zeros mean that the start is now.
    pub(crate) fn resume((mono_ms, unix_s): (u64, u64)) -> Self {
        let fresh = Self::start();
        let since = fresh.start_mono_ms.saturating_sub(mono_ms);
        match fresh.start.checked_sub(std::time::Duration::from_millis(since)) {
            Some(start) if mono_ms > 0 => {
                Self { start, start_mono_ms: mono_ms, started_unix_s: unix_s }
            }
            _ => fresh,
        }
    }

    /// The start, as [`Self::resume`] takes it.
    pub(crate) const fn started(&self) -> (u64, u64) {
        (self.start_mono_ms, self.started_unix_s)
    }

    /// A point of `CLOCK_MONOTONIC` in ms as a time of ours; zero when it was before the start.
    pub(crate) fn at_mono_ms(&self, mono_ms: u64) -> Time {
        Time::from_millis(mono_ms.saturating_sub(self.start_mono_ms))
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

//! The only place of this package that reads a clock.

use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the module the others must use")]
pub fn now() -> Instant {
    Instant::now()
}

/// `CLOCK_MONOTONIC` in nanoseconds, the same in every process of the machine; 0 if the system has
/// no such clock.
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
    })
}

/// `CLOCK_MONOTONIC` in milliseconds, the same in every process of the machine; 0 if the system
/// has no such clock.
pub fn mono_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let millis = u64::try_from(time.tv_nsec()).unwrap_or(0) / 1_000_000;
        seconds.saturating_mul(1000).saturating_add(millis)
    })
}

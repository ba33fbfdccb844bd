//! The only place of the program that reads a clock or waits for a time.

use std::time::{Duration, Instant};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the module the others must use")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits; may end a little early.
pub(crate) fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

//! The only place that reads a clock, so that everything else can be given the time.

use std::time::{Instant, SystemTime};

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the module the others must use")]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall clock time, for logs and headers only.
#[expect(clippy::disallowed_methods, reason = "this is the module the others must use")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

//! The only place of the program that reads a clock.

use std::time::Instant;

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the module the others must use")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

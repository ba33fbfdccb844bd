//! Waiting for a level, never for an edge.

use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon, for reads and writes, too. A quiet machine needs
/// a few seconds of it where workers die and are replaced; one that is busy with other things needs
/// many times that, and proves the same. A test that passes never waits that long.
pub const SOON: Duration = Duration::from_secs(180);

/// Calls `check` until it is `Ok`, and panics with its last error after [`SOON`].
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let began = now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(why) if began.elapsed() > SOON => panic!("{what}: not within {SOON:?}: {why}"),
            Err(_) => pause(Duration::from_millis(10)),
        }
    }
}

/// Like [`eventually`] for a condition without a reason.
pub fn until(what: &str, mut check: impl FnMut() -> bool) {
    eventually(what, || if check() { Ok(()) } else { Err("still not".to_owned()) });
}

/// The time, for tests.
#[expect(clippy::disallowed_methods, reason = "tests wait for real processes")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits between two looks at something. Not a substitute for a condition.
#[expect(clippy::disallowed_methods, reason = "tests wait for real processes")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

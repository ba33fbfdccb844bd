//! Where lines of the log go. Lines that cannot be written are counted, and standard error as it was
//! before the log went to a file hears of them now and then.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use baton_contract::words::counted;
use tracing_subscriber::fmt::MakeWriter;

use super::file;

/// Least time between two words about lines that are lost.
const PAUSE: Duration = Duration::from_mins(1);

/// Lines that this process could not write.
static LOST: AtomicU64 = AtomicU64::new(0);
/// When they may be spoken of again, milliseconds since the first one.
static NEXT_MS: AtomicU64 = AtomicU64::new(0);

/// Standard error, and what becomes of lines that it does not take.
#[derive(Debug)]
pub(super) struct Stream;

impl<'a> MakeWriter<'a> for Stream {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Stream {
    /// Takes a line, whatever becomes of it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(error) = io::stderr().lock().write_all(line) {
            let lost = LOST.fetch_add(1, Ordering::Relaxed) + 1;
            if is_time(elapsed_ms()) {
                file::tell(format_args!(
                    "cannot write the log: {error}; lost: {}",
                    counted(lost, "line")
                ));
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that this process could not write.
pub(super) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn elapsed_ms() -> u64 {
    static FIRST: OnceLock<std::time::Instant> = OnceLock::new();
    let now = crate::clock::now();
    let first = *FIRST.get_or_init(|| now);
    u64::try_from(now.saturating_duration_since(first).as_millis()).unwrap_or(u64::MAX)
}

fn is_time(now_ms: u64) -> bool {
    let next = NEXT_MS.load(Ordering::Relaxed);
    let then = now_ms.saturating_add(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
    // Of several threads one speaks.
    now_ms >= next
        && NEXT_MS.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

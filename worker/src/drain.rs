//! Whether connections should be asked to end: the view each worker thread has of the drain.
//!
//! The main thread starts a drain, worker threads ask [`DrainHandle::should_close`] once for each
//! response. This module does not wait, close or count anything: it answers a question about a
//! moment that is passed in, so tests need no clock.
//!
//! ```text
//! not draining ── start ──→ draining (gradual: chance grows from 0 to 1 over the drain time)
//!      ↑                        │    (immediate: always)
//!      └────── cancel ──────────┘    a rollback resumes the generation
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use baton_contract::message::DrainStrategy;

const IDLE: u8 = 0;
const GRADUAL: u8 = 1;
const IMMEDIATE: u8 = 2;

/// A cheap, shared view of the drain. Asking it costs two relaxed loads when nothing drains.
#[derive(Clone, Debug)]
pub struct DrainHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The moment all times below count from.
    base: Instant,
    mode: AtomicU8,
    /// Start of the drain, nanoseconds after `base`.
    started_ns: AtomicU64,
    /// Length of the gradual phase, nanoseconds.
    drain_ns: AtomicU64,
    /// `/healthcheck/fail` was asked.
    health_failed: AtomicBool,
    /// The whole service is being stopped.
    stopping: AtomicBool,
}

impl DrainHandle {
    /// Creates a handle that does not drain. `base` must not be later than any `now` given later.
    pub fn new(base: Instant) -> Self {
        Self(Arc::new(Shared {
            base,
            mode: AtomicU8::new(IDLE),
            started_ns: AtomicU64::new(0),
            drain_ns: AtomicU64::new(0),
            health_failed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Starts a drain at `now`; a gradual one reaches certainty after `drain_time`.
    ///
    /// A second start may only hurry the drain: gradual becomes immediate, never the other way.
    pub fn start(&self, strategy: DrainStrategy, drain_time: Duration, now: Instant) {
        match strategy {
            DrainStrategy::Immediate => self.0.mode.store(IMMEDIATE, Ordering::Release),
            DrainStrategy::Migrate | DrainStrategy::Gradual => {
                if self.is_draining() {
                    return;
                }
                self.0.started_ns.store(self.since_base(now), Ordering::Relaxed);
                self.0.drain_ns.store(nanos(drain_time), Ordering::Relaxed);
                // Pairs with the acquire load in `should_close`: who sees the mode sees the times.
                self.0.mode.store(GRADUAL, Ordering::Release);
            }
        }
    }

    /// Ends the drain without effect: the generation serves again.
    pub fn cancel(&self) {
        self.0.mode.store(IDLE, Ordering::Release);
    }

    /// Whether a drain was started and not cancelled.
    pub fn is_draining(&self) -> bool {
        self.0.mode.load(Ordering::Relaxed) != IDLE
    }

    /// The service is being stopped: nobody else will serve what comes next, so connections without
    /// a request need not be waited for.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the service is being stopped.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// Sets what `/healthcheck/fail` and `/healthcheck/ok` ask for.
    pub fn set_health_failed(&self, failed: bool) {
        self.0.health_failed.store(failed, Ordering::Relaxed);
    }

    /// Whether health checks are to be failed.
    pub fn health_failed(&self) -> bool {
        self.0.health_failed.load(Ordering::Relaxed)
    }

    /// Whether the response that is about to be sent should announce the end of its connection.
    ///
    /// `random` is any evenly distributed number. As in Envoy, failing health checks counts as an
    /// immediate drain.
    pub fn should_close(&self, now: Instant, random: u64) -> bool {
        match self.0.mode.load(Ordering::Acquire) {
            IMMEDIATE => true,
            GRADUAL => {
                let started = self.0.started_ns.load(Ordering::Relaxed);
                let drain = self.0.drain_ns.load(Ordering::Relaxed);
                let elapsed = self.since_base(now).saturating_sub(started);
                elapsed >= drain || random.checked_rem(drain).is_none_or(|r| r < elapsed)
            }
            _ => self.health_failed(),
        }
    }

    fn since_base(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.0.base))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const TIME: Duration = Duration::from_mins(10);

    #[test]
    fn nothing_closes_before_a_drain() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        assert!(!drain.should_close(base + TIME, 0));
    }

    #[test]
    fn gradual_share_grows_with_time() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Gradual, TIME, base);
        let share = |at: Duration| {
            let step = u64::try_from(TIME.as_nanos()).unwrap() / 1000;
            (0..1000).filter(|i| drain.should_close(base + at, i * step)).count()
        };
        assert_eq!(share(Duration::ZERO), 0);
        assert_eq!(share(TIME / 4), 250);
        assert_eq!(share(TIME / 2), 500);
        assert_eq!(share(TIME), 1000);
        assert_eq!(share(TIME * 2), 1000);
    }

    #[test]
    fn a_drain_time_of_zero_closes_at_once() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Gradual, Duration::ZERO, base);
        assert!(drain.should_close(base, u64::MAX));
    }

    #[test]
    fn a_second_drain_can_only_hurry() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Immediate, TIME, base);
        drain.start(DrainStrategy::Gradual, TIME, base);
        assert!(drain.should_close(base, u64::MAX));
    }

    #[test]
    fn a_cancelled_drain_closes_nothing_and_can_start_again() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Immediate, TIME, base);
        drain.cancel();
        assert!(!drain.should_close(base + TIME, 0));
        drain.start(DrainStrategy::Gradual, TIME, base + TIME);
        assert!(!drain.should_close(base + TIME, 1));
        assert!(drain.should_close(base + TIME * 2, 1));
    }

    #[test]
    fn failed_health_checks_close_connections() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.set_health_failed(true);
        assert!(drain.should_close(base, 7));
        drain.set_health_failed(false);
        assert!(!drain.should_close(base, 7));
    }
}

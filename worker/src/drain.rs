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

use crate::config::listener::TrafficDirection;

const IDLE: u8 = 0;
const GRADUAL: u8 = 1;
const IMMEDIATE: u8 = 2;

/// Which connections a drain is about, and which of them one connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All of them; one that belongs to no smaller group.
    All,
    /// Those of listeners with `traffic_direction: INBOUND`.
    Inbound,
}

impl Scope {
    /// Where connections of a listener belong.
    pub const fn of(direction: TrafficDirection) -> Self {
        match direction {
            TrafficDirection::Inbound => Self::Inbound,
            TrafficDirection::Unspecified | TrafficDirection::Outbound => Self::All,
        }
    }

    /// Whether a drain of this scope is about connections of `other`.
    pub const fn has(self, other: Self) -> bool {
        match self {
            Self::All => true,
            Self::Inbound => matches!(other, Self::Inbound),
        }
    }
}

/// A cheap, shared view of the drain. Asking it costs two relaxed loads when nothing drains.
#[derive(Clone, Debug)]
pub struct DrainHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The moment all times below count from.
    base: Instant,
    /// The drain of all connections but the inbound ones.
    others: Course,
    /// The drain of inbound connections.
    inbound: Course,
    /// `/healthcheck/fail` was asked.
    health_failed: AtomicBool,
    /// Since when the whole service is being stopped, nanoseconds after `base`; 0 = it is not.
    stopping_ns: AtomicU64,
}

/// How far the drain of some connections is.
#[derive(Debug)]
struct Course {
    mode: AtomicU8,
    /// Start of the drain, nanoseconds after the base.
    started_ns: AtomicU64,
    /// Length of the gradual phase, nanoseconds.
    drain_ns: AtomicU64,
}

impl Course {
    const fn idle() -> Self {
        Self {
            mode: AtomicU8::new(IDLE),
            started_ns: AtomicU64::new(0),
            drain_ns: AtomicU64::new(0),
        }
    }

    /// Begins a gradual drain, unless one under way ends before.
    fn start(&self, started: u64, drain: u64) {
        let known_end = match self.mode.load(Ordering::Relaxed) {
            IMMEDIATE => 0,
            GRADUAL => {
                let started = self.started_ns.load(Ordering::Relaxed);
                started.saturating_add(self.drain_ns.load(Ordering::Relaxed))
            }
            _ => u64::MAX,
        };
        if known_end <= started.saturating_add(drain) {
            return;
        }
        self.started_ns.store(started, Ordering::Relaxed);
        self.drain_ns.store(drain, Ordering::Relaxed);
        // Pairs with the acquire load in `should_close`: who sees the mode sees the times.
        self.mode.store(GRADUAL, Ordering::Release);
    }
}

impl DrainHandle {
    /// Creates a handle that does not drain. `base` must not be later than any `now` given later.
    pub fn new(base: Instant) -> Self {
        Self(Arc::new(Shared {
            base,
            others: Course::idle(),
            inbound: Course::idle(),
            health_failed: AtomicBool::new(false),
            stopping_ns: AtomicU64::new(0),
        }))
    }

    /// Starts a drain of all connections at `now`; a gradual one reaches certainty after `drain_time`.
    ///
    /// A second start may only hurry the drain: it ends sooner, and gradual becomes immediate, never the other
    /// way.
    pub fn start(&self, strategy: DrainStrategy, drain_time: Duration, now: Instant) {
        self.start_in(Scope::All, strategy, drain_time, now);
    }

    /// The same for some connections.
    pub fn start_in(
        &self,
        scope: Scope,
        strategy: DrainStrategy,
        drain_time: Duration,
        now: Instant,
    ) {
        let (started, drain) = (self.since_base(now), nanos(drain_time));
        for part in [Scope::All, Scope::Inbound].into_iter().filter(|part| scope.has(*part)) {
            match strategy {
                DrainStrategy::Immediate => {
                    self.course(part).mode.store(IMMEDIATE, Ordering::Release);
                }
                DrainStrategy::Migrate | DrainStrategy::Gradual => {
                    self.course(part).start(started, drain);
                }
            }
        }
    }

    /// Ends the drain without effect: the generation serves again.
    pub fn cancel(&self) {
        self.0.others.mode.store(IDLE, Ordering::Release);
        self.0.inbound.mode.store(IDLE, Ordering::Release);
    }

    /// Whether a drain of all connections was started and not cancelled.
    pub fn is_draining(&self) -> bool {
        self.0.others.mode.load(Ordering::Relaxed) != IDLE
    }

    fn course(&self, of: Scope) -> &Course {
        match of {
            Scope::All => &self.0.others,
            Scope::Inbound => &self.0.inbound,
        }
    }

    /// The service is being stopped from `now` on: nobody else will serve what comes next, so connections
    /// without a request are not waited for until they end.
    pub fn stop(&self, now: Instant) {
        let since = self.since_base(now).max(1);
        // The first one counts. Only the main thread stops.
        if !self.is_stopping() {
            self.0.stopping_ns.store(since, Ordering::Relaxed);
        }
    }

    /// Whether the service is being stopped.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping_ns.load(Ordering::Relaxed) != 0
    }

    /// Since when the service is being stopped.
    pub fn stopping_since(&self) -> Option<Instant> {
        let since = self.0.stopping_ns.load(Ordering::Relaxed);
        (since != 0).then(|| self.0.base + Duration::from_nanos(since))
    }

    /// Sets what `/healthcheck/fail` and `/healthcheck/ok` ask for.
    pub fn set_health_failed(&self, failed: bool) {
        self.0.health_failed.store(failed, Ordering::Relaxed);
    }

    /// Whether health checks are to be failed.
    pub fn health_failed(&self) -> bool {
        self.0.health_failed.load(Ordering::Relaxed)
    }

    /// Whether the response that is about to be sent should announce the end of its connection, which
    /// belongs to `of`.
    ///
    /// `random` is any evenly distributed number. As in Envoy, failing health checks counts as an
    /// immediate drain.
    pub fn should_close(&self, of: Scope, now: Instant, random: u64) -> bool {
        let course = self.course(of);
        match course.mode.load(Ordering::Acquire) {
            IMMEDIATE => true,
            GRADUAL => {
                let started = course.started_ns.load(Ordering::Relaxed);
                let drain = course.drain_ns.load(Ordering::Relaxed);
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
        assert!(!drain.should_close(Scope::All, base + TIME, 0));
    }

    #[test]
    fn gradual_share_grows_with_time() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Gradual, TIME, base);
        let share = |at: Duration| {
            let step = u64::try_from(TIME.as_nanos()).unwrap() / 1000;
            (0..1000).filter(|i| drain.should_close(Scope::All, base + at, i * step)).count()
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
        assert!(drain.should_close(Scope::All, base, u64::MAX));
    }

    #[test]
    fn a_second_drain_can_only_hurry() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Immediate, TIME, base);
        drain.start(DrainStrategy::Gradual, TIME, base);
        assert!(drain.should_close(Scope::All, base, u64::MAX));
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Gradual, TIME, base);
        drain.start(DrainStrategy::Gradual, TIME * 2, base);
        assert!(drain.should_close(Scope::All, base + TIME, u64::MAX), "not later than before");
        drain.start(DrainStrategy::Migrate, TIME / 4, base + TIME / 4);
        assert!(drain.should_close(Scope::All, base + TIME / 2, u64::MAX), "sooner");
    }

    #[test]
    fn a_cancelled_drain_closes_nothing_and_can_start_again() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start(DrainStrategy::Immediate, TIME, base);
        drain.cancel();
        assert!(!drain.should_close(Scope::All, base + TIME, 0));
        drain.start(DrainStrategy::Gradual, TIME, base + TIME);
        assert!(!drain.should_close(Scope::All, base + TIME, 1));
        assert!(drain.should_close(Scope::All, base + TIME * 2, 1));
    }

    #[test]
    fn failed_health_checks_close_connections() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.set_health_failed(true);
        assert!(drain.should_close(Scope::All, base, 7));
        drain.set_health_failed(false);
        assert!(!drain.should_close(Scope::All, base, 7));
    }

    #[test]
    fn a_drain_of_inbound_connections_leaves_the_others_alone() {
        let base = clock::now();
        let drain = DrainHandle::new(base);
        drain.start_in(Scope::Inbound, DrainStrategy::Gradual, TIME, base);
        assert!(drain.should_close(Scope::Inbound, base + TIME, u64::MAX));
        assert!(!drain.should_close(Scope::All, base + TIME, 0));
        assert!(!drain.is_draining());
        drain.start_in(Scope::Inbound, DrainStrategy::Immediate, TIME, base);
        drain.start(DrainStrategy::Gradual, TIME, base);
        assert!(drain.should_close(Scope::Inbound, base, u64::MAX), "hurried before");
        assert!(!drain.should_close(Scope::All, base, u64::MAX));
        drain.cancel();
        assert!(!drain.should_close(Scope::Inbound, base + TIME, 0));
    }
}

//! When a worker ends: the pure part. It is told what happened and the time, and says what to do.

use std::time::{Duration, Instant};

/// Where the worker is, from READY on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Could serve; polls nothing.
    Ready,
    /// Polls the listeners.
    Serving,
    /// Stopped polling, may be resumed.
    Paused,
    /// Finishes its connections.
    Draining,
    /// Finishes its connections, and ends at the deadline whatever happens.
    Stopping,
}

impl Phase {
    /// The word for the log.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Go on.
    Stay,
    /// Nothing is left: say so and exit.
    Finish,
    /// Time is up: write off what is left and exit.
    Cut,
}

/// How long a paused orphan waits for a new supervisor, which may tell it to serve again, before it
/// drains by itself.
const PAUSED_ALONE: Duration = Duration::from_secs(10);

/// The life of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifecycle {
    pub phase: Phase,
    /// When what is left is cut. The supervisor enforces it for a draining worker; the worker does
    /// when it is stopping or has no supervisor any more.
    deadline: Option<Instant>,
    /// Nobody is at the other end of the channel since then.
    orphan_since: Option<Instant>,
    /// Removed listeners whose queues are being emptied.
    pub releasing: usize,
}

impl Lifecycle {
    /// A worker that is ready.
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Ready, deadline: None, orphan_since: None, releasing: 0 }
    }

    /// The supervisor is gone.
    pub(super) fn lose_supervisor(&mut self, now: Instant) {
        self.orphan_since.get_or_insert(now);
    }

    /// A supervisor commands again.
    pub(super) fn find_supervisor(&mut self) {
        self.orphan_since = None;
    }

    /// Nobody is at the other end of the channel.
    pub(super) const fn is_orphan(&self) -> bool {
        self.orphan_since.is_some()
    }

    /// A paused orphan has waited long enough for somebody to say what is next.
    pub(super) fn drains_alone(&self, now: Instant) -> bool {
        self.phase == Phase::Paused
            && self.orphan_since.is_some_and(|since| now.duration_since(since) >= PAUSED_ALONE)
    }

    /// Time until what is left is cut.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// DRAIN: a later one may only bring the deadline forward.
    pub(super) fn drain(&mut self, now: Instant, within: Duration) {
        if self.phase != Phase::Stopping {
            self.phase = Phase::Draining;
        }
        self.end_by(now, within);
    }

    /// STOP.
    pub(super) fn stop(&mut self, now: Instant, within: Duration) {
        self.phase = Phase::Stopping;
        self.end_by(now, within);
    }

    /// RESUME, or a first TAKE.
    pub(super) fn serve(&mut self) {
        self.phase = Phase::Serving;
        self.deadline = None;
    }

    /// Whether the worker is on its way out.
    pub(super) const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Draining | Phase::Stopping)
    }

    /// What to do at `now` with `open` downstream connections left.
    pub(super) fn verdict(&self, now: Instant, open: u64) -> Verdict {
        let enforces = match self.phase {
            Phase::Ready | Phase::Serving | Phase::Paused => return Verdict::Stay,
            Phase::Draining => self.is_orphan(),
            Phase::Stopping => true,
        };
        if open == 0 && self.releasing == 0 {
            return Verdict::Finish;
        }
        if enforces && self.deadline.is_some_and(|deadline| now >= deadline) {
            return Verdict::Cut;
        }
        Verdict::Stay
    }

    fn end_by(&mut self, now: Instant, within: Duration) {
        let deadline = now.checked_add(within);
        self.deadline = match (self.deadline, deadline) {
            (Some(before), Some(new)) => Some(before.min(new)),
            (before, new) => before.or(new),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_serving_worker_never_ends_by_itself() {
        let mut life = Lifecycle::new();
        let now = clock::now();
        assert_eq!(life.verdict(now, 0), Verdict::Stay);
        life.serve();
        life.lose_supervisor(now);
        assert_eq!(life.verdict(now, 0), Verdict::Stay);
    }

    #[test]
    fn a_paused_orphan_waits_for_a_supervisor_before_it_drains_alone() {
        let mut life = Lifecycle::new();
        let now = clock::now();
        life.serve();
        life.phase = Phase::Paused;
        life.lose_supervisor(now);
        assert!(!life.drains_alone(now + SECOND));
        assert!(life.drains_alone(now + PAUSED_ALONE));
        life.find_supervisor();
        assert!(!life.drains_alone(now + PAUSED_ALONE));
    }

    #[test]
    fn a_draining_worker_ends_when_it_is_empty_and_leaves_the_deadline_to_the_supervisor() {
        let mut life = Lifecycle::new();
        let now = clock::now();
        life.serve();
        life.drain(now, SECOND);
        assert_eq!(life.verdict(now + SECOND * 5, 1), Verdict::Stay);
        life.releasing = 1;
        assert_eq!(life.verdict(now, 0), Verdict::Stay, "a removed listener is not empty yet");
        life.releasing = 0;
        assert_eq!(life.verdict(now, 0), Verdict::Finish);
    }

    #[test]
    fn an_orphan_that_drains_keeps_the_deadline_itself() {
        let mut life = Lifecycle::new();
        let now = clock::now();
        life.drain(now, SECOND);
        life.lose_supervisor(now);
        assert_eq!(life.verdict(now, 1), Verdict::Stay);
        assert_eq!(life.verdict(now + SECOND, 1), Verdict::Cut);
    }

    #[test]
    fn a_stopping_worker_cuts_at_the_earliest_deadline() {
        let mut life = Lifecycle::new();
        let now = clock::now();
        life.stop(now, SECOND * 30);
        life.stop(now, SECOND);
        life.drain(now, SECOND * 60);
        assert_eq!(life.phase, Phase::Stopping);
        assert_eq!(life.verdict(now, 1), Verdict::Stay);
        assert_eq!(life.verdict(now + SECOND, 1), Verdict::Cut);
        assert_eq!(life.verdict(now + SECOND, 0), Verdict::Finish);
    }

    #[test]
    fn a_resumed_worker_forgets_the_deadline() {
        let mut life = Lifecycle::new();
        let now = clock::now();
        life.drain(now, SECOND);
        life.serve();
        assert_eq!(life.verdict(now + SECOND * 9, 0), Verdict::Stay);
    }
}

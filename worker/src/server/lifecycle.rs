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

/// The life of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifecycle {
    pub phase: Phase,
    /// When what is left is cut. The supervisor enforces it for a draining worker; the worker does
    /// when it is stopping or has no supervisor any more.
    deadline: Option<Instant>,
    /// Nobody is at the other end of the channel.
    pub orphan: bool,
    /// Removed listeners whose queues are being emptied.
    pub releasing: usize,
}

impl Lifecycle {
    /// A worker that is ready.
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Ready, deadline: None, orphan: false, releasing: 0 }
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
            Phase::Draining => self.orphan,
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
        life.orphan = true;
        assert_eq!(life.verdict(now, 0), Verdict::Stay);
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
        life.orphan = true;
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

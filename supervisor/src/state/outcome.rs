//! How an attempt ended, or how far it is, for those who asked for it and for those who ask later.

use baton_contract::control::{Outcome, Phase, Step, Verdict};

use super::{
    Supervisor,
    action::{Action, Notice},
    attempt::{Attempt, Origin},
    event::Time,
};

impl Supervisor {
    /// Ends the attempt after its generation serves, or would serve.
    pub(super) fn finish_attempt(&mut self, verdict: Verdict, text: String) {
        let Some(attempt) = self.attempt.take() else { return };
        self.report_attempt(&attempt, verdict, text);
    }

    /// Tells everybody how an attempt ended.
    pub(super) fn report_attempt(&mut self, attempt: &Attempt, verdict: Verdict, text: String) {
        let outcome = Outcome {
            verdict,
            generation: attempt.generation,
            serving: self.serving,
            text,
            diagnostics: attempt.warnings.clone(),
            connections: self.moves_since(&attempt.past),
            listeners: attempt.changes.clone(),
            took_us: micros(self.now.saturating_sub(attempt.since)),
        };
        if attempt.origin == Origin::Reload {
            match verdict {
                Verdict::Serving => self.reloads = self.reloads.saturating_add(1),
                Verdict::WouldServe
                | Verdict::Invalid
                | Verdict::Refused
                | Verdict::RolledBack
                | Verdict::Stopping => self.failed_reloads = self.failed_reloads.saturating_add(1),
            }
            self.last_reload = Some(outcome.clone());
        }
        if self.serving.is_some() && self.stopping.is_none() {
            self.push(Action::Notify(Notice::Ready));
        }
        let waiters = attempt.waiters.clone();
        self.push(Action::Verdict { waiters, outcome: Box::new(outcome) });
    }

    /// Tells those who wait for the attempt how far it is.
    pub(super) fn phase(&mut self, step: Step, text: String) {
        let Some(attempt) = self.attempt.as_ref() else { return };
        if attempt.waiters.is_empty() {
            return;
        }
        let phase = Phase {
            step,
            at_us: micros(self.now.saturating_sub(attempt.since)),
            generation: attempt.generation,
            text,
        };
        let waiters = attempt.waiters.clone();
        self.push(Action::Progress { waiters, phase });
    }
}

/// A time in whole microseconds.
pub(super) fn micros(time: Time) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

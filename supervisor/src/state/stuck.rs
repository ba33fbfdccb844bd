//! Generations with a worker thread that spins or hangs. The others of their threads work, so such a
//! generation is not ended at once, as one that shows no sign of life is:
//!
//! ```text
//! serving ──STATUS names a thread──→ replaced, or rolled back on probation ──→ drains
//!    its other connections have moved or ended, and queues of removed listeners are empty,
//!    or `stuck_time` is over ──→ SIGKILL
//! ```
//! Only its death sets free what it has in escrow: until then two processes could own it.

use std::time::Duration;

use baton_contract::{
    generation::{Generation, State},
    message::Status,
    words::counted,
};

use super::{
    Supervisor,
    action::{Action, Kill, Level},
    attempt::Stage,
    event::Time,
    member::{Ending, Member, Push, TERM_TO_KILL},
};

impl Supervisor {
    /// STATUS came.
    pub(super) fn on_status(&mut self, generation: Generation, status: Status) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&generation) else { return };
        let mut news = None;
        match (member.stuck_since, status.stuck.first()) {
            (None, Some(stuck)) => {
                member.stuck_since = Some(now);
                member.error.clone_from(&stuck.text);
                let text = format!("generation {generation}: {}", stuck.text);
                news = Some((Level::Error, text));
            }
            (Some(_), None) => {
                member.stuck_since = None;
                member.error.clear();
                let text = format!("generation {generation}: all threads get on again");
                news = Some((Level::Warn, text));
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        member.status = status;
        if let Some((level, text)) = news {
            self.push(Action::Log(level, text));
        }
    }

    /// Lets generations drain that cannot come back any more, and ends those that have nothing left
    /// but what is stuck.
    pub(super) fn end_stuck_generations(&mut self) {
        let stuck: Vec<Generation> = self
            .members
            .values()
            .filter(|member| member.stuck_since.is_some() && member.ending.is_none())
            .filter(|member| matches!(member.state, State::HandingOff | State::Draining))
            .map(|member| member.generation)
            .filter(|generation| self.serving != Some(*generation) && !self.is_pausing(*generation))
            .collect();
        for generation in stuck {
            if self.fallback == Some(generation) {
                self.fallback = None;
            }
            if self.members.get(&generation).is_some_and(|m| m.state == State::HandingOff) {
                self.drain(generation);
            }
            self.end_if_done(generation);
        }
    }

    /// It was not told yet, or did not say yet, that it polls no more.
    fn is_pausing(&self, generation: Generation) -> bool {
        self.attempt.as_ref().is_some_and(
            |attempt| matches!(attempt.stage, Stage::Pausing(old, _) if old == generation),
        )
    }

    fn end_if_done(&mut self, generation: Generation) {
        let (now, limit) = (self.now, self.policy.stuck_time);
        let Some(member) = self.members.get_mut(&generation) else { return };
        let served = member.status.served;
        let wanted = &self.wanted;
        let empties = self
            .users
            .iter()
            .any(|(key, users)| users.contains(&generation) && !wanted.contains(key));
        if (served > 0 || empties) && now < stuck_until(member, limit) {
            return;
        }
        let next = now.saturating_add(TERM_TO_KILL);
        member.ending = Some(Ending { push: Push::Killed, next });
        let text = format!(
            "generation {generation} is killed because of its stuck threads, with {} of others",
            counted(served, "connection")
        );
        self.push(Action::Log(Level::Error, text));
        self.push(Action::Signal { generation, signal: Kill::Kill });
    }

    /// The serving generation is on probation, and the older one can serve: it does again, and takes
    /// the connections of the threads that work.
    pub(super) fn step_back(&mut self, generation: Generation) {
        let Some(member) = self.members.get(&generation) else { return };
        let (member, now) = (member.clone(), self.now);
        let why = format!("generation {generation} is rolled back: {}", member.error);
        self.serving_lost(generation, &member, &why);
        if let Some(member) = self.members.get_mut(&generation) {
            member.paused_at = Some(now);
        }
        self.drain(generation);
    }
}

/// Until when a generation with stuck threads may live that does not serve.
fn stuck_until(member: &Member, limit: Duration) -> Time {
    // Without a pause it serves still.
    let begun = member.paused_at.max(member.stuck_since).unwrap_or(Time::ZERO);
    let until = begun.saturating_add(limit);
    member.cut_at.map_or(until, |cut_at| cut_at.min(until))
}

//! Who gives its connections to whom: draining generations to the one that serves.
//!
//! A generation that has just taken over could still fail, and would take with it what moved there.
//! So it gets connections only after its probation, or when a draining one cannot wait any longer.

use std::time::Duration;

use baton_contract::{
    generation::{Generation, State},
    message::DrainStrategy,
};

use super::{Supervisor, action::Action, event::Time, member::Member};

impl Supervisor {
    /// How long a generation has to prove itself, before older ones depend on it.
    pub(super) fn probation(&self) -> Duration {
        self.policy.probation.min(self.policy.parent_shutdown_time / 2)
    }

    /// Draining generations that still have to be introduced to the serving one, each with the time
    /// at which it is due.
    fn introductions(&self) -> impl Iterator<Item = (Generation, Generation, Time)> {
        let strategy = self.policy.drain_strategy;
        let serving = self.serving.and_then(|serving| self.members.get(&serving));
        let able = |to: &&Member| self.stopping.is_none() && to.migrates && to.reachable();
        let serving = serving.filter(able);
        let proven = self.probation_until.unwrap_or(Time::ZERO);
        serving.into_iter().flat_map(move |to| {
            let from = self.members.values().filter(move |from| {
                from.migrates
                    && (strategy == DrainStrategy::Migrate || from.stuck_since.is_some())
                    && from.state == State::Draining
                    && from.reachable()
                    && from.introduced != Some(to.generation)
            });
            from.map(move |from| (from.generation, to.generation, proven.min(self.patience(from))))
        })
    }

    /// Until when a generation waits for the serving one to prove itself.
    fn patience(&self, from: &Member) -> Time {
        if from.hurried || from.stuck_since.is_some() {
            return Time::ZERO;
        }
        from.paused_at.map_or(Time::ZERO, |at| at.saturating_add(self.probation()))
    }

    /// When the next introduction is due.
    pub(super) fn introduce_at(&self) -> Option<Time> {
        self.introductions().map(|(.., at)| at).min()
    }

    /// Makes the introductions that are due.
    pub(super) fn introduce(&mut self) {
        let due: Vec<_> = self.introductions().filter(|(.., at)| *at <= self.now).collect();
        for (from, to, _) in due {
            if let Some(member) = self.members.get_mut(&from) {
                member.introduced = Some(to);
            }
            self.push(Action::Introduce { from, to });
        }
    }
}

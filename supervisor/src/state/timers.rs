//! What happens because time passed.

use std::time::Duration;

use baton_contract::{
    generation::{Generation, State},
    words::counted,
};

use super::{
    Supervisor,
    action::{Action, Kill, Level},
    attempt::Origin,
    event::Time,
    member::{Ending, Push, TERM_TO_KILL},
};

/// Longest time between two ticks of a supervisor that gets enough CPU time.
const TICK_GAP_MAX: Duration = Duration::from_millis(1500);

impl Supervisor {
    /// When the next tick is needed at the latest; `None` when only events matter.
    pub fn wake_at(&self) -> Option<Time> {
        let mut times = Vec::new();
        times.extend(self.attempt.as_ref().map(|attempt| attempt.deadline));
        times.extend(self.probation_until.filter(|_| self.fallback.is_some()));
        times.extend(self.resuming.map(|(_, _, at)| at));
        times.extend(self.introduce_at());
        times.extend(self.adopting.as_ref().map(|adopting| adopting.until));
        let idle = self.serving.is_none() && self.attempt.is_none() && self.adopting.is_none();
        times.extend(self.respawn_at.filter(|_| idle));
        for member in self.members.values() {
            times.extend(member.cut_at.filter(|_| member.ending.is_none()));
            times.extend(member.ending.map(|ending| ending.next));
        }
        times.into_iter().min()
    }

    pub(super) fn on_tick(&mut self) {
        self.forgive_own_silence();
        self.push_endings();
        self.cut_late_generations();
        self.kill_hung_generations();
        self.end_stuck_generations();
        if self.stopping.is_some() {
            return;
        }
        if self.adopting.as_ref().is_some_and(|adopting| adopting.until <= self.now) {
            self.end_adoption();
        }
        if self.attempt.as_ref().is_some_and(|attempt| attempt.deadline <= self.now) {
            self.on_attempt_deadline();
        }
        if let Some((generation, _, at)) = self.resuming
            && at <= self.now
        {
            self.resuming = None;
            let why = format!("generation {generation} did not resume in time");
            self.give_up(generation, &why);
        }
        self.check_heartbeat();
        self.end_probation();
    }

    /// A supervisor that was stopped itself could not see any heartbeat; workers get a new chance.
    fn forgive_own_silence(&mut self) {
        let now = self.now;
        if now.saturating_sub(self.last_tick) > TICK_GAP_MAX {
            for member in self.members.values_mut() {
                member.last_beat = now;
            }
        }
        self.last_tick = now;
    }

    /// Ends generations whose time is over.
    fn cut_late_generations(&mut self) {
        let now = self.now;
        let late: Vec<(Generation, u64)> = self
            .members
            .values()
            .filter(|member| member.ending.is_none() && member.cut_at.is_some_and(|at| at <= now))
            .map(|member| (member.generation, member.status.connections))
            .collect();
        for (generation, connections) in late {
            if self.fallback == Some(generation) {
                self.fallback = None;
            }
            let open = counted(connections, "connection");
            let text = format!("generation {generation} is ended with {open}");
            self.push(Action::Log(Level::Warn, text));
            self.end(generation, Time::ZERO);
        }
    }

    /// Kills generations that were replaced and show no sign of life. They would hold their
    /// connections for the rest of their time, and none of them moves; those in escrow live on.
    fn kill_hung_generations(&mut self) {
        let (now, limit) = (self.now, self.policy.kill_after);
        let hung: Vec<Generation> = self
            .members
            .values()
            .filter(|member| {
                let replaced = matches!(member.state, State::HandingOff | State::Draining);
                replaced && member.ending.is_none() && member.silent(now, limit)
            })
            .map(|member| member.generation)
            .collect();
        for generation in hung {
            if self.serving == Some(generation) {
                continue;
            }
            if self.fallback == Some(generation) {
                self.fallback = None;
            }
            if let Some(member) = self.members.get_mut(&generation) {
                let next = now.saturating_add(TERM_TO_KILL);
                member.ending = Some(Ending { push: Push::Killed, next });
            }
            let text = format!("generation {generation} shows no sign of life, it is killed");
            self.push(Action::Log(Level::Error, text));
            self.push(Action::Signal { generation, signal: Kill::Kill });
        }
    }

    /// Rolls back or replaces a serving generation that shows no sign of life, or has a thread that
    /// is stuck.
    fn check_heartbeat(&mut self) {
        let Some(generation) = self.serving else { return };
        let Some(member) = self.members.get(&generation) else { return };
        let (now, policy) = (self.now, self.policy);
        let silent = member.silent(now, policy.heartbeat_timeout);
        let stuck = member.stuck_since.is_some();
        if !(silent || stuck) || member.ending.is_some() {
            return;
        }
        let usable = self
            .fallback
            .and_then(|fallback| self.members.get(&fallback))
            .is_some_and(|old| old.fit(now, policy.heartbeat_timeout));
        if usable && silent {
            let why = format!("generation {generation} shows no sign of life");
            self.give_up(generation, &why);
        } else if usable {
            self.step_back(generation);
        } else if (stuck || member.silent(now, policy.replace_after))
            && self.attempt.is_none()
            && self.respawn_at.is_none_or(|at| at <= now)
        {
            let why = if stuck { member.error.as_str() } else { "it shows no sign of life" };
            let text = format!("generation {generation} is replaced: {why}");
            self.push(Action::Log(Level::Error, text));
            self.respawn(Origin::Replace);
        }
    }

    /// The serving generation has proved itself; the older one drains.
    fn end_probation(&mut self) {
        if self.probation_until.is_none_or(|until| until > self.now) {
            return;
        }
        self.probation_until = None;
        if let Some(member) = self.serving.and_then(|serving| self.members.get(&serving)) {
            let recipe = member.recipe;
            self.bad.remove(&recipe.config);
            self.last_good = Some(recipe);
            self.tries = 0;
            self.respawn_at = None;
        }
        if let Some(fallback) = self.fallback.take() {
            self.drain(fallback);
        }
    }
}

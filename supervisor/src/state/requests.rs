//! What people ask for: reload, drain, stop, open logs again.

use std::collections::BTreeSet;

use baton_contract::{
    control::{Answer, Moves, Outcome, Phase, Reload, Step, Verdict},
    exit::Exit,
    generation::{Generation, State},
    message::{DrainStrategy, ReopenLogs},
};

use serde::{Deserialize, Serialize};

use super::{
    Supervisor,
    action::{Action, Level, Notice},
    attempt::{Attempt, Origin, Stage},
    event::{StopKind, Time, Waiter},
    outcome::micros,
};

/// Most clients that may wait for one reload.
pub(super) const MAX_WAITERS: usize = 256;

/// A reload that has not begun.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Pending {
    pub(super) waiters: Vec<Waiter>,
    pub(super) force: bool,
    concurrency: Option<u32>,
    pub(super) since: Time,
    /// Those who wait were told so.
    told: bool,
}

/// The supervisor is ending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    pub(super) kind: StopKind,
}

impl Supervisor {
    /// A new attempt from the configuration file.
    fn attempt_from(&self, origin: Origin, pending: Pending) -> Attempt {
        Attempt {
            origin,
            waiters: pending.waiters,
            force: pending.force,
            concurrency: pending.concurrency.unwrap_or_else(|| self.concurrency()),
            recipe: None,
            generation: None,
            stage: Stage::Reading,
            since: pending.since,
            deadline: self.now.saturating_add(self.policy.start_timeout),
            listeners: Vec::new(),
            warnings: Vec::new(),
            changes: baton_contract::control::ListenerChanges::default(),
            past: self.so_far(),
        }
    }

    /// Worker threads of the serving generation, or what the command line says.
    fn concurrency(&self) -> u32 {
        let serving = self.serving.and_then(|generation| self.members.get(&generation));
        let recipe = serving.map(|member| member.recipe).or(self.last_good);
        recipe.map_or(self.policy.concurrency, |recipe| recipe.concurrency)
    }

    pub(super) fn pending(&self) -> Pending {
        Pending {
            waiters: Vec::new(),
            force: false,
            concurrency: None,
            since: self.now,
            told: false,
        }
    }

    pub(super) fn on_start(&mut self) {
        let attempt = self.attempt_from(Origin::First, self.pending());
        self.begin_from_file(attempt);
    }

    pub(super) fn on_reload(&mut self, waiter: Option<Waiter>, reload: &Reload) {
        if self.stopping.is_some() {
            self.refuse(waiter, "the supervisor is stopping");
            return;
        }
        let fresh = self.pending();
        let slot =
            if reload.dry_run { &mut self.pending_dry_run } else { &mut self.pending_reload };
        let pending = slot.get_or_insert(fresh);
        if pending.waiters.len() >= MAX_WAITERS {
            self.refuse(waiter, "too many clients wait for this reload already");
            return;
        }
        pending.waiters.extend(waiter);
        pending.force |= reload.force;
        pending.concurrency = reload.concurrency.or(pending.concurrency);
    }

    pub(super) fn refuse(&mut self, waiter: Option<Waiter>, text: &str) {
        if let Some(waiter) = waiter {
            let answer = Answer::Refused { text: text.to_owned(), code: Exit::Refused as u8 };
            self.push(Action::Answer { waiter, answer });
        }
    }

    /// Begins what waits, if nothing else is on its way.
    pub(super) fn settle(&mut self) {
        if self.stopping.is_some() {
            self.settle_stop();
            return;
        }
        if self.attempt.is_some() || self.adopting.is_some() || self.upgrade_goes_first() {
            self.tell_queued();
            return;
        }
        if self.pending_reload.is_some() {
            if self.serving.is_some() && !self.room() {
                self.tell_queued();
            } else if let Some(pending) = self.pending_reload.take() {
                self.respawn_at = None;
                let attempt = self.attempt_from(Origin::Reload, pending);
                self.begin_from_file(attempt);
            }
        } else if self.serving.is_none() && self.respawn_at.is_some() {
            if self.respawn_at.is_some_and(|at| at <= self.now) {
                self.respawn(Origin::Respawn);
            }
        } else if let Some(pending) = self.pending_dry_run.take() {
            let attempt = self.attempt_from(Origin::DryRun, pending);
            self.begin_from_file(attempt);
        }
    }

    /// Starts a worker from the last good configuration.
    pub(super) fn respawn(&mut self, origin: Origin) {
        self.respawn_at = None;
        let serving = self.serving.and_then(|generation| self.members.get(&generation));
        let Some(recipe) = self.last_good.or_else(|| serving.map(|member| member.recipe)) else {
            return;
        };
        let pending = Pending { concurrency: Some(recipe.concurrency), ..self.pending() };
        self.attempt = Some(self.attempt_from(origin, pending));
        self.respawns = self.respawns.saturating_add(1);
        self.spawn(recipe);
    }

    /// There is room for one more generation; otherwise the oldest one that drains is hurried.
    fn room(&mut self) -> bool {
        if self.members.len() < self.policy.max_generations.max(2) {
            return true;
        }
        let soon = self.now.saturating_add(self.policy.hurry_time);
        let leaving = self.members.values().any(|member| {
            member.ending.is_some()
                || (member.hurried && member.cut_at.is_some_and(|cut_at| cut_at <= soon))
        });
        if !leaving {
            let oldest = self.members.values().find(|m| m.state == State::Draining);
            let oldest = oldest.map(|member| member.generation).or(self.fallback);
            if let Some(oldest) = oldest {
                let text = format!("too many generations live, generation {oldest} has to hurry");
                self.push(Action::Log(Level::Warn, text));
                // What can still move shall move, and not be told to close.
                let strategy = match self.policy.drain_strategy {
                    DrainStrategy::Migrate => DrainStrategy::Migrate,
                    DrainStrategy::Gradual | DrainStrategy::Immediate => DrainStrategy::Immediate,
                };
                self.hurry(oldest, strategy, self.policy.hurry_time);
            }
        }
        false
    }

    /// Tells those who wait for a pending reload that they wait.
    fn tell_queued(&mut self) {
        let now = self.now;
        let mut actions = Vec::new();
        for pending in [&mut self.pending_reload, &mut self.pending_dry_run].into_iter().flatten() {
            if pending.told || pending.waiters.is_empty() {
                continue;
            }
            pending.told = true;
            let phase = Phase {
                step: Step::Queued,
                at_us: micros(now.saturating_sub(pending.since)),
                generation: None,
                text: String::new(),
            };
            actions.push(Action::Progress { waiters: pending.waiters.clone(), phase });
        }
        self.actions.append(&mut actions);
    }

    pub(super) fn on_drain_request(
        &mut self,
        waiter: Option<Waiter>,
        generation: Generation,
        strategy: Option<DrainStrategy>,
    ) {
        let state = self.members.get(&generation).map(|member| member.state);
        match state {
            Some(State::HandingOff | State::Draining) => {
                let within = self.policy.parent_shutdown_time;
                self.hurry(generation, strategy.unwrap_or(DrainStrategy::Immediate), within);
                if let Some(waiter) = waiter {
                    let text = format!("generation {generation} drains");
                    self.push(Action::Answer { waiter, answer: Answer::Done { text } });
                }
            }
            Some(State::Serving) => {
                self.refuse(waiter, "this generation serves; reload first, or stop");
            }
            Some(State::Starting | State::Warming | State::Ready | State::Failed | State::Dead) => {
                self.refuse(waiter, "this generation does not serve");
            }
            None => self.refuse(waiter, "there is no such generation"),
        }
    }

    pub(super) fn on_reopen_logs(&mut self) {
        let reachable: Vec<Generation> =
            self.members.values().filter(|m| m.channel).map(|m| m.generation).collect();
        for generation in reachable {
            self.command(generation, ReopenLogs {}.into());
        }
    }

    pub(super) fn on_stop(&mut self, kind: StopKind) {
        let graceful = match (kind, self.stopping) {
            (_, Some(Stopping { kind: StopKind::Now })) | (StopKind::Patient, Some(_)) => return,
            (StopKind::Graceful | StopKind::Full, Some(Stopping { kind: StopKind::Patient })) => {
                // The first signal, which says again what was said.
                self.stopping = Some(Stopping { kind });
                return;
            }
            (StopKind::Now, _) | (_, Some(_)) => None,
            (StopKind::Graceful | StopKind::Patient, None) => Some(self.policy.stop_time),
            (StopKind::Full, None) => Some(self.policy.drain_time),
        };
        let first = self.stopping.is_none();
        let kind = if graceful.is_some() { kind } else { StopKind::Now };
        self.stopping = Some(Stopping { kind });
        if first {
            self.push(Action::Notify(Notice::Stopping));
            self.abandon_requests();
            self.absorb_orphans();
            if graceful.is_some() {
                // The workers empty the queues; what would come after that is not let in.
                let keys: BTreeSet<_> = self.users.keys().chain(&self.wanted).cloned().collect();
                self.push(Action::Deafen(keys.into_iter().collect()));
            }
            self.push(Action::ReleaseAll);
            self.users.clear();
            self.wanted.clear();
        }
        let all: Vec<Generation> = self.members.keys().copied().collect();
        for generation in all {
            let waits = self.members.get(&generation).is_some_and(|member| {
                matches!(member.state, State::Serving | State::HandingOff | State::Draining)
            });
            let within = graceful.filter(|_| waits).unwrap_or(Time::ZERO);
            self.end(generation, within);
            let cut_at = self.now.saturating_add(within);
            if let Some(member) = self.members.get_mut(&generation) {
                member.cut_at = Some(cut_at);
            }
        }
    }

    /// Gives everybody who waits a verdict; the attempt ends.
    fn abandon_requests(&mut self) {
        let text = "the supervisor was told to stop".to_owned();
        if let Some(attempt) = &self.attempt {
            let verdict = if matches!(attempt.stage, Stage::Pausing(..)) {
                Verdict::Serving
            } else {
                Verdict::Stopping
            };
            self.finish_attempt(verdict, text.clone());
        }
        self.fallback = None;
        self.respawn_at = None;
        self.resuming = None;
        let upgrade = self.upgrade.take().map(|upgrade| upgrade.pending);
        let pending = [self.pending_reload.take(), self.pending_dry_run.take(), upgrade];
        for pending in pending.into_iter().flatten() {
            let outcome = Outcome {
                verdict: Verdict::Stopping,
                generation: None,
                serving: self.serving,
                text: text.clone(),
                diagnostics: Vec::new(),
                connections: Moves::default(),
                listeners: baton_contract::control::ListenerChanges::default(),
                took_us: micros(self.now.saturating_sub(pending.since)),
            };
            self.push(Action::Verdict { waiters: pending.waiters, outcome: Box::new(outcome) });
        }
    }

    /// Everything ended: so does the loop.
    fn settle_stop(&mut self) {
        if self.members.is_empty() {
            self.push(Action::Finish(Ok(Exit::Ok)));
        }
    }
}

//! Workers whose supervisor died come back to the next one.
//!
//! ```text
//! Adopt ─→ waiting: Reattached* ─→ all are back, or the window is over
//!            │ one of them serves: it goes on, older ones are paused or drain
//!            │ none serves, one is paused: it resumes
//!            └ none of both: the sockets of those that hang are copied, cold start
//! ```
//! Nothing is bound and no reload begins while they are waited for.

use std::{collections::BTreeMap, time::Duration};

use baton_contract::{
    generation::{Generation, State},
    message::Pause,
    words::counted,
};

use super::{
    Supervisor,
    action::{Action, Level, Notice, Recipe},
    event::{Arrival, ConfigId, Death, Estate, Orphan, Time},
    member::Member,
};

/// How long workers of a dead supervisor are waited for. They look for a new one ten times a
/// second; who does not come in this time hangs.
const WINDOW: Duration = Duration::from_secs(3);

/// Workers are waited for.
#[derive(Clone, Debug)]
pub(super) struct Adopting {
    pub(super) until: Time,
    orphans: BTreeMap<Generation, Orphan>,
    strangers: bool,
}

impl Supervisor {
    pub(super) fn on_adopt(&mut self, estate: Estate) {
        self.next = self.next.max(estate.next);
        (self.reloads, self.failed_reloads, self.respawns) = estate.counts;
        self.last_tick = self.now;
        let text = format!("a dead supervisor left {}", counted(estate.orphans.len(), "worker"));
        self.push(Action::Log(Level::Warn, text));
        let orphans = estate.orphans.into_iter().map(|orphan| (orphan.generation, orphan));
        self.adopting = Some(Adopting {
            until: self.now.saturating_add(WINDOW),
            orphans: orphans.collect(),
            strangers: estate.strangers,
        });
        self.adoption_may_end();
    }

    pub(super) fn on_reattached(&mut self, generation: Generation, arrival: Arrival) {
        let now = self.now;
        if self.members.get(&generation).is_some_and(Member::reachable) {
            return;
        }
        let mut member = Member::new(generation, arrival.recipe, now);
        member.pid = arrival.pid;
        member.started = arrival.started;
        member.state = arrival.state;
        member.cut_at = arrival.cut_in.map(|left| now.saturating_add(left));
        member.keys = arrival.listeners.iter().map(|spec| spec.key.clone()).collect();
        for key in &member.keys {
            self.users.entry(key.clone()).or_default().insert(generation);
        }
        member.listeners = arrival.listeners;
        member.migrates = arrival.migrates;
        member.alien = arrival.alien;
        self.next = self.next.max(generation.0.saturating_add(1));
        self.members.insert(generation, member);
        self.set_state(generation, arrival.state);
        let text = format!("generation {generation} is back, {}", arrival.state.as_str());
        self.push(Action::Log(Level::Info, text));
        if self.stopping.is_some() {
            self.end(generation, Time::ZERO);
            return;
        }
        match &mut self.adopting {
            Some(adopting) => drop(adopting.orphans.remove(&generation)),
            // Too late: another one serves, or is on its way.
            None => self.drain(generation),
        }
        self.adoption_may_end();
    }

    /// An orphan that was waited for is gone; `false` when it is none of those.
    pub(super) fn orphan_ended(&mut self, generation: Generation, how: Death) -> bool {
        let waiting = self.adopting.as_mut();
        if waiting.and_then(|adopting| adopting.orphans.remove(&generation)).is_none() {
            return false;
        }
        self.push(Action::Retire { generation });
        let text = format!("generation {generation} did not come back, it {how}");
        self.push(Action::Log(Level::Warn, text));
        self.adoption_may_end();
        true
    }

    fn adoption_may_end(&mut self) {
        let over = self.adopting.as_ref().is_some_and(|a| a.orphans.is_empty() && !a.strangers);
        if over {
            self.end_adoption();
        }
    }

    /// Those that did not come back count as draining ones that cannot be reached. They may come
    /// later.
    pub(super) fn absorb_orphans(&mut self) {
        let Some(adopting) = self.adopting.take() else { return };
        for (generation, orphan) in adopting.orphans {
            let unknown = Recipe { config: ConfigId(0), concurrency: 0 };
            let mut member = Member::new(generation, unknown, self.now);
            member.pid = orphan.pid;
            member.started = orphan.started;
            member.channel = false;
            member.cut_at = Some(self.now.saturating_add(self.policy.parent_shutdown_time));
            self.members.insert(generation, member);
            self.set_state(generation, State::Draining);
            let text = format!("generation {generation} (process {}) hangs", orphan.pid);
            self.push(Action::Log(Level::Error, text));
            self.push(Action::Rescue { generation });
        }
    }

    /// Decides who serves among those that came back.
    pub(super) fn end_adoption(&mut self) {
        self.absorb_orphans();
        let newest = |state: State| {
            let mut found = self.members.values().rev();
            found.find(|m| m.state == state && m.reachable()).map(|member| member.generation)
        };
        let (serving, paused) = (newest(State::Serving), newest(State::HandingOff));
        match (serving, paused) {
            (Some(serving), paused) => self.goes_on(serving, paused),
            (None, Some(paused)) => {
                self.resume(paused);
                self.push(Action::Notify(Notice::Ready));
            }
            (None, None) => return self.on_start(),
        }
        let others: Vec<Generation> = self
            .members
            .values()
            .filter(|member| member.channel)
            .map(|member| member.generation)
            .filter(|generation| ![self.serving, self.fallback].contains(&Some(*generation)))
            .collect();
        for generation in others {
            self.drain(generation);
        }
        self.release_unused();
    }

    /// The generation serves on as if nothing had happened. A paused one stays able to come back
    /// for the time of a probation, because nobody knows how much of it was over.
    fn goes_on(&mut self, serving: Generation, paused: Option<Generation>) {
        let now = self.now;
        self.serving = Some(serving);
        let Some(member) = self.members.get_mut(&serving) else { return };
        member.cut_at = None;
        let (recipe, alien) = (member.recipe, member.alien);
        // The supervisor before may have died while it took one away that is needed still.
        let listeners = member.listeners.clone();
        self.wanted.clone_from(&member.keys);
        self.resources = member.resources;
        self.last_good = Some(recipe);
        self.set_state(serving, State::Serving);
        self.push(Action::Listen { generation: serving, listeners });
        if let Some(paused) = paused {
            self.last_good = self.members.get(&paused).map(|member| member.recipe);
            self.fallback = Some(paused);
            self.probation_until = Some(now.saturating_add(self.policy.probation));
            let keys = self.members.get(&paused).map(|member| member.keys.clone());
            let removed = keys.iter().flatten().filter(|key| !self.wanted.contains(*key));
            let removed = removed.cloned().collect();
            self.command(paused, Pause { removed }.into());
        }
        self.push(Action::Notify(Notice::Ready));
        if alien {
            let text = format!("generation {serving} is of another version, it is replaced");
            self.push(Action::Log(Level::Warn, text));
            let pending = self.pending();
            self.pending_reload.get_or_insert(pending);
        }
    }
}

//! `/drain_listeners`: the serving generation gives listeners up and goes on serving.
//!
//! ```text
//! DRAIN_LISTENERS ─→ deafen ─→ RELEASE to the serving generation, DRAIN to all others that have them
//!                                └─ RELEASED by all ─→ the sockets are closed, clients are refused
//! ```
//! Nobody wants the listeners then, as after a reload that removed them. The next generation, whatever
//! starts it, binds them anew.

use std::collections::BTreeSet;

use baton_contract::{
    generation::{Generation, State},
    listener_key::ListenerKey,
    message::{Drain, DrainListeners, DrainStrategy, Release},
    words::counted,
};

use super::{
    Supervisor,
    action::{Action, Level},
    attempt::MAX_LISTENERS,
    life::millis,
    member::Member,
};

impl Supervisor {
    pub(super) fn on_drain_listeners(&mut self, generation: Generation, drained: DrainListeners) {
        if drained.removed {
            if let Some(member) = self.members.get_mut(&generation) {
                member.wishes.give_up(drained.keys);
            }
            return;
        }
        let (of, unwanted) = self.unwanted.get_or_insert_with(|| (generation, BTreeSet::new()));
        if *of < generation {
            *of = generation;
            unwanted.clear();
        }
        if *of == generation {
            unwanted.extend(drained.keys);
        }
    }

    /// Takes listeners away that the serving generation gave up.
    pub(super) fn drain_listeners(&mut self) {
        let switches =
            self.attempt.as_ref().is_some_and(|attempt| attempt.stage.may_open_listeners());
        if switches || self.adopting.is_some() {
            return;
        }
        let Some((generation, keys)) = self.unwanted.take() else { return };
        if self.serving != Some(generation) || self.stopping.is_some() {
            let text = format!(
                "generation {generation} wanted to give up listeners, but it does not serve any more"
            );
            return self.push(Action::Log(Level::Info, text));
        }
        let Some(member) = self.members.get_mut(&generation) else { return };
        // Those it has no more it gave up under a supervisor that died.
        let room = MAX_LISTENERS.saturating_sub(member.drained.len());
        member.drained.extend(keys.iter().take(room).cloned());
        self.take_away(generation, keys);
    }

    /// Takes listeners away from the serving generation, as far as it has them.
    pub(super) fn take_away(&mut self, generation: Generation, mut keys: BTreeSet<ListenerKey>) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        keys.retain(|key| member.keys.remove(key));
        if keys.is_empty() {
            return;
        }
        member.listeners.retain(|spec| !keys.contains(&spec.key));
        member.leaving.extend(keys.iter().cloned());
        self.wanted.retain(|key| !keys.contains(key));
        let given = counted(keys.len(), "listener");
        let text = format!("generation {generation} gives up {given}");
        self.push(Action::Log(Level::Info, text));
        let keys: Vec<ListenerKey> = keys.into_iter().collect();
        self.push(Action::Deafen(keys.clone()));
        // It has copies, and a rollback to it would listen again.
        let fallback = self.fallback.take();
        if let Some(fallback) = fallback {
            self.drain(fallback);
        }
        self.withdraw(&keys, fallback);
        for release in Release::messages(keys) {
            self.command(generation, release.into());
        }
    }

    /// Tells generations that drain to close their copies of listeners that are gone now; `but` knows it.
    pub(super) fn withdraw(&mut self, keys: &[ListenerKey], but: Option<Generation>) {
        let mut drains = Vec::new();
        for member in self.members.values() {
            let has = |key: &&ListenerKey| {
                self.users.get(*key).is_some_and(|users| users.contains(&member.generation))
            };
            let removed: Vec<ListenerKey> = keys.iter().filter(has).cloned().collect();
            let drains_already = member.state == State::Draining && member.reachable();
            if drains_already && Some(member.generation) != but && !removed.is_empty() {
                drains.push((member.generation, self.drain_of(member, removed)));
            }
        }
        for (generation, drain) in drains {
            self.command(generation, drain.into());
        }
    }

    /// DRAIN as the policy says; said again it changes only what is removed.
    pub(super) fn drain_of(&self, member: &Member, removed: Vec<ListenerKey>) -> Drain {
        let left = member
            .cut_at
            .map_or(self.policy.parent_shutdown_time, |at| at.saturating_sub(self.now));
        Drain {
            // Who drains because of a stuck thread will not live long enough for anything else.
            strategy: match member.stuck_since {
                Some(_) => DrainStrategy::Migrate,
                None => self.policy.drain_strategy,
            },
            drain_ms: millis(self.policy.drain_time),
            deadline_ms: millis(left),
            removed,
        }
    }
}

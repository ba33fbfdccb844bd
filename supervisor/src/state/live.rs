//! Listeners that a generation needs in addition while it serves, and those its configuration has no
//! more.
//!
//! ```text
//! NEED_LISTENERS ─→ bind each, let it accept ─→ UNBOUND for those that failed, sockets of the others
//! DRAIN_LISTENERS, removed ─→ as `/drain_listeners` (`drained.rs`), once no older one could come back
//! ```
//! What a generation asks while it does not serve, because it is on its way, paused, or not adopted
//! yet, waits until it does; when it drains it is forgotten. The newest word about a listener counts.
//! A listener that is needed again while the generation empties it stays held, and its sockets come
//! after RELEASED: until then the worker would take them for those it is about to close.

use std::collections::{BTreeMap, BTreeSet};

use baton_contract::{
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec},
    message::{NeedListeners, Unbound, UnboundListener},
};
use serde::{Deserialize, Serialize};

use super::{
    Supervisor,
    action::{Action, Level},
    attempt::{MAX_LISTENERS, Stage},
    member::Member,
};

/// Most requests of one generation that wait for an answer. Of more the oldest are not answered.
const MAX_REQUESTS: usize = 64;

/// What a generation asked and did not get yet.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Wishes {
    needs: BTreeMap<ListenerKey, ListenerSpec>,
    /// Those of them that are being bound.
    binding: BTreeMap<ListenerKey, ListenerSpec>,
    gives_up: BTreeSet<ListenerKey>,
    /// To be answered when nothing is needed any more.
    requests: Vec<u64>,
}

impl Wishes {
    /// Listeners the configuration has no more.
    pub(super) fn give_up(&mut self, keys: Vec<ListenerKey>) {
        for key in keys {
            self.needs.remove(&key);
            if self.gives_up.len() < MAX_LISTENERS {
                self.gives_up.insert(key);
            }
        }
    }

    /// It will be bound, if it is not.
    fn is_needed(&self, key: &ListenerKey) -> bool {
        self.needs.contains_key(key) || self.binding.contains_key(key)
    }
}

impl Supervisor {
    /// `NEED_LISTENERS` of a generation that named what it needs to begin with before.
    pub(super) fn on_more_listeners(&mut self, generation: Generation, need: NeedListeners) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let ends = matches!(member.state, State::Draining | State::Failed | State::Dead);
        if need.request == 0 || ends {
            return;
        }
        let mut refused = Vec::new();
        for spec in need.listeners {
            if let Some((_, unwanted)) = &mut self.unwanted {
                unwanted.remove(&spec.key);
            }
            member.wishes.gives_up.remove(&spec.key);
            let count = member.keys.len().saturating_add(member.wishes.needs.len());
            if count < MAX_LISTENERS || member.keys.contains(&spec.key) {
                member.wishes.needs.insert(spec.key.clone(), spec);
            } else {
                let text = format!("a generation has at most {MAX_LISTENERS} listeners");
                refused.push((spec.key, text));
            }
        }
        if need.last {
            let requests = &mut member.wishes.requests;
            if requests.len() >= MAX_REQUESTS {
                requests.remove(0);
            }
            requests.push(need.request);
        }
        self.tell_unbound(generation, refused);
    }

    /// Does what the serving generation asked, as far as that is possible now.
    pub(super) fn live_listeners(&mut self) {
        if self.adopting.is_some() || self.stopping.is_some() {
            return;
        }
        let Some(serving) = self.serving else { return };
        self.bind_more(serving);
        let takes_over =
            self.attempt.as_ref().is_some_and(|attempt| attempt.stage.may_open_listeners());
        // An older generation that may come back has them in its configuration.
        if takes_over || self.fallback.is_some() {
            return;
        }
        let Some(member) = self.members.get_mut(&serving) else { return };
        let keys = std::mem::take(&mut member.wishes.gives_up);
        self.take_away(serving, keys);
    }

    fn bind_more(&mut self, generation: Generation) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let Member { wishes, leaving, .. } = member;
        let needs = std::mem::take(&mut wishes.needs);
        let (later, now): (BTreeMap<_, _>, BTreeMap<_, _>) =
            needs.into_iter().partition(|(key, _)| leaving.contains(key));
        wishes.needs = later;
        if now.is_empty() {
            return self.answer_requests(generation);
        }
        let shards = member.recipe.concurrency.max(self.policy.min_shards);
        let listeners: Vec<ListenerSpec> = now.values().cloned().collect();
        for key in now.keys() {
            self.users.entry(key.clone()).or_default().insert(generation);
        }
        wishes.binding.extend(now);
        self.push(Action::BindMore { generation, listeners, shards });
    }

    /// The listeners that were asked for last are bound and accept, except for those that failed.
    pub(super) fn on_bound_more(
        &mut self,
        generation: Generation,
        failed: Vec<(ListenerKey, String)>,
    ) {
        let serves = self.serving == Some(generation);
        let Some(member) = self.members.get_mut(&generation) else {
            return self.release_unused();
        };
        let binding = std::mem::take(&mut member.wishes.binding);
        let failed: BTreeMap<ListenerKey, String> = failed.into_iter().collect();
        let mut given = Vec::new();
        for (key, spec) in binding {
            if serves && !failed.contains_key(&key) {
                member.holds(spec);
                self.wanted.insert(key.clone());
                given.push(key);
                continue;
            }
            if !member.keys.contains(&key)
                && let Some(users) = self.users.get_mut(&key)
            {
                users.remove(&generation);
            }
            if !serves {
                // It was paused just now; who polls them is decided when it serves again.
                member.wishes.needs.entry(key).or_insert(spec);
            }
        }
        if !given.is_empty() {
            let text = format!("generation {generation} listens on {} more or anew", given.len());
            self.push(Action::Log(Level::Info, text));
            self.push(Action::SendListeners { generation, keys: given, request: 0 });
        }
        if serves {
            self.tell_unbound(generation, failed.into_iter().collect());
            self.answer_requests(generation);
        }
        self.release_unused();
    }

    fn tell_unbound(&mut self, generation: Generation, failed: Vec<(ListenerKey, String)>) {
        for (_, text) in &failed {
            let text = format!("generation {generation} serves without a listener: {text}");
            self.push(Action::Log(Level::Error, text));
        }
        let listeners = failed.into_iter().map(|(key, text)| UnboundListener { key, text });
        for unbound in Unbound::messages(listeners) {
            self.push(Action::Send { generation, message: unbound.into(), command: None });
        }
    }

    /// Says that all was done that was asked for.
    fn answer_requests(&mut self, generation: Generation) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let wishes = &mut member.wishes;
        if !wishes.needs.is_empty() || !wishes.binding.is_empty() {
            return;
        }
        for request in std::mem::take(&mut wishes.requests) {
            self.push(Action::SendListeners { generation, keys: Vec::new(), request });
        }
    }

    /// Whether somebody is about to have sockets of a listener that nobody uses.
    pub(super) fn is_coming(&self, key: &ListenerKey) -> bool {
        let serving = self.serving.and_then(|serving| self.members.get(&serving));
        serving.is_some_and(|member| member.wishes.is_needed(key))
            || self.attempt.as_ref().is_some_and(|attempt| {
                let binds = attempt.stage == Stage::Binding;
                binds && attempt.listeners.iter().any(|spec| spec.key == *key)
            })
    }
}

//! What must always hold, checked after every step.

use std::collections::{BTreeMap, BTreeSet};

use baton_contract::{
    control::Verdict,
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec},
    message::{FromWorker, ToWorker},
};
use baton_supervisor::state::{
    Policy, Supervisor,
    action::Action,
    event::{CommandId, ConfigId, Event, ResourcesId, Time, Waiter},
};

use crate::world::Worker;

/// Situations that came up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    verdicts: BTreeSet<u8>,
    rollbacks: u32,
    respawns: u64,
    hurried: u32,
    kills: u32,
    crashes: u32,
    returns: u32,
    upgrades: u32,
    introductions: u32,
    stuck: u32,
    drains: u32,
    more: u32,
    unbound: u32,
    given: u32,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.verdicts.extend(&other.verdicts);
        self.rollbacks += other.rollbacks;
        self.respawns += other.respawns;
        self.hurried += other.hurried;
        self.kills += other.kills;
        self.crashes += other.crashes;
        self.returns += other.returns;
        self.upgrades += other.upgrades;
        self.introductions += other.introductions;
        self.stuck += other.stuck;
        self.drains += other.drains;
        self.more += other.more;
        self.unbound += other.unbound;
        self.given += other.given;
    }

    pub(crate) fn stuck(&mut self) {
        self.stuck += 1;
    }

    pub(crate) fn everything(&self) -> bool {
        // Serving, would serve, invalid, refused, rolled back.
        let enough = |count: u64| count >= 10;
        self.verdicts.len() >= 5
            && enough(u64::from(self.rollbacks))
            && enough(self.respawns)
            && enough(u64::from(self.hurried))
            && enough(u64::from(self.kills))
            && enough(u64::from(self.crashes))
            && enough(u64::from(self.returns))
            && enough(u64::from(self.upgrades))
            && enough(u64::from(self.introductions))
            && enough(u64::from(self.stuck))
            && enough(u64::from(self.drains))
            && enough(u64::from(self.more))
            && enough(u64::from(self.unbound))
            && enough(u64::from(self.given))
    }
}

/// What was observed so far.
pub(crate) struct Rules {
    policy: Policy,
    pub(crate) seen: Seen,
    pub(crate) last_reload: Option<Waiter>,
    held: BTreeSet<ListenerKey>,
    listening: BTreeSet<ListenerKey>,
    /// Listeners of each generation.
    needs: BTreeMap<Generation, BTreeSet<ListenerKey>>,
    /// Listeners each generation asked for while it lived, and did not get.
    asked: BTreeMap<Generation, BTreeSet<ListenerKey>>,
    /// What each generation said or was given, and that of the one that serves or served last.
    resources_of: BTreeMap<Generation, Option<ResourcesId>>,
    resources: Option<ResourcesId>,
    takes: BTreeMap<CommandId, Generation>,
    /// Generations that confirmed TAKE.
    took: BTreeSet<Generation>,
    /// Generations on their way.
    coming: BTreeSet<Generation>,
    /// Generations that were told to drain.
    draining: BTreeSet<Generation>,
    /// To whom each gives its connections.
    introduced: BTreeMap<Generation, Generation>,
    configs: BTreeMap<Generation, ConfigId>,
    rolled_back: BTreeSet<ConfigId>,
    forced: bool,
    waiting: BTreeSet<Waiter>,
    /// Generations whose channel ended.
    closed: BTreeSet<Generation>,
    serving: Option<Generation>,
    /// The generation whose listeners must be held.
    last_serving: Option<Generation>,
    stopping: bool,
}

fn ensure(holds: bool, rule: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(rule()) }
}

impl Rules {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            seen: Seen::default(),
            last_reload: None,
            held: BTreeSet::new(),
            listening: BTreeSet::new(),
            needs: BTreeMap::new(),
            asked: BTreeMap::new(),
            resources_of: BTreeMap::new(),
            resources: None,
            takes: BTreeMap::new(),
            took: BTreeSet::new(),
            coming: BTreeSet::new(),
            draining: BTreeSet::new(),
            introduced: BTreeMap::new(),
            configs: BTreeMap::new(),
            rolled_back: BTreeSet::new(),
            forced: false,
            waiting: BTreeSet::new(),
            closed: BTreeSet::new(),
            serving: None,
            last_serving: None,
            stopping: false,
        }
    }

    /// The supervisor died. What it held is held by its workers, and nobody waits any more.
    pub(crate) fn crashed(&mut self) {
        self.seen.crashes += 1;
        self.waiting.clear();
        self.takes.clear();
        self.resources_of.clear();
        self.resources = None;
        self.asked.clear();
        self.coming.clear();
        self.introduced.clear();
        self.closed.clear();
        self.rolled_back.clear();
        self.held.clear();
        self.listening.clear();
        self.serving = None;
        self.last_serving = None;
    }

    pub(crate) fn asked(&mut self, waiter: Waiter) {
        self.waiting.insert(waiter);
    }

    pub(crate) fn bound(&mut self, listeners: &[ListenerSpec]) {
        self.held.extend(listeners.iter().map(|spec| spec.key.clone()));
    }

    pub(crate) fn listening(&mut self, listeners: &[ListenerSpec]) {
        self.listening.extend(listeners.iter().map(|spec| spec.key.clone()));
    }

    /// Notes what an event says.
    pub(crate) fn before(&mut self, event: &Event, core: &Supervisor) {
        self.serving = core.serving();
        match event {
            Event::Answered { command, result: Ok(()), .. } => {
                self.took.extend(self.takes.get(command));
            }
            Event::Exited { generation, .. } | Event::SpawnFailed { generation, .. } => {
                self.coming.remove(generation);
            }
            Event::Reattached { generation, arrival } => {
                self.seen.returns += 1;
                let keys: BTreeSet<_> =
                    arrival.listeners.iter().map(|spec| spec.key.clone()).collect();
                self.held.extend(keys.iter().cloned());
                self.listening.extend(keys.iter().cloned());
                self.needs.insert(*generation, keys);
                // It says it again; before, nobody could hear it.
                self.resources_of.remove(generation);
                self.configs.insert(*generation, arrival.recipe.config);
                if arrival.state == State::Serving {
                    self.took.insert(*generation);
                }
            }
            Event::Resources { generation, resources } => {
                self.resources_of.insert(*generation, Some(*resources));
            }
            Event::Executed => {
                self.seen.upgrades += 1;
                // The new program may do with a configuration what the older one could not.
                self.forced = true;
            }
            Event::Message { generation, message: FromWorker::NeedListeners(need) }
                if need.request != 0 =>
            {
                let keys = need.listeners.iter().map(|spec| spec.key.clone());
                self.asked.entry(*generation).or_default().extend(keys);
            }
            Event::Message { generation, message: FromWorker::DrainListeners(drained) } => {
                let asked = self.asked.entry(*generation).or_default();
                asked.retain(|key| !drained.keys.contains(key));
            }
            Event::BoundMore { generation, failed } if self.serving == Some(*generation) => {
                self.seen.unbound += u32::from(!failed.is_empty());
                let asked = self.asked.entry(*generation).or_default();
                asked.retain(|key| failed.iter().all(|(unbound, _)| unbound != key));
            }
            Event::ChannelClosed { generation } => {
                self.closed.insert(*generation);
            }
            Event::Reload { reload, .. } => self.forced |= reload.force,
            Event::Stop(_) => self.stopping = true,
            _ => {}
        }
    }

    /// Checks one action.
    pub(crate) fn check(&mut self, action: &Action, core: &Supervisor) -> Result<(), String> {
        match action {
            Action::Spawn { generation, recipe } => {
                self.coming.insert(*generation);
                self.configs.insert(*generation, recipe.config);
                ensure(self.coming.len() == 1, || format!("I2: {:?} are coming", self.coming))?;
                if self.forced {
                    // Pardoned; another failure adds it again.
                    self.rolled_back.remove(&recipe.config);
                }
                let bad = self.rolled_back.contains(&recipe.config);
                ensure(!bad, || "a configuration that was rolled back is used again".to_owned())
            }
            Action::Welcome { generation, resources, .. } => {
                let last = self.resources;
                self.resources_of.insert(*generation, *resources);
                self.seen.given += u32::from(resources.is_some());
                ensure(*resources == last, || format!("{resources:?} given, {last:?} said last"))
            }
            Action::Bind { generation, listeners, .. } => {
                let keys = listeners.iter().map(|spec| spec.key.clone()).collect();
                self.needs.insert(*generation, keys);
                Ok(())
            }
            Action::SetState { generation, state, .. } => {
                if matches!(state, State::Serving | State::Failed) {
                    self.coming.remove(generation);
                }
                Ok(())
            }
            Action::Send { generation, message, command } => {
                self.check_message(*generation, message, *command, core)
            }
            Action::Signal { generation, .. } => {
                self.seen.kills += 1;
                let serves = core.serving() == Some(*generation);
                let works = !self.closed.contains(generation);
                ensure(!serves || self.stopping || !works, || {
                    format!("I4: a signal for {generation}, which serves")
                })
            }
            Action::Introduce { from, to } => self.check_introduction(*from, *to, core),
            Action::Deafen(keys) => {
                for key in keys {
                    self.listening.remove(key);
                }
                Ok(())
            }
            Action::BindMore { generation, .. } => {
                let serves = core.serving() == Some(*generation);
                ensure(serves, || format!("{generation} gets listeners and does not serve"))
            }
            Action::SendListeners { generation, keys, .. } => {
                self.gets(*generation, keys);
                Ok(())
            }
            Action::Release(keys) => self.check_release(keys, core),
            Action::ReleaseAll => {
                ensure(self.stopping, || "I1: all listeners are closed".to_owned())?;
                self.held.clear();
                Ok(())
            }
            Action::Verdict { waiters, outcome } => self.check_verdict(waiters, outcome.verdict),
            _ => Ok(()),
        }
    }

    fn check_verdict(&mut self, waiters: &[Waiter], verdict: Verdict) -> Result<(), String> {
        self.seen.verdicts.insert(verdict as u8);
        for waiter in waiters {
            let due = self.waiting.remove(waiter);
            ensure(due, || format!("I5: a second verdict for {waiter:?}"))?;
            let last = self.last_reload == Some(*waiter);
            ensure(!last || verdict == Verdict::Serving, || {
                format!("the last reload ended with {verdict:?}")
            })?;
        }
        Ok(())
    }

    /// Listeners that a generation asked for it has from now on.
    fn gets(&mut self, generation: Generation, keys: &[ListenerKey]) {
        let asked = self.asked.entry(generation).or_default();
        let got: Vec<_> = keys.iter().filter(|key| asked.remove(*key)).cloned().collect();
        self.seen.more += u32::from(!got.is_empty());
        self.needs.entry(generation).or_default().extend(got);
    }

    fn check_release(&mut self, keys: &[ListenerKey], core: &Supervisor) -> Result<(), String> {
        let asked = core.serving().and_then(|serving| self.asked.get(&serving));
        let lost = keys.iter().find(|key| asked.is_some_and(|asked| asked.contains(*key)));
        ensure(lost.is_none(), || format!("I1: {lost:?} is closed and was asked for"))?;
        for key in keys {
            self.held.remove(key);
            self.listening.remove(key);
        }
        Ok(())
    }

    fn check_introduction(
        &mut self,
        from: Generation,
        to: Generation,
        core: &Supervisor,
    ) -> Result<(), String> {
        self.seen.introductions += 1;
        ensure(core.serving() == Some(to), || {
            format!("I6: connections of {from} go to {to}, which does not serve")
        })?;
        ensure(self.draining.contains(&from), || {
            format!("I6: {from} gives its connections away and was not told to drain")
        })?;
        ensure(self.introduced.insert(from, to) != Some(to), || {
            format!("I6: {from} gives its connections to {to} already")
        })
    }

    fn check_message(
        &mut self,
        generation: Generation,
        message: &ToWorker,
        command: Option<CommandId>,
        core: &Supervisor,
    ) -> Result<(), String> {
        match message {
            ToWorker::Take(_) => {
                self.takes.extend(command.map(|command| (command, generation)));
                Ok(())
            }
            ToWorker::Pause(_) => {
                let newer = self.took.range(Generation(generation.0 + 1)..).next().is_some();
                ensure(newer, || format!("I3: PAUSE to {generation}, no newer one took over"))
            }
            ToWorker::Resume(_) => {
                self.seen.rollbacks += 1;
                let failed = self.serving.and_then(|serving| self.configs.get(&serving));
                let same = failed == self.configs.get(&generation);
                self.rolled_back.extend(failed.filter(|_| !same));
                // A forced reload may be waiting still.
                self.forced &= !self.waiting.is_empty();
                Ok(())
            }
            ToWorker::Drain(drain) => {
                self.seen.hurried += u32::from(
                    drain.deadline_ms
                        <= u64::try_from(self.policy.hurry_time.as_millis()).unwrap_or(0),
                );
                self.draining.insert(generation);
                let serves = core.serving() == Some(generation);
                ensure(!serves, || format!("I4: DRAIN to {generation}, which serves"))
            }
            ToWorker::Stop(_) => {
                self.coming.remove(&generation);
                let serves = core.serving() == Some(generation) && !self.stopping;
                ensure(!serves, || format!("I4: STOP to {generation}, which serves"))
            }
            ToWorker::Release(release) => {
                self.seen.drains += 1;
                if let Some(needs) = self.needs.get_mut(&generation) {
                    needs.retain(|key| !release.keys.contains(key));
                }
                let serves = core.serving() == Some(generation);
                ensure(serves, || format!("RELEASE to {generation}, which does not serve"))
            }
            ToWorker::Welcome(_)
            | ToWorker::Config(_)
            | ToWorker::Listeners(_)
            | ToWorker::Peer(_)
            | ToWorker::Adopt(_)
            | ToWorker::ReopenLogs(_)
            | ToWorker::Reattached(_)
            | ToWorker::Unbound(_)
            | ToWorker::Resources(_)
            | ToWorker::Addresses(_) => Ok(()),
        }
    }

    /// Checks the state after a step.
    pub(crate) fn after(&mut self, core: &Supervisor) -> Result<(), String> {
        if self.stopping {
            return Ok(());
        }
        self.last_serving = core.serving().or(self.last_serving);
        if let Some(serving) = core.serving() {
            self.resources = self.resources_of.get(&serving).copied().flatten();
        }
        let kept = self.resources.is_none_or(|last| core.resources_in_use().contains(&last));
        ensure(kept, || "what the serving generation accepted is lost".to_owned())?;
        let wanted = self.last_serving.and_then(|serving| self.needs.get(&serving));
        for key in wanted.into_iter().flatten() {
            ensure(self.held.contains(key), || format!("I1: {key} is closed"))?;
            ensure(self.listening.contains(key), || format!("I1: {key} does not accept"))?;
        }
        self.seen.respawns = core.counts().2;
        let living = core.report(Time::ZERO).generations;
        let living = living.iter().filter(|row| !matches!(row.state, State::Dead | State::Failed));
        ensure(living.count() <= self.policy.max_generations.max(2) + 2, || {
            "too many generations live".to_owned()
        })
    }

    /// A timer that is due must be handled by the tick that sees it.
    pub(crate) fn no_busy_loop(&self, now: Time, wake: Option<Time>) -> Result<(), String> {
        let spins = wake.is_some_and(|at| at <= now) && !self.stopping;
        ensure(!spins, || format!("the loop would spin: {wake:?} is not after {now:?}"))
    }

    /// After a long time without faults.
    pub(crate) fn settled(
        &self,
        workers: &BTreeMap<Generation, Worker>,
        core: &Supervisor,
    ) -> Result<(), String> {
        ensure(self.waiting.is_empty(), || format!("I5: no verdict for {:?}", self.waiting))?;
        let serving = core.serving().ok_or("nobody serves")?;
        let polling = workers.iter().filter(|(_, w)| w.alive && !w.hung && w.polling);
        let polling: Vec<Generation> = polling.map(|(generation, _)| *generation).collect();
        ensure(polling == [serving], || format!("{serving} serves, but {polling:?} poll"))?;
        let Some(worker) = workers.get(&serving) else { return Ok(()) };
        let (has, wants) = (&worker.keys, &worker.wants);
        let lacks: Vec<_> =
            wants.difference(has).filter(|key| !worker.drained.contains(*key)).collect();
        ensure(lacks.is_empty(), || format!("{serving} never got {lacks:?}"))?;
        ensure(has.is_subset(wants), || format!("{serving} still has {has:?}, wants {wants:?}"))?;
        ensure(self.held == *has, || format!("{:?} are held, {serving} has {has:?}", self.held))
    }

    /// After the supervisor stopped.
    pub(crate) fn at_the_end(&self, workers: &BTreeMap<Generation, Worker>) -> Result<(), String> {
        let left: Vec<_> = workers.iter().filter(|(_, w)| w.alive).map(|(g, _)| g).collect();
        ensure(left.is_empty(), || format!("workers are left: {left:?}"))?;
        ensure(self.waiting.is_empty(), || format!("I5: no verdict for {:?}", self.waiting))
    }
}

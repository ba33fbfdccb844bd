//! Bringing up one new generation: read, start, bind, warm, listen, TAKE, PAUSE the older one.
//!
//! ```text
//! Reading → Starting → Binding → Warming → Opening → Taking → Pausing → verdict
//!    any step before Taking is answered fails → verdict, the running generation is untouched
//! ```

use baton_contract::{
    control::{ListenerChanges, Moves, Step, Verdict},
    generation::{Generation, State},
    listener_key::ListenerSpec,
    message::{FailReason, Failed, Hello, NeedListeners, Pause, RESOURCES_FEATURE, Ready, Take},
    version::{ProtoRange, common_features},
    words::counted,
};

use super::{
    Supervisor,
    action::{Action, Fatal, Level, Notice, Recipe, Urgency},
    event::{CommandId, ConfigId, Time, Waiter},
    member::Member,
};

/// Most listeners of one configuration.
pub(super) const MAX_LISTENERS: usize = 16_384;

/// Why a new generation is brought up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// The supervisor starts.
    First,
    /// Somebody asked.
    Reload,
    /// Somebody asked what a reload would do.
    DryRun,
    /// The serving generation died.
    Respawn,
    /// The serving generation hangs.
    Replace,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Reading,
    Starting,
    Binding,
    Warming,
    Opening,
    Taking(CommandId),
    /// The new generation serves; the older one has still to confirm its pause.
    Pausing(Generation, CommandId),
}

impl Stage {
    /// The generation lets its listeners accept at any moment; who wins is known soon.
    pub(super) const fn may_open_listeners(self) -> bool {
        matches!(self, Self::Opening | Self::Taking(_))
    }
}

/// A generation on its way.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) origin: Origin,
    pub(super) waiters: Vec<Waiter>,
    pub(super) force: bool,
    pub(super) concurrency: u32,
    pub(super) recipe: Option<Recipe>,
    pub(super) generation: Option<Generation>,
    pub(super) stage: Stage,
    pub(super) since: Time,
    pub(super) deadline: Time,
    pub(super) listeners: Vec<ListenerSpec>,
    pub(super) warnings: Vec<String>,
    pub(super) changes: ListenerChanges,
    /// What became of connections before, to count those of this switch.
    pub(super) past: Moves,
}

impl Supervisor {
    /// The attempt, if it is about this generation and at this point of its life.
    fn attempt_of(&mut self, generation: Generation) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|attempt| attempt.generation == Some(generation))
    }

    /// Starts an attempt with the configuration file.
    pub(super) fn begin_from_file(&mut self, attempt: Attempt) {
        if matches!(attempt.origin, Origin::Reload) {
            self.push(Action::Notify(Notice::Reloading));
        }
        self.attempt = Some(attempt);
        self.push(Action::ReadConfig);
    }

    pub(super) fn on_config_read(&mut self, result: Result<ConfigId, String>) {
        let Some(attempt) = self.attempt.as_ref().filter(|a| a.stage == Stage::Reading) else {
            return;
        };
        let (force, concurrency) = (attempt.force, attempt.concurrency);
        match result {
            Err(text) => {
                let fatal = Fatal::ConfigFile(text.clone());
                self.fail_attempt(Verdict::Refused, text, Vec::new(), Some(fatal));
            }
            Ok(config) if self.bad.contains(&config) && !force => {
                let text = format!(
                    "this configuration was rolled back before and has not changed since \
                     (hash {config})\nhint: change it, or use `baton reload --force`"
                );
                self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
            }
            Ok(config) => {
                self.phase(Step::Read, format!("hash {config}"));
                self.spawn(Recipe { config, concurrency });
            }
        }
    }

    /// Starts the process of the attempt.
    pub(super) fn spawn(&mut self, recipe: Recipe) {
        let generation = Generation(self.next);
        self.next = self.next.saturating_add(1);
        let (now, deadline) = (self.now, self.now.saturating_add(self.policy.start_timeout));
        let Some(attempt) = self.attempt.as_mut() else { return };
        attempt.recipe = Some(recipe);
        attempt.generation = Some(generation);
        attempt.stage = Stage::Starting;
        attempt.deadline = deadline;
        self.members.insert(generation, Member::new(generation, recipe, now));
        self.push(Action::Spawn { generation, recipe });
    }

    pub(super) fn on_spawned(&mut self, generation: Generation, pid: u32) {
        if let Some(member) = self.members.get_mut(&generation) {
            member.pid = pid;
        }
        if self.attempt_of(generation).is_some() {
            self.set_state(generation, State::Starting);
            self.phase(Step::Started, format!("process {pid}"));
        }
    }

    pub(super) fn on_spawn_failed(&mut self, generation: Generation, text: String) {
        self.members.remove(&generation);
        self.push(Action::Retire { generation });
        if self.attempt_of(generation).is_some() {
            self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
        }
    }

    pub(super) fn on_hello(&mut self, generation: Generation, hello: &Hello) {
        let Some(attempt) = self.attempt_of(generation).filter(|a| a.stage == Stage::Starting)
        else {
            return;
        };
        let (Some(recipe), origin) = (attempt.recipe, attempt.origin) else { return };
        match ProtoRange::ours().negotiate(hello.proto) {
            Ok(proto) => {
                let features = common_features(&hello.features);
                let understands = features.iter().any(|name| name == RESOURCES_FEATURE);
                let resources = self.resources.filter(|_| understands);
                if let Some(member) = self.members.get_mut(&generation) {
                    member.migrates = hello.migrates();
                    member.resources = resources;
                }
                self.push(Action::Welcome {
                    generation,
                    recipe,
                    proto,
                    shm_layout: hello.shm_layout,
                    features,
                    resources,
                    urgency: self.urgency(origin),
                });
            }
            Err(error) => {
                let text = format!("{error}\nhint: `baton upgrade` replaces the supervisor, too");
                self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
            }
        }
    }

    /// Whether anything is served while an attempt of this origin gets ready.
    const fn urgency(&self, origin: Origin) -> Urgency {
        match origin {
            Origin::Respawn | Origin::Replace => Urgency::Respawn,
            Origin::Reload | Origin::DryRun if self.serving.is_some() => Urgency::Beside,
            Origin::First | Origin::Reload | Origin::DryRun => Urgency::First,
        }
    }

    pub(super) fn on_need_listeners(&mut self, generation: Generation, need: NeedListeners) {
        let Some(attempt) = self.attempt_of(generation).filter(|a| a.stage == Stage::Starting)
        else {
            return self.on_more_listeners(generation, need);
        };
        attempt.listeners.extend(need.listeners);
        if attempt.listeners.len() > MAX_LISTENERS {
            let text = format!("the configuration has more than {MAX_LISTENERS} listeners");
            self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
            return;
        }
        if !need.last {
            return;
        }
        attempt.stage = Stage::Binding;
        let listeners = attempt.listeners.clone();
        let (concurrency, origin) = (attempt.concurrency, attempt.origin);
        let changes = self.changes(&listeners);
        if let Some(attempt) = self.attempt.as_mut() {
            attempt.changes = changes;
        }
        if let Some(member) = self.members.get_mut(&generation) {
            member.keys = listeners.iter().map(|spec| spec.key.clone()).collect();
            member.listeners.clone_from(&listeners);
        }
        let shards = concurrency.max(self.policy.min_shards);
        let urgency = self.urgency(origin);
        self.push(Action::Bind { generation, listeners, shards, urgency });
    }

    /// Compares the listeners of the attempt with those of the serving generation.
    fn changes(&self, listeners: &[ListenerSpec]) -> ListenerChanges {
        let mut changes = ListenerChanges::default();
        for spec in listeners {
            if self.wanted.contains(&spec.key) {
                changes.kept = changes.kept.saturating_add(1);
            } else {
                changes.added.push(spec.key.to_string());
            }
        }
        changes.removed = self
            .wanted
            .iter()
            .filter(|key| listeners.iter().all(|spec| spec.key != **key))
            .map(ToString::to_string)
            .collect();
        changes
    }

    pub(super) fn on_bound(&mut self, generation: Generation, result: Result<(), String>) {
        let deadline = self.now.saturating_add(self.policy.warm_timeout);
        let Some(attempt) = self.attempt_of(generation).filter(|a| a.stage == Stage::Binding)
        else {
            return;
        };
        if let Err(text) = result {
            let fatal = Fatal::Bind(text.clone());
            self.fail_attempt(Verdict::Refused, text, Vec::new(), Some(fatal));
            return;
        }
        attempt.stage = Stage::Warming;
        attempt.deadline = deadline;
        let count = attempt.listeners.len();
        let keys = attempt.listeners.iter().map(|spec| spec.key.clone()).collect();
        self.set_state(generation, State::Warming);
        self.phase(Step::Accepted, counted(count, "listener").to_string());
        self.push(Action::SendListeners { generation, keys, request: 0 });
    }

    pub(super) fn on_ready(&mut self, generation: Generation, ready: Ready) {
        let beside = self.serving.is_some();
        let Some(attempt) = self.attempt_of(generation).filter(|a| a.stage == Stage::Warming)
        else {
            return;
        };
        let asked = matches!(attempt.origin, Origin::Reload | Origin::DryRun) && !attempt.force;
        attempt.warnings = ready.warnings;
        attempt.stage = Stage::Opening;
        let listeners = attempt.listeners.clone();
        let dry_run = attempt.origin == Origin::DryRun;
        let unresolved = ready.unresolved.join("\n");
        if !unresolved.is_empty() && asked && beside {
            let hint = "`baton reload --force` takes over without an address";
            let text = format!("{unresolved}\nhint: {hint}");
            self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
            return;
        }
        // A worker that takes the place of another one has nothing new to say.
        let told = matches!(attempt.origin, Origin::First | Origin::Reload);
        let lines = attempt.warnings.iter().filter(|_| told).filter_map(|text| text.lines().next());
        let lines: Vec<_> = lines.map(|line| Action::Log(Level::Warn, line.to_owned())).collect();
        for line in lines {
            self.push(line);
        }
        self.set_state(generation, State::Ready);
        self.phase(Step::Warmed, if ready.degraded { "degraded" } else { "" }.to_owned());
        if dry_run {
            self.end(generation, Time::ZERO);
            self.finish_attempt(Verdict::WouldServe, String::new());
        } else {
            self.push(Action::Listen { generation, listeners });
        }
    }

    pub(super) fn on_listening(&mut self, generation: Generation, result: Result<(), String>) {
        let deadline = self.now.saturating_add(self.policy.take_timeout);
        if self.attempt_of(generation).is_none_or(|a| a.stage != Stage::Opening) {
            // A generation that serves again keeps what the sockets have.
            if let Err(text) = result {
                self.push(Action::Log(Level::Warn, text));
            }
            return;
        }
        if let Err(text) = result {
            let fatal = Fatal::Bind(text.clone());
            self.fail_attempt(Verdict::Refused, text, Vec::new(), Some(fatal));
            return;
        }
        let command = self.command(generation, Take {}.into());
        if let Some(attempt) = self.attempt.as_mut() {
            attempt.stage = Stage::Taking(command);
            attempt.deadline = deadline;
        }
    }

    pub(super) fn on_failed(&mut self, generation: Generation, failed: Failed) {
        if let Some(member) = self.members.get_mut(&generation) {
            member.error.clone_from(&failed.text);
        }
        if self.attempt_of(generation).is_none_or(|a| matches!(a.stage, Stage::Pausing(..))) {
            return;
        }
        let (verdict, fatal) = match failed.reason {
            FailReason::Config => {
                let (text, diagnostics) = (failed.text.clone(), failed.diagnostics.clone());
                (Verdict::Invalid, Some(Fatal::Config { text, diagnostics }))
            }
            FailReason::Protocol | FailReason::Internal => (Verdict::Refused, None),
        };
        self.fail_attempt(verdict, failed.text, failed.diagnostics, fatal);
    }

    /// The new generation polls: from here on it is the serving one.
    pub(super) fn take_over(&mut self, generation: Generation) {
        let old = self.serving.replace(generation);
        if let Some(earlier) = self.fallback.take() {
            self.drain(earlier);
        }
        let now = self.now;
        if let Some(member) = self.members.get_mut(&generation) {
            member.last_beat = now;
            self.wanted.clone_from(&member.keys);
            self.resources = member.resources;
        }
        self.respawn_at = None;
        self.set_state(generation, State::Serving);
        self.probation_until = Some(now.saturating_add(self.probation()));
        self.phase(Step::TookOver, String::new());
        match old {
            Some(old) => self.pause(old),
            None => self.finish_attempt(Verdict::Serving, String::new()),
        }
        // Those of a generation that died are not needed when this one has another configuration.
        self.release_unused();
    }

    /// Stops the older generation from polling; it stays able to come back.
    fn pause(&mut self, old: Generation) {
        let (now, policy) = (self.now, self.policy);
        let Some(member) = self.members.get_mut(&old) else {
            self.finish_attempt(Verdict::Serving, String::new());
            return;
        };
        let removed = member.keys.difference(&self.wanted).cloned().collect();
        let usable = member.fit(now, policy.heartbeat_timeout);
        member.cut_at = Some(now.saturating_add(policy.parent_shutdown_time));
        member.paused_at = Some(now);
        self.set_state(old, State::HandingOff);
        let command = self.command(old, Pause { removed }.into());
        if let Some(attempt) = self.attempt.as_mut() {
            attempt.stage = Stage::Pausing(old, command);
            attempt.deadline = now.saturating_add(policy.command_timeout);
        }
        if usable {
            self.fallback = Some(old);
        } else {
            self.drain(old);
        }
    }

    /// An answer to TAKE or PAUSE, if it is one.
    pub(super) fn on_attempt_answer(
        &mut self,
        generation: Generation,
        command: CommandId,
        result: &Result<(), String>,
    ) {
        let Some(attempt) = self.attempt.as_ref() else { return };
        match (attempt.stage, result) {
            (Stage::Taking(expected), Ok(()))
                if expected == command && attempt.generation == Some(generation) =>
            {
                self.take_over(generation);
            }
            (Stage::Taking(expected), Err(text)) if expected == command => {
                let text = format!("the new generation did not take over: {text}");
                self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
            }
            (Stage::Pausing(old, expected), result) if expected == command && old == generation => {
                let connections = self.members.get(&old).map_or(0, |m| m.status.connections);
                self.phase(Step::OldPaused, counted(connections, "connection").to_string());
                let text = match result {
                    Ok(()) => String::new(),
                    Err(text) => format!("generation {old} did not pause: {text}"),
                };
                self.finish_attempt(Verdict::Serving, text);
            }
            _ => {}
        }
    }

    /// The time of the current stage is over.
    pub(super) fn on_attempt_deadline(&mut self) {
        let Some(attempt) = self.attempt.as_ref() else { return };
        let seconds = |time: Time| time.as_secs();
        let text = match attempt.stage {
            Stage::Pausing(old, _) => {
                let text = format!("generation {old} did not confirm its pause");
                self.push(Action::Log(Level::Warn, text.clone()));
                self.finish_attempt(Verdict::Serving, text);
                return;
            }
            Stage::Reading => "the configuration file could not be read in time".to_owned(),
            Stage::Starting | Stage::Binding => format!(
                "the new generation did not accept its configuration within {} s",
                seconds(self.policy.start_timeout)
            ),
            Stage::Warming | Stage::Opening => format!(
                "the new generation was not ready within {} s",
                seconds(self.policy.warm_timeout)
            ),
            Stage::Taking(_) => format!(
                "the new generation did not poll its listeners within {} s",
                seconds(self.policy.take_timeout)
            ),
        };
        self.fail_attempt(Verdict::Refused, text, Vec::new(), None);
    }

    /// Ends the attempt without a switch.
    pub(super) fn fail_attempt(
        &mut self,
        verdict: Verdict,
        text: String,
        diagnostics: Vec<String>,
        fatal: Option<Fatal>,
    ) {
        let Some(mut attempt) = self.attempt.take() else { return };
        if let Some(generation) = attempt.generation {
            if let Some(member) = self.members.get_mut(&generation) {
                member.error.clone_from(&text);
            }
            self.set_state(generation, State::Failed);
            self.end(generation, Time::ZERO);
        }
        self.push(Action::Log(Level::Error, format!("no new generation: {text}")));
        if attempt.origin == Origin::First && self.stopping.is_none() {
            let fatal = fatal.unwrap_or_else(|| Fatal::FirstGeneration(text.clone()));
            self.push(Action::Finish(Err(fatal)));
        }
        attempt.warnings = diagnostics;
        self.report_attempt(&attempt, verdict, text);
        if matches!(attempt.origin, Origin::Respawn | Origin::Replace) || self.serving.is_none() {
            self.schedule_respawn();
        }
    }
}

//! Carries out what the core decided. The only file with effects on workers.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use baton_contract::{
    channel::Channel,
    control::{Answer, Report},
    exit::Exit,
    fault,
    generation::{Generation, State},
    listener_key::ListenerKey,
    message::{
        Config, Peer, PeerRole, SegmentRef, ToWorker, Welcome, WorkerSettings, thread_timeout_ms,
    },
    shm::{SegmentOwner, SlotIndex},
    task::Task,
    version,
};
use nix::sys::signal::Signal;

use crate::{
    SupervisorOptions,
    addresses::Memory,
    clock::Clock,
    config_file,
    control_socket::ControlSocket,
    door::Door,
    escrow::{self, Store},
    fd_store::FdStore,
    preflight::Preflight,
    resources,
    segment::Counters,
    silence::{Excuse, Silence},
    spawn::Program,
    state::{
        action::{Action, Fatal, Kill, Level, Recipe, Urgency},
        event::{CommandId, ConfigId, Event, ResourcesId, Time, Waiter},
    },
    systemd::{self, Manager},
    worker::{Worker, WorkerError},
};

/// Everything the actions touch.
#[derive(Debug)]
pub(crate) struct Performer {
    pub(crate) options: SupervisorOptions,
    pub(crate) clock: Clock,
    pub(crate) program: Program,
    pub(crate) store: FdStore,
    pub(crate) control: ControlSocket,
    pub(crate) door: Option<Door>,
    pub(crate) manager: Manager,
    pub(crate) segment: Option<SegmentOwner>,
    pub(crate) counters: Option<Counters>,
    pub(crate) workers: BTreeMap<Generation, Worker>,
    pub(crate) configs: BTreeMap<ConfigId, Arc<[u8]>>,
    pub(crate) escrow: Store,
    pub(crate) addresses: Memory,
    pub(crate) resources: resources::Store,
    /// Connections that wait for a generation that serves.
    pub(crate) orphans: usize,
    /// Metrics that found no room, as of the last look.
    pub(crate) overflow: u64,
    /// Dead generations whose books are settled later, at this time at the latest.
    pub(crate) late: Vec<(Generation, SlotIndex, Time)>,
    /// Events that follow from actions; they come before others.
    pub(crate) events: VecDeque<Event>,
    /// A program that is to be asked whether it could take over.
    pub(crate) check: Option<PathBuf>,
    /// A program that looks at the state.
    pub(crate) preflight: Option<Preflight>,
    /// A program to execute in place of this one, once nothing is left to do.
    pub(crate) execute: Option<PathBuf>,
    /// Listeners came or went since the service manager's descriptor store was looked after.
    pub(crate) listeners_changed: bool,
    pub(crate) finished: Option<Result<Exit, Fatal>>,
}

impl Performer {
    /// Does one thing.
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::ReadConfig => self.read_config(),
            Action::Spawn { generation, recipe } => self.spawn(generation, recipe),
            Action::Welcome {
                generation,
                recipe,
                proto,
                shm_layout,
                features,
                resources,
                urgency,
            } => {
                let gets = features.clone();
                let welcome = self.welcome(generation, recipe, proto, shm_layout, features);
                self.send(generation, &welcome, None);
                let follows = self.has_resources(resources);
                self.send_config(generation, recipe.config, urgency, follows);
                self.give_resources(generation, resources);
                self.give_addresses(generation, &gets);
            }
            Action::Bind { generation, listeners, shards, urgency } => {
                self.bind(generation, (&listeners, shards), urgency);
            }
            Action::BindMore { generation, listeners, shards } => {
                self.bind_more(generation, &listeners, shards);
            }
            Action::SendListeners { generation, keys, request } => {
                self.send_listeners(generation, &keys, request);
            }
            Action::Listen { generation, listeners } => self.listen(generation, &listeners),
            Action::Send { generation, message, command } => {
                self.send(generation, &message, command);
                fault::point_of("supervisor.sent", message.name());
            }
            Action::Introduce { from, to } => self.introduce(from, to),
            Action::Signal { generation, signal } => {
                let signal = match signal {
                    Kill::Term => Signal::SIGTERM,
                    Kill::Kill => Signal::SIGKILL,
                };
                if let Some(worker) = self.workers.get(&generation) {
                    worker.process.signal(signal);
                }
            }
            Action::Deafen(keys) => self.deafen(&keys),
            Action::Rescue { generation } => self.rescue(generation),
            // The loop does it: it needs the core.
            Action::Check { program } => self.check = Some(self.program_of(program)),
            Action::Execute { program } => self.execute = Some(self.program_of(program)),
            Action::Release(keys) => {
                self.store.release(&keys);
                self.listeners_changed = true;
            }
            Action::ReleaseAll => self.store.release_all(),
            Action::SetState { generation, state, cut_at } => {
                self.set_state(generation, state, cut_at);
            }
            Action::Retire { generation } => self.retire(generation),
            Action::Progress { waiters, phase } => self.answer_all(waiters, &Answer::Phase(phase)),
            Action::Verdict { waiters, outcome } => {
                self.answer_all(waiters, &Answer::Reloaded(outcome));
            }
            Action::Answer { waiter, answer } => self.control.answer(waiter, &answer),
            Action::Notify(notice) => systemd::tell(notice),
            Action::Log(level, text) => log(level, &text),
            Action::Finish(result) => {
                self.finished.get_or_insert(result);
            }
        }
    }

    fn answer_all(&mut self, waiters: Vec<Waiter>, answer: &Answer) {
        for waiter in waiters {
            self.control.answer(waiter, answer);
        }
    }

    fn deafen(&mut self, keys: &[ListenerKey]) {
        self.store.deafen(keys);
        self.listeners_changed = true;
    }

    fn read_config(&mut self) {
        let bytes = match &self.options.config_inline {
            Some(bytes) => Ok(bytes.clone()),
            None => config_file::read(&self.options.config_path).map_err(|e| e.to_string()),
        };
        let result = bytes.map(|bytes| {
            let id = config_file::identify(&bytes);
            let path = self.options.config_path.display();
            tracing::info!(%path, bytes = bytes.len(), hash = %id, "configuration read");
            self.configs.entry(id).or_insert_with(|| bytes.into());
            id
        });
        fault::point("supervisor.config_read");
        self.events.push_back(Event::ConfigRead(result));
    }

    fn spawn(&mut self, generation: Generation, recipe: Recipe) {
        self.restore_own_sockets();
        match Worker::start(&self.program, generation) {
            Ok(mut worker) => {
                let pid = worker.process.id();
                fault::point("supervisor.spawned");
                worker.slot = self.register(generation, recipe, pid);
                worker.config = Some(recipe.config);
                self.workers.insert(generation, worker);
                self.events.push_back(Event::Spawned { generation, pid });
            }
            Err(error) => {
                let program = self.program.path().display();
                let text = format!("cannot start a worker from `{program}`: {error}");
                self.events.push_back(Event::SpawnFailed { generation, text });
            }
        }
    }

    /// Takes a row of the segment's generation table.
    fn register(&mut self, generation: Generation, recipe: Recipe, pid: u32) -> Option<SlotIndex> {
        let segment = self.segment.as_mut()?;
        match segment.register(generation, recipe.concurrency) {
            Ok(slot) => {
                segment.set_pid(slot, pid);
                segment.set_state(slot, State::Starting);
                // The first 64 bits are enough to tell configurations apart in a table.
                let hash = u64::try_from(recipe.config.0 >> 64).unwrap_or(u64::MAX);
                segment.set_config_hash(slot, hash);
                Some(slot)
            }
            Err(error) => {
                tracing::error!(%generation, %error, "the generation gets no shared statistics");
                None
            }
        }
    }

    fn welcome(
        &self,
        generation: Generation,
        recipe: Recipe,
        proto: u16,
        shm_layout: u32,
        features: Vec<String>,
    ) -> ToWorker {
        let slot = self.workers.get(&generation).and_then(|worker| worker.slot);
        let segment = self.segment.as_ref().zip(slot);
        let options = &self.options;
        let settings = WorkerSettings {
            concurrency: recipe.concurrency,
            drain_time_ms: millis(options.drain_time),
            parent_shutdown_time_ms: millis(options.parent_shutdown_time),
            drain_strategy: options.drain_strategy,
            on_removed: options.on_removed,
            allow_unimplemented: options.allow_unimplemented,
            expand_env: options.expand_env,
            admin_allow_mutations: options.admin_allow_mutations,
            log_level: options.log_level.clone(),
            base_id: options.base_id,
            warm_timeout_ms: millis(options.warm_timeout),
            service_node: options.service_node.clone(),
            service_cluster: options.service_cluster.clone(),
            service_zone: options.service_zone.clone(),
            admin_address_path: options.admin_address_path.clone(),
            config_overlay: options.config_overlay.clone(),
            crash_escrow: options.crash_escrow,
            escrow_limit: self.escrow_limit(),
            thread_timeout_ms: thread_timeout_ms(),
            ..WorkerSettings::default()
        };
        let welcome = Welcome {
            proto,
            generation,
            features,
            segment: segment
                .filter(|_| shm_layout == version::shm_layout())
                .map(|(owner, slot)| SegmentRef { os_id: owner.os_id().to_owned(), slot: slot.0 }),
            settings: Box::new(settings),
            now_mono_ms: self.clock.mono_ms(self.clock.now()),
            started_unix_s: self.clock.started_unix_s(),
            epoch: self.segment.as_ref().map_or(0, SegmentOwner::epoch),
            reattach_at: self
                .door
                .as_ref()
                .map_or_else(String::new, |door| door.path().display().to_string()),
        };
        welcome.into()
    }

    fn send_config(
        &mut self,
        generation: Generation,
        id: ConfigId,
        urgency: Urgency,
        resources: Option<ResourcesId>,
    ) {
        let (Some(bytes), Some(worker)) =
            (self.configs.get(&id), self.workers.get_mut(&generation))
        else {
            return;
        };
        let config = Config {
            hash: id.to_string(),
            path: self.options.config_path.display().to_string(),
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            respawn: urgency == Urgency::Respawn,
            alone: urgency != Urgency::Beside,
            resources: resources.is_some(),
        };
        let result = config_file::seal(bytes)
            .map_err(WorkerError::Descriptor)
            .and_then(|fd| worker.send(&config.into(), None, vec![fd]));
        self.check(generation, result);
        fault::point("supervisor.welcomed");
    }

    pub(crate) fn send(
        &mut self,
        generation: Generation,
        message: &ToWorker,
        command: Option<CommandId>,
    ) {
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        let result = worker.send(message, command, Vec::new());
        self.check(generation, result);
    }

    /// Gives each of two workers one end of a channel. The one that takes gets its end first.
    fn introduce(&mut self, from: Generation, to: Generation) {
        let row = |generation| self.workers.get(&generation).and_then(|worker| worker.slot);
        let (Some(from_row), Some(to_row)) = (row(from), row(to)) else { return };
        let (give, take) = match Channel::pair() {
            Ok(ends) => ends,
            Err(error) => {
                tracing::error!(%from, %to, %error, "connections cannot move");
                return;
            }
        };
        let takes = Peer { generation: from, slot: from_row.0, role: PeerRole::Import };
        let gives = Peer { generation: to, slot: to_row.0, role: PeerRole::Export };
        for (generation, peer, end) in [(to, takes, take), (from, gives, give)] {
            let Some(worker) = self.workers.get_mut(&generation) else { return };
            let result = worker.send(&peer.into(), None, vec![end.into()]);
            self.check(generation, result);
            fault::point("supervisor.introducing");
        }
    }

    /// A worker that cannot be reached has no channel any more.
    pub(crate) fn check(&mut self, generation: Generation, result: Result<(), WorkerError>) {
        let Err(error) = result else { return };
        let error: &dyn std::error::Error = &error;
        tracing::warn!(%generation, error, "a worker cannot be reached");
        if let Some(worker) = self.workers.get_mut(&generation) {
            worker.close(&mut self.events);
        }
    }

    /// Says so when statistics find no room any more.
    fn watch_overflow(&mut self) {
        let now = self.segment.as_ref().map_or(0, SegmentOwner::overflow);
        let before = std::mem::replace(&mut self.overflow, now);
        if now > before {
            tracing::warn!(
                metrics = now,
                "statistics are degraded: they find no room in shared memory; is /dev/shm full?"
            );
        }
    }

    fn set_state(&mut self, generation: Generation, state: State, cut_at: Option<Time>) {
        tracing::info!(%generation, state = state.as_str(), "generation");
        if state == State::Serving {
            self.addresses.serves(generation);
        }
        let slot = self.workers.get(&generation).and_then(|worker| worker.slot);
        let (Some(segment), Some(slot)) = (&self.segment, slot) else { return };
        segment.set_state(slot, state);
        segment.set_drain_deadline(slot, cut_at.map_or(0, |at| self.clock.mono_ms(at)));
    }

    /// How many connections there may be in escrow.
    fn escrow_limit(&self) -> u32 {
        let room = self.segment.as_ref().map_or(0, SegmentOwner::escrow_room);
        room.min(escrow::limit())
    }

    /// Gives connections of dead generations to one that serves, as many as its channel takes at
    /// once. The rest follows when it is writable again.
    pub(crate) fn give_orphans(&mut self, adopter: Option<Generation>) {
        if self.orphans == 0 {
            return;
        }
        let now = self.clock.now();
        let path = self.options.config_path.display().to_string();
        let Some(adopter) = adopter else { return };
        while let (Some(segment), Some(worker)) = (&self.segment, self.workers.get_mut(&adopter)) {
            let Some(slot) = worker.slot.filter(|_| worker.is_idle()) else { return };
            let batch = match self.escrow.batch(segment, slot, &path, now) {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    self.orphans = 0;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "connections of a dead generation have to wait");
                    return;
                }
            };
            let count = batch.message.connections.len();
            self.orphans = self.orphans.saturating_sub(count);
            tracing::info!(generation = %adopter, connections = count, "adopts");
            fault::point("supervisor.adopting");
            let bytes = self.configs.get(&batch.config).cloned().unwrap_or_default();
            let result =
                config_file::seal(&bytes).map_err(WorkerError::Descriptor).and_then(|config| {
                    let fds = std::iter::once(config).chain(batch.descriptors).collect();
                    worker.send(&batch.message.into(), None, fds)
                });
            self.check(adopter, result);
        }
    }

    /// Signs of life in the segment since the last look, and excuses for those that are missing.
    pub(crate) fn beats(&mut self) {
        self.settle_late();
        self.watch_overflow();
        let Some(segment) = &self.segment else { return };
        let now = self.clock.now();
        for (generation, worker) in &mut self.workers {
            let Some(slot) = worker.slot else { continue };
            let generation = *generation;
            let beat = segment.heartbeat_of(slot);
            let main = worker.process.id();
            if beat > worker.last_beat_ms {
                worker.last_beat_ms = beat;
                worker.silence = Silence::default();
                self.events.push_back(Event::Beat { generation });
                continue;
            }
            match worker.silence.excuse(now, || Task::look(main, main)) {
                Excuse::None => continue,
                Excuse::News => tracing::warn!(%generation, "a worker waits for a processor"),
                Excuse::Known => {}
            }
            self.events.push_back(Event::Beat { generation });
        }
    }

    /// Forgets configurations nobody can be started from any more.
    pub(crate) fn keep_configs(&mut self, used: &BTreeSet<ConfigId>) {
        let in_escrow = self.escrow.configs();
        self.configs.retain(|id, _| used.contains(id) || in_escrow.contains(id));
    }

    /// Keeps the descriptor store of the service manager as the listeners are. Not before a
    /// generation serves: until then an older one may be needed again. Not when all are closed at
    /// the end either, because then the store keeps their queues for the next start.
    pub(crate) fn keep_stored(&mut self, serving: bool) {
        if !serving || !std::mem::take(&mut self.listeners_changed) {
            return;
        }
        for name in self.store.close_unused() {
            systemd::forget(&name);
        }
        self.manager.store(&self.store.for_later());
    }

    /// Adds what only this side knows.
    pub(crate) fn complete(&self, mut report: Report) -> Report {
        report.pid = std::process::id();
        report.base_id = self.options.base_id;
        env!("CARGO_PKG_VERSION").clone_into(&mut report.build_id);
        report.config_path = self.options.config_path.display().to_string();
        report.segment = self.segment.as_ref().map_or_else(String::new, |s| s.os_id().to_owned());
        report.stats_overflow = self.segment.as_ref().map_or(0, SegmentOwner::overflow);
        report
    }
}

/// A duration as the protocol has it.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn log(level: Level, text: &str) {
    match level {
        Level::Info => tracing::info!("{text}"),
        Level::Warn => tracing::warn!("{text}"),
        Level::Error => tracing::error!("{text}"),
    }
}

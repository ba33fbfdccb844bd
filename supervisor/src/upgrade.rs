//! What of this supervisor goes to the program that is executed in its place: the list of all parts.

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use baton_contract::{
    control::path,
    shm::{SegmentOwner, Totals},
};
use serde::{Deserialize, Serialize};

use crate::{
    SupervisorError, SupervisorOptions,
    addresses::{self, Memory},
    clock::Clock,
    config_file,
    control_socket::{ControlSocket, ControlState},
    door::Door,
    escrow::{Packed, Store},
    estate,
    fd_store::{FdStore, StoreState},
    perform::Performer,
    preflight::{Flight, Preflight},
    proof::{Ask, Proof},
    reexec::{Baggage, BaggageError},
    resources,
    segment::Counters,
    spawn::Program,
    state::{
        Supervisor,
        event::{ConfigId, Event},
    },
    systemd::Manager,
    worker::{Worker, WorkerState},
};

/// Where the statistics are.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct SegmentState {
    os_id: String,
    epoch: u64,
}

/// Everything but descriptors.
#[derive(Debug, Default)]
struct Parts {
    core: Supervisor,
    clock: (u64, u64),
    segment: SegmentState,
    control: ControlState,
    store: StoreState,
    workers: Vec<WorkerState>,
    configs: Vec<ConfigId>,
    escrow: Packed,
    addresses: addresses::Packed,
    resources: resources::Packed,
    statistics: Totals,
    base_id: Option<u32>,
}

impl Parts {
    fn take(baggage: &mut Baggage) -> Result<Self, BaggageError> {
        Ok(Self {
            core: baggage.take("core")?,
            clock: baggage.take("clock")?,
            segment: baggage.take("segment")?,
            control: baggage.take("control")?,
            store: baggage.take("store")?,
            workers: baggage.take("workers")?,
            configs: baggage.take("configs")?,
            escrow: baggage.take("escrow")?,
            addresses: baggage.take("addresses")?,
            resources: baggage.take("resources")?,
            statistics: baggage.take("statistics")?,
            base_id: baggage.take("base_id")?,
        })
    }
}

/// Whether this program could go on from the state in `file`: a line about it, and the proof, which
/// is to be given once everything else was checked.
///
/// # Errors
/// When it could not.
pub fn check_state(file: OwnedFd) -> Result<(String, Proof), SupervisorError> {
    let unusable = |error: BaggageError| SupervisorError::State { source: error.into() };
    let (mut baggage, proof) = Baggage::from_file(file).map_err(unusable)?;
    let parts = Parts::take(&mut baggage).map_err(unusable)?;
    Ok((parts.core.summary(), proof))
}

/// Everything up to the point where the state would be taken, and the proof of it.
///
/// # Errors
/// When this program would not get there.
pub(crate) fn rehearse(mut baggage: Baggage, proof: Proof) -> Result<(), SupervisorError> {
    let parts = Parts::take(&mut baggage);
    parts.map_err(|error| SupervisorError::State { source: error.into() })?;
    let system = |source| SupervisorError::System { what: "answer the supervisor", source };
    proof.give().map_err(system)
}

/// Puts everything into the baggage. Another store adds its own lines here and in [`unpack`].
pub(crate) fn pack(core: &Supervisor, performer: &Performer) -> Result<Baggage, BaggageError> {
    let mut baggage = Baggage::default();
    baggage.put("core", core)?;
    baggage.put("clock", &performer.clock.started())?;
    baggage.put("base_id", &performer.options.base_id)?;
    if let Some(segment) = &performer.segment {
        let (os_id, epoch) = (segment.os_id().to_owned(), segment.epoch());
        baggage.put("segment", &SegmentState { os_id, epoch })?;
        match segment.totals() {
            Ok(totals) => baggage.put("statistics", &totals)?,
            Err(error) => tracing::warn!(%error, "a program with another layout counts anew"),
        }
    }
    performer.control.pack(&mut baggage)?;
    if let Some(door) = &performer.door {
        baggage.put_fd("door".to_owned(), door.listener())?;
    }
    performer.store.pack(&mut baggage)?;
    let mut workers = Vec::new();
    for worker in performer.workers.values() {
        workers.push(worker.pack(&mut baggage)?);
    }
    baggage.put("workers", &workers)?;
    let configs: Vec<ConfigId> = performer.configs.keys().copied().collect();
    baggage.put("configs", &configs)?;
    for (id, bytes) in &performer.configs {
        let file = config_file::seal(bytes).map_err(BaggageError::Write)?;
        baggage.put_fd(format!("config.{id}"), std::os::fd::AsFd::as_fd(&file))?;
    }
    performer.escrow.pack(&mut baggage)?;
    baggage.put("addresses", &performer.addresses.pack())?;
    performer.resources.pack(&mut baggage)?;
    Ok(baggage)
}

/// Makes a supervisor of what an older program left.
pub(crate) fn unpack(
    mut baggage: Baggage,
    mut options: SupervisorOptions,
    program: Program,
) -> Result<(Supervisor, Performer), BaggageError> {
    let parts = Parts::take(&mut baggage)?;
    if let Some(base_id) = parts.base_id.filter(|_| options.dynamic_base_id) {
        options.base_id = base_id;
    }
    let clock = Clock::resume(parts.clock);
    let socket = path::for_supervisor(
        options.control_socket.as_deref(),
        options.base_id,
        &path::Surroundings::of_this_process(),
    );
    let control = ControlSocket::unpack(parts.control, &mut baggage, socket)?;
    let door = baggage.take_fd("door").ok();
    let door = door.map(|listener| Door::reopen(listener, control.path()));
    let store = FdStore::unpack(parts.store, &mut baggage, program.path().clone())?;
    let mut segment = reopen_segment(&parts.segment, options.base_id, control.path(), &clock);
    if let Some(segment) = segment.as_mut().filter(|s| s.os_id() != parts.segment.os_id)
        && let Err(error) = segment.begin_with(parts.statistics)
    {
        tracing::error!(%error, "some statistics begin anew");
    }
    let same_segment = segment.as_ref().is_some_and(|s| s.os_id() == parts.segment.os_id);
    let mut workers = BTreeMap::new();
    for state in parts.workers {
        let mut worker = Worker::unpack(state, &mut baggage)?;
        if !same_segment {
            worker.slot = None;
        }
        workers.insert(worker.generation(), worker);
    }
    let mut configs = BTreeMap::new();
    for id in parts.configs {
        let bytes = config_file::read_sealed(baggage.take_fd(&format!("config.{id}"))?);
        configs.insert(id, Arc::from(bytes.map_err(BaggageError::Read)?));
    }
    let escrow = Store::unpack(parts.escrow, &mut baggage);
    let orphans = segment.as_ref().map_or(0, |segment| escrow.orphans(segment));
    let performer = Performer {
        store,
        escrow,
        addresses: Memory::unpack(parts.addresses),
        resources: resources::Store::unpack(parts.resources, &mut baggage)?,
        orphans,
        clock,
        program,
        control,
        door,
        manager: Manager::new(),
        counters: segment.as_mut().map(Counters::new),
        segment,
        workers,
        configs,
        events: VecDeque::from([Event::Executed]),
        check: None,
        preflight: None,
        execute: None,
        listeners_changed: true,
        overflow: 0,
        late: Vec::new(),
        finished: None,
        options,
    };
    Ok((parts.core, performer))
}

/// The segment this process had, or a new one when this program knows another layout. Workers of
/// older generations keep theirs, and what they count from now on is seen by them alone.
fn reopen_segment(
    state: &SegmentState,
    base_id: u32,
    control_socket: &Path,
    clock: &Clock,
) -> Option<SegmentOwner> {
    match SegmentOwner::reopen(&state.os_id, state.epoch) {
        Ok(segment) => Some(segment),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a new segment goes on from the numbers so far");
            if !state.os_id.is_empty() {
                SegmentOwner::unlink(&state.os_id);
            }
            estate::create(base_id, control_socket, clock)
        }
    }
}

impl Performer {
    /// Asks a program whether it could take over.
    pub(crate) fn check_program(&mut self, core: &Supervisor, path: &Path) {
        let deadline = self.clock.now().saturating_add(self.options.start_timeout);
        let questions = pack(core, self).and_then(|baggage| {
            Ok((baggage.question(Ask::Look)?, baggage.question(Ask::Rehearse)?))
        });
        let started = match questions {
            Ok((look, rehearse)) => {
                let words = self.options.check_arguments.clone();
                let flight = Flight { program: path.to_owned(), words, summary: core.summary() };
                Preflight::start(flight, look, rehearse, deadline)
                    .map_err(|error| format!("cannot execute `{}`: {error}", path.display()))
            }
            Err(error) => Err(error.to_string()),
        };
        match started {
            Ok(preflight) => self.preflight = Some(preflight),
            Err(text) => self.events.push_back(Event::Checked(Err(text))),
        }
    }

    /// The answer of a program that was asked.
    pub(crate) fn hear_program(&mut self) {
        let now = self.clock.now();
        if let Some(answer) = self.preflight.as_mut().and_then(|preflight| preflight.answer(now)) {
            self.preflight = None;
            self.events.push_back(Event::Checked(answer));
        }
    }

    /// The program of an upgrade.
    pub(crate) fn program_of(&self, program: Option<PathBuf>) -> PathBuf {
        program.unwrap_or_else(|| self.program.path().clone())
    }
}

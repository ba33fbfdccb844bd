//! From HELLO to READY. A worker that fails here has harmed nothing: it polled nothing, and the
//! running generation was not told anything.

mod gather;
pub(super) mod names;
mod places;

use std::{cell::Cell, fs::File, os::fd::OwnedFd, path::PathBuf, rc::Rc, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use baton_contract::{
    exit::Exit,
    listener_key::ListenerSpec,
    memfd,
    message::{
        Config, DrainStrategy, FailReason, Failed, Hello, MAX_RESOLVED_NAMES, NeedListeners, Ready,
        Resolved, ToWorker, Welcome, WorkerSettings,
    },
    shm::{self, SegmentOwner, SegmentWorker, SlotIndex, ThreadSlab},
    version::{FEATURES, ProtoRange, shm_layout},
};

pub(super) use self::places::{Places, specs_of};
use self::{
    gather::{first_edition, first_update, gather},
    places::specs,
};
use super::{
    LogControl, WorkerOptions,
    escrow::Batches,
    limits::Room,
    resources::{Resources, view},
    running::Running,
    service,
    threads::{Gates, OwnGate, Shard, Threads},
};
use crate::{
    access_log::LogWriter,
    admin::resources::View,
    clock,
    cluster::ClusterManager,
    config::{
        diagnostics::Diagnostic,
        load::{LoadOptions, Loaded, Source, load},
        model::Bootstrap,
    },
    drain::DrainHandle,
    escrow::Desk,
    handoff::{Link, LinkError, Received},
    listener::{
        limit::{Capacity, Gate},
        table::ListenerTable,
    },
    migrate::ConfigSource,
    stats::{ServerStats, ThreadStats},
    sys::{fault, heap},
};

/// Listeners in one `NEED_LISTENERS` message of at most 64 KiB; each needs less than 500 bytes.
const LISTENERS_PER_MESSAGE: usize = 100;
/// Largest configuration, bytes.
const CONFIG_MAX: u64 = 64 * 1024 * 1024;

/// Why the worker did not get ready.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The channel failed.
    #[error("the handoff channel failed")]
    Link(#[from] LinkError),
    /// The supervisor went away or said STOP.
    #[error("told to stop before it was ready")]
    Stopped,
    /// Something the supervisor is told.
    #[error("{}", .0.text)]
    Failed(Failed),
}

impl StartError {
    fn internal(text: impl AsRef<str>) -> Self {
        Self::Failed(Failed::new(FailReason::Internal, text.as_ref(), []))
    }
}

/// Gets ready to serve; reports a failure to the supervisor.
///
/// # Errors
/// How the process ends when it cannot.
pub(super) async fn start(options: WorkerOptions) -> Result<Running, Exit> {
    let generation = options.generation;
    let mut link = Link::new(options.channel, generation).map_err(|error| {
        tracing::error!(%error, "cannot use the handoff channel");
        Exit::Internal
    })?;
    let error = match prepare(&mut link, &options.log).await {
        Ok(prepared) => return Ok(Running::new(link, prepared)),
        Err(error) => error,
    };
    let StartError::Failed(failed) = error else {
        tracing::info!(%generation, reason = %error, "not started");
        return Err(Exit::Internal);
    };
    let exit = match failed.reason {
        FailReason::Config => Exit::Config,
        FailReason::Protocol | FailReason::Internal => Exit::Internal,
    };
    if let Err(error) = tell(&mut link, failed).await {
        tracing::error!(%error, "cannot report the failure to the supervisor");
    }
    Err(exit)
}

async fn tell(link: &mut Link, failed: Failed) -> Result<(), LinkError> {
    link.send(failed)?;
    link.drain().await
}

/// A worker that is ready, before it enters its loop.
pub(super) struct Prepared {
    pub welcome: Welcome,
    pub config_path: String,
    /// The configuration as it was handed over, for the next supervisor.
    pub config: Config,
    pub specs: Vec<ListenerSpec>,
    /// All sockets, those of the admin interface too.
    pub sockets: Vec<Shard>,
    pub source: Arc<ConfigSource>,
    /// The same with the resources that were accepted since.
    pub edition: Arc<ConfigSource>,
    /// Hash of that, for whoever takes connections over.
    pub newest: Rc<Cell<u128>>,
    pub resources: Resources,
    pub listeners: ListenerTable,
    /// What the admin interface shows of them.
    pub shown: Arc<ArcSwap<View>>,
    pub started: Instant,
    pub bootstrap: Arc<Bootstrap>,
    pub clusters: Arc<ClusterManager>,
    pub log: Arc<dyn LogControl>,
    pub log_writer: Arc<LogWriter>,
    /// What this generation shares with others.
    pub segment: Option<Arc<SegmentWorker>>,
    /// The same, or in its place the statistics of this generation alone.
    pub counted: Option<Arc<SegmentWorker>>,
    pub stats: ThreadStats,
    pub server_stats: ServerStats,
    pub drain: DrainHandle,
    /// Where connections are put that outlive this process, and what of it the supervisor is told.
    pub escrow: (Desk, Batches),
    pub gates: Gates,
    pub room: Room,
    pub threads: Threads,
    pub places: Places,
    pub admin_shards: Vec<Arc<OwnedFd>>,
}

async fn prepare(link: &mut Link, log: &Arc<dyn LogControl>) -> Result<Prepared, StartError> {
    fault::point("hello");
    let started = clock::now();
    let welcome = greet(link).await?;
    let settings = welcome.settings.clone();
    set_levels(log.as_ref(), &settings.log_level);
    fault::point("config");
    let ((config, source), loaded) = configure(link, &settings).await?;
    let mut resources = gather(link, &loaded.bootstrap, (&config, &source), &settings).await?;
    fault::point("listeners");
    let bootstrap = resources.begin_with();
    let places = Places::of(&bootstrap)?;
    let specs = specs(&bootstrap, &places, &settings)?;
    let (shards, known) = ask_for_listeners(link, &places, &specs).await?;
    let (counted, slabs, main_slab) = open_segment(&welcome)?;
    let segment = counted.clone().filter(|_| welcome.segment.is_some());
    let stats = ThreadStats::new(main_slab);
    let clusters = resources.start_clusters(&bootstrap);
    clusters.inherit(&known);
    let room = Room::of_this_process(shards.len(), &settings);
    room.check().map_err(StartError::internal)?;
    room.apply(&stats);
    let gates = gates(&bootstrap, room, &settings);
    let drain = DrainHandle::new(clock::now());
    let log_writer = LogWriter::new();
    let (escrow, batches) = open_escrow(&settings, segment.as_ref());
    let edition = first_edition(&mut resources, &source)?;
    let make = service::maker(&bootstrap, &clusters, &drain, &log_writer, &edition, &escrow)
        .map_err(|error| StartError::internal(chain(&error)))?;
    let threads = Threads::start(slabs, &gates, &make);
    let threads = threads.map_err(|error| StartError::internal(chain(&error)))?;
    let sockets = shards.clone();
    let (admin, traffic) = places.part(shards);
    threads.add(&traffic);
    // They take it up before anything that is told them later.
    drop(threads.update(&first_update(&mut resources, &edition)));
    fault::point("warm");
    let resolved = names::warm(link, &clusters, (&welcome, config.alone)).await?;
    fault::point("ready");
    let warnings = resolved.warnings.into_iter().chain(told(&loaded, room.warning(&bootstrap)));
    link.send(Ready::new(warnings, resolved.missing))?;
    Ok(Prepared {
        server_stats: ServerStats::new(&stats),
        listeners: ListenerTable::new(&bootstrap.listeners),
        shown: Arc::new(ArcSwap::new(view(&resources))),
        newest: Rc::new(Cell::new(edition.hash)),
        resources,
        edition,
        admin_shards: admin.into_iter().map(|shard| shard.socket).collect(),
        log: Arc::clone(log),
        config_path: source.path.clone(),
        config,
        specs,
        sockets,
        source,
        started,
        welcome,
        bootstrap,
        clusters,
        log_writer,
        segment,
        counted,
        stats,
        drain,
        escrow: (escrow, batches),
        gates,
        room,
        threads,
        places,
    })
}

/// The warnings of a configuration, and one more.
fn told(loaded: &Loaded, another: Option<String>) -> impl Iterator<Item = String> {
    loaded.warnings.iter().map(ToString::to_string).chain(another)
}

fn set_levels(log: &dyn LogControl, levels: &str) {
    for entry in levels.split(',') {
        let set = match entry.split_once(':') {
            Some((component, level)) => log.set(Some(component), level),
            None => log.set(None, entry),
        };
        if let Err(error) = set {
            tracing::warn!(%error, level = entry, "log level ignored");
        }
    }
}

fn open_escrow(settings: &WorkerSettings, segment: Option<&Arc<SegmentWorker>>) -> (Desk, Batches) {
    let (errands, receiver) = tokio::sync::mpsc::unbounded_channel();
    let desk = segment
        .map(|segment| Desk::open(settings.crash_escrow, settings.escrow_limit, segment, errands));
    (desk.unwrap_or_default(), Batches::new(receiver, segment.cloned()))
}

/// The limits of the configuration, and that of the descriptors of this process.
fn gates(bootstrap: &Bootstrap, room: Room, settings: &WorkerSettings) -> Gates {
    let shared = settings.drain_strategy == DrainStrategy::Migrate;
    let capacity = Capacity { own: room.connections(), shared };
    Gates {
        global: Gate::global(bootstrap.max_connections, capacity),
        listeners: bootstrap.listeners.iter().map(|it| OwnGate::of(it)).enumerate().collect(),
    }
}

async fn greet(link: &mut Link) -> Result<Welcome, StartError> {
    link.send(Hello {
        proto: ProtoRange::ours(),
        shm_layout: shm_layout(),
        build_id: env!("CARGO_PKG_VERSION").to_owned(),
        features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
        pid: std::process::id(),
    })?;
    loop {
        let received = next(link).await?;
        if let ToWorker::Welcome(welcome) = received.message {
            return Ok(welcome);
        }
        link.nack(received.seq, "WELCOME comes first")?;
    }
}

/// Reads the configuration that comes with CONFIG.
async fn configure(
    link: &mut Link,
    settings: &WorkerSettings,
) -> Result<((Config, Arc<ConfigSource>), Loaded), StartError> {
    let (config, file) = loop {
        let mut received = next(link).await?;
        match (received.message, received.fds.pop()) {
            (ToWorker::Config(config), Some(file)) => break (config, file),
            _ => link.nack(received.seq, "CONFIG with a descriptor comes after WELCOME")?,
        }
    };
    let file = File::from(file);
    let bytes = memfd::read(&file, CONFIG_MAX).map_err(|error| {
        StartError::internal(format!("cannot read the configuration that was handed over: {error}"))
    })?;
    let mut loaded = parse(&config, bytes, settings)?;
    // Reading a configuration takes several times the memory of what is left of it.
    heap::trim();
    let bootstrap = Arc::make_mut(&mut loaded.bootstrap);
    if !settings.service_node.is_empty() {
        bootstrap.node.id.clone_from(&settings.service_node);
    }
    if !settings.service_cluster.is_empty() {
        bootstrap.node.cluster.clone_from(&settings.service_cluster);
    }
    if !settings.service_zone.is_empty() {
        bootstrap.node.zone.clone_from(&settings.service_zone);
    }
    let hash = u128::from_str_radix(&config.hash, 16).unwrap_or(0);
    let path = config.path.clone();
    let source = ConfigSource { hash, file_hash: hash, edition: 0, path, file: file.into() };
    Ok(((config, Arc::new(source)), loaded))
}

/// How the command line wants configurations to be read.
pub(super) fn load_options(settings: &WorkerSettings) -> LoadOptions {
    LoadOptions {
        allow_unimplemented: settings.allow_unimplemented,
        expand_env: settings.expand_env,
        overlay: Some(settings.config_overlay.clone()).filter(|text| !text.is_empty()),
        ..crate::extension::load_options()
    }
}

fn parse(config: &Config, bytes: Vec<u8>, settings: &WorkerSettings) -> Result<Loaded, StartError> {
    let options = load_options(settings);
    let source = Source { path: PathBuf::from(&config.path), bytes };
    load(&source, &options).map_err(|list| {
        let errors = list.iter().filter(|diagnostic| diagnostic.is_error());
        let first = errors.clone().next().map(Diagnostic::to_string).unwrap_or_default();
        let first = first.lines().next().unwrap_or_default();
        let text = match errors.count() {
            0 | 1 => first.to_owned(),
            count => format!("{first} (and {} more)", count - 1),
        };
        StartError::Failed(Failed::new(
            FailReason::Config,
            &text,
            list.iter().map(ToString::to_string),
        ))
    })
}

async fn ask_for_listeners(
    link: &mut Link,
    places: &Places,
    specs: &[ListenerSpec],
) -> Result<(Vec<Shard>, Vec<Resolved>), StartError> {
    let chunks: Vec<_> = specs.chunks(LISTENERS_PER_MESSAGE).collect();
    for (at, chunk) in chunks.iter().enumerate() {
        let last = at + 1 == chunks.len();
        link.send(NeedListeners { listeners: chunk.to_vec(), last, request: 0 })?;
    }
    if chunks.is_empty() {
        link.send(NeedListeners { listeners: Vec::new(), last: true, request: 0 })?;
    }
    let (mut shards, mut known) = (Vec::new(), Vec::new());
    loop {
        let received = next(link).await?;
        if let ToWorker::Addresses(told) = received.message {
            known.extend(told.answers);
            known.truncate(MAX_RESOLVED_NAMES);
            continue;
        }
        let ToWorker::Listeners(listeners) = received.message else {
            link.nack(received.seq, "LISTENERS comes after NEED_LISTENERS")?;
            continue;
        };
        let named = listeners.manifest.into_iter().zip(received.fds);
        shards.extend(named.filter_map(|(shard, socket)| places.shard(shard, socket)));
        if listeners.last {
            break;
        }
    }
    if let Some(missing) =
        specs.iter().find(|spec| !shards.iter().any(|shard| shard.key == spec.key))
    {
        let key = &missing.key;
        return Err(StartError::internal(format!("the supervisor gave no socket for `{key}`")));
    }
    Ok((shards, known))
}

/// The segment in which this generation counts, slabs of the threads, and that of the main thread.
type Slabs = (Option<Arc<SegmentWorker>>, Vec<ThreadSlab>, ThreadSlab);

/// The statistics of the threads and of the main thread; without shared memory they are those of this
/// generation alone.
fn open_segment(welcome: &Welcome) -> Result<Slabs, StartError> {
    let threads = welcome.settings.concurrency.max(1);
    let worker = if let Some(segment) = &welcome.segment {
        SegmentWorker::open(&segment.os_id, SlotIndex(segment.slot))
            .map_err(|error| no_statistics(&error))?
    } else {
        let base_id = welcome.settings.base_id;
        match SegmentOwner::private(base_id, welcome.generation, threads) {
            Ok(worker) => worker,
            Err(error) => {
                tracing::error!(error = %chain(&error), "no statistics");
                let slabs = (0..threads).map(|_| ThreadSlab::detached()).collect();
                return Ok((None, slabs, ThreadSlab::detached()));
            }
        }
    };
    let slabs = (0..threads).map(|index| worker.thread(index)).collect::<Result<_, _>>();
    let main = worker.main_thread().map_err(|error| no_statistics(&error))?;
    Ok((Some(worker), slabs.map_err(|error| no_statistics(&error))?, main))
}

fn no_statistics(error: &shm::SegmentError) -> StartError {
    let text = format!("cannot use the statistics segment: {}", chain(error));
    StartError::Failed(Failed::new(FailReason::Protocol, &text, []))
}

/// The next message; STOP and the end of the supervisor end the start.
pub(super) async fn next(link: &mut Link) -> Result<Received, StartError> {
    let received = link.recv().await?.ok_or(StartError::Stopped)?;
    if matches!(received.message, ToWorker::Stop(_)) {
        return Err(StartError::Stopped);
    }
    Ok(received)
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

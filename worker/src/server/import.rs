//! Takes connections over: lets a thread look at each offer of another generation, answers, and
//! starts what this generation owns. Runs as a task of the main thread, one for each generation
//! that gives its connections away.

use std::{
    cell::Cell,
    collections::{HashMap, hash_map},
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use baton_contract::{
    generation::Generation,
    memfd,
    message::OnRemoved,
    peer::{MAX_RECORD, Message, Stay},
    record::Reader,
    shm::{SegmentWorker, Ticket},
};
use tokio::sync::mpsc;

use super::{
    crew::{Crew, Import, Reply},
    startup::{Prepared, load_options},
};
use crate::{
    clock,
    cluster::ClusterManager,
    config::{
        bundle,
        load::{LoadOptions, Source},
        model::Bootstrap,
    },
    handoff::peer::PeerLink,
    listener::limit::Gate,
    migrate::{Common, ConfigSource, kind},
    sys::fault,
};

/// After this time without COMMIT the new generation asks shared memory, and takes the connection
/// if the old one has not taken it back: an old one that was stopped in the middle does not hold
/// its clients up.
const DECIDE_AFTER: Duration = Duration::from_millis(500);
/// How often late ones are looked for.
const TICK: Duration = Duration::from_millis(50);
/// Offers under way at once, at most; more are refused.
const ARRIVALS_MAX: usize = 8192;
/// Configurations of older generations known at once, at most.
const CONFIGS_MAX: usize = 64;
/// Largest configuration, bytes.
const CONFIG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The configuration of another generation.
#[derive(Debug)]
pub(super) struct PinnedConfig {
    pub source: Arc<ConfigSource>,
    pub bootstrap: Arc<Bootstrap>,
    pub clusters: Arc<ClusterManager>,
}

/// What it takes to go on with connections of other generations.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub segment: Arc<SegmentWorker>,
    pub crew: Crew,
    pub own: Generation,
    /// Hash of this generation's configuration as it is now.
    pub newest: Rc<Cell<u128>>,
    /// Hash of the configuration file alone.
    pub file_hash: u128,
    pub options: LoadOptions,
    /// Of all its connections.
    pub gate: Arc<Gate>,
    pub on_removed: OnRemoved,
}

impl Ground {
    /// That of this process; `None` without shared memory.
    pub(super) fn of(it: &Prepared) -> Option<Self> {
        let settings = &it.welcome.settings;
        Some(Self {
            segment: Arc::clone(it.segment.as_ref()?),
            crew: it.threads.crew(),
            own: it.welcome.generation,
            newest: Rc::clone(&it.newest),
            file_hash: it.source.hash,
            options: load_options(settings),
            gate: Arc::clone(&it.gates.global),
            on_removed: settings.on_removed,
        })
    }
}

/// An offer under way.
#[derive(Debug)]
struct Arrival {
    thread: usize,
    /// Since when it could be taken over; `None` = its thread has not looked at it yet.
    accepted: Option<Instant>,
}

struct Importer {
    ground: Ground,
    link: Option<PeerLink>,
    from: Generation,
    replies: mpsc::UnboundedSender<Reply>,
    arrivals: HashMap<Ticket, Arrival>,
    /// `None` = it cannot be used here.
    configs: HashMap<u128, Option<Arc<PinnedConfig>>>,
    next_thread: usize,
}

/// Runs until the other generation is gone and nothing is open any more.
pub(super) async fn run(ground: Ground, end: OwnedFd, from: Generation) {
    let link = match PeerLink::new(end, ground.own) {
        Ok(link) => link,
        Err(error) => {
            tracing::error!(%error, "connections cannot be taken over");
            return;
        }
    };
    let (replies, mut replied) = mpsc::unbounded_channel();
    let mut importer = Importer {
        ground,
        link: Some(link),
        from,
        replies,
        arrivals: HashMap::new(),
        configs: HashMap::new(),
        next_thread: 0,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while importer.link.is_some() || !importer.arrivals.is_empty() {
        tokio::select! {
            biased;
            Some((ticket, reply)) = replied.recv() => {
                let mut accepted = Vec::new();
                importer.on_reply(ticket, reply, &mut accepted);
                while let Ok((ticket, reply)) = replied.try_recv() {
                    importer.on_reply(ticket, reply, &mut accepted);
                }
                importer.accept(accepted);
            }
            received = receive(&mut importer.link) => match received {
                Some((message, fds)) => importer.on_message(message, fds).await,
                None => importer.lose(),
            },
            _ = tick.tick(), if !importer.arrivals.is_empty() => importer.overdue(clock::now()),
        }
    }
}

async fn receive(link: &mut Option<PeerLink>) -> Option<(Message, Vec<OwnedFd>)> {
    let Some(link) = link else { return std::future::pending().await };
    match link.recv().await {
        Ok(received) => received,
        Err(error) => {
            tracing::warn!(%error, "the channel to the other generation failed");
            None
        }
    }
}

impl Importer {
    async fn on_message(&mut self, message: Message, fds: Vec<OwnedFd>) {
        match message {
            Message::Config { hash, path } => self.learn(hash, path, fds).await,
            Message::Offer { ticket, record } => {
                fault::point("migrate.new.offered");
                if let Err(why) = self.consider(ticket, record, fds) {
                    self.say(&Message::Reject(ticket, why));
                }
            }
            Message::Commit(tickets) => {
                fault::point("migrate.new.committed");
                for ticket in tickets {
                    self.resolve(ticket);
                }
            }
            Message::Withdraw(tickets) => {
                for ticket in tickets {
                    self.resolve(ticket);
                }
            }
            Message::Accept(_) | Message::Reject(..) => {
                tracing::warn!(from = %self.from, "a message that makes no sense here");
            }
        }
    }

    /// Reads a configuration that offers may name.
    async fn learn(&mut self, hash: u128, path: String, mut fds: Vec<OwnedFd>) {
        if hash == self.ground.newest.get() || self.configs.len() >= CONFIGS_MAX {
            return;
        }
        let hash_map::Entry::Vacant(entry) = self.configs.entry(hash) else { return };
        let Some(file) = fds.pop() else { return };
        let options = self.ground.options.clone();
        let parsed = tokio::task::spawn_blocking(move || pin(hash, path, file, &options)).await;
        let pinned = match parsed {
            Ok(Ok(pinned)) => Some(Arc::new(pinned)),
            Ok(Err(error)) => {
                tracing::warn!(from = %self.from, %error, "its configuration cannot be used here");
                None
            }
            Err(error) => {
                tracing::error!(from = %self.from, %error, "reading its configuration failed");
                None
            }
        };
        entry.insert(pinned);
    }

    /// Gives an offer to a thread.
    fn consider(
        &mut self,
        ticket: Ticket,
        record: Option<Vec<u8>>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), Stay> {
        let under_way = self.arrivals.len();
        if under_way >= ARRIVALS_MAX || !self.ground.gate.has_room_for(1 + under_way as u64) {
            return Err(Stay::Overload);
        }
        let record = match record {
            Some(record) => record,
            None => {
                let file = fds.pop().ok_or(Stay::Malformed)?;
                memfd::read(&File::from(file), MAX_RECORD as u64).map_err(|_| Stay::Malformed)?
            }
        };
        let pinned = self.governing(&record)?;
        let threads = self.ground.crew.len().max(1);
        let thread = self.next_thread % threads;
        self.next_thread = self.next_thread.wrapping_add(1);
        let import = Import { record, fds, pinned, on_removed: self.ground.on_removed };
        if !self.ground.crew.import(thread, ticket, import, &self.replies) {
            return Err(Stay::Overload);
        }
        self.arrivals.insert(ticket, Arrival { thread, accepted: None });
        Ok(())
    }

    /// The configuration that governs what is in progress; `None` when it is this generation's.
    fn governing(&self, record: &[u8]) -> Result<Option<Arc<PinnedConfig>>, Stay> {
        let mut reader = Reader::new(record).map_err(|_| Stay::Malformed)?;
        if reader.kind == kind::POOLED {
            return Ok(None);
        }
        let common = Common::read(&mut reader, clock::now()).map_err(|_| Stay::Malformed)?;
        if !common.bound || common.config == self.ground.newest.get() {
            return Ok(None);
        }
        match self.configs.get(&common.config) {
            Some(Some(pinned)) => Ok(Some(Arc::clone(pinned))),
            Some(None) | None => Err(Stay::Config),
        }
    }

    fn on_reply(&mut self, ticket: Ticket, reply: Result<(), Stay>, accepted: &mut Vec<Ticket>) {
        match reply {
            Ok(()) => {
                if let Some(arrival) = self.arrivals.get_mut(&ticket) {
                    arrival.accepted = Some(clock::now());
                    accepted.push(ticket);
                }
            }
            Err(why) => {
                self.arrivals.remove(&ticket);
                self.say(&Message::Reject(ticket, why));
            }
        }
    }

    fn accept(&mut self, accepted: Vec<Ticket>) {
        if accepted.is_empty() {
            return;
        }
        if self.link.is_none() {
            // The other one is gone already, and has left these behind.
            for ticket in accepted {
                self.claim(ticket);
            }
            return;
        }
        for tickets in accepted.chunks(baton_contract::peer::MAX_TICKETS) {
            self.say(&Message::Accept(tickets.to_vec()));
        }
        fault::point("migrate.new.accepted");
    }

    /// Does what shared memory says about a connection.
    fn resolve(&mut self, ticket: Ticket) {
        let Some(arrival) = self.arrivals.remove(&ticket) else { return };
        if self.ground.segment.is_decided(ticket) {
            self.ground.crew.start(arrival.thread, ticket, &self.ground.segment);
        } else {
            self.ground.crew.forget(arrival.thread, ticket);
        }
    }

    /// Takes a connection whose owner is gone or does not go on, unless that one was faster.
    fn claim(&mut self, ticket: Ticket) {
        if self.ground.segment.decide(ticket) {
            tracing::info!(from = %self.from, "a connection was taken from a generation that hangs or died");
        }
        self.resolve(ticket);
    }

    /// The other generation is gone.
    fn lose(&mut self) {
        self.link = None;
        let ready: Vec<Ticket> = self
            .arrivals
            .iter()
            .filter(|(_, arrival)| arrival.accepted.is_some())
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in ready {
            self.claim(ticket);
        }
    }

    fn overdue(&mut self, now: Instant) {
        let late = |arrival: &Arrival| {
            arrival.accepted.is_some_and(|at| now.duration_since(at) >= DECIDE_AFTER)
        };
        let late: Vec<Ticket> = self
            .arrivals
            .iter()
            .filter(|(_, arrival)| late(arrival))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in late {
            self.claim(ticket);
        }
    }

    fn say(&mut self, message: &Message) {
        let Some(link) = &mut self.link else { return };
        if let Err(error) = link.send(message, Vec::new()) {
            tracing::warn!(from = %self.from, %error, "cannot tell the other generation");
        }
    }
}

/// Why the configuration of another generation is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum PinError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Invalid(String),
}

/// Reads the configuration of another generation.
///
/// # Errors
/// When it cannot be used here.
pub(super) fn pin(
    hash: u128,
    path: String,
    file: OwnedFd,
    options: &LoadOptions,
) -> Result<PinnedConfig, PinError> {
    let file = File::from(file);
    let bytes = memfd::read(&file, CONFIG_BYTES_MAX)?;
    let source = Source { path: PathBuf::from(&path), bytes };
    let loaded = bundle::load(&source, options).map_err(|list| {
        PinError::Invalid(list.first().map_or_else(String::new, ToString::to_string))
    })?;
    let clusters = ClusterManager::new(&loaded.bootstrap);
    let file = file.into();
    let source = Arc::new(ConfigSource { hash, file_hash: hash, edition: 0, path, file });
    Ok(PinnedConfig { source, bootstrap: loaded.bootstrap, clusters })
}

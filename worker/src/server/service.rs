//! What a worker thread does with accepted connections: counts them, finds the filter chain and
//! lets it serve.
//!
//! Here the books of a connection are kept: opened once, ended once, with a reason, whatever the
//! filters do.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use baton_contract::{listener_key::ListenerKey, peer::Stay, shm::EscrowId};

use super::{
    adopt::{Places, Worlds},
    books::Books,
    crew::{GiveAway, Import, Landing},
    threads::{MakeService, Service},
};
use crate::{
    access_log::{AccessLogger, LogError, LogWriter, ThreadLogs},
    clock,
    cluster::ClusterManager,
    config::{
        access_log::AccessLog,
        listener::{FilterChain, Listener, NetworkFilter},
        model::{Address, Bootstrap},
    },
    drain::DrainHandle,
    escrow::Desk,
    filter::{
        chain::Chain,
        network::{NewConnection, Serving, hcm},
    },
    http::stream_info::{ConnectionInfo, LogContext, StreamInfo},
    listener::{
        Accepted, Serve,
        filter_chain_match::{self, Addresses},
        limit::{Limit, Permit},
    },
    migrate::{Common, ConfigSource, Ended, Opened, Origin},
    outbox,
    stats::{ConnectionKind, EndReason, ListenerStats, ThreadStats},
    sys::fault,
    thread::{Parts, Thread},
    transport::Stream,
};

/// How the services of all threads are made.
///
/// # Errors
/// When an access log cannot be opened.
pub(super) fn maker(
    bootstrap: &Arc<Bootstrap>,
    clusters: &Arc<ClusterManager>,
    drain: &DrainHandle,
    log_writer: &Arc<LogWriter>,
    source: &Arc<ConfigSource>,
    escrow: &Desk,
) -> Result<Arc<MakeService>, LogError> {
    open_logs(bootstrap, log_writer)?;
    let (bootstrap, clusters, source) =
        (Arc::clone(bootstrap), Arc::clone(clusters), Arc::clone(source));
    let (drain, log_writer, escrow) = (drain.clone(), Arc::clone(log_writer), escrow.clone());
    Ok(Arc::new(move |index, slab| {
        let thread = Thread::new(Parts {
            index: index as usize,
            bootstrap: Arc::clone(&bootstrap),
            stats: ThreadStats::new(slab),
            drain: drain.clone(),
            clusters: Arc::clone(&clusters),
            log_writer: Arc::clone(&log_writer),
            source: Some(Arc::clone(&source)),
            escrow: escrow.clone(),
        });
        let deadlines = thread.deadlines.clone();
        tokio::task::spawn_local(async move { deadlines.run().await });
        tokio::task::spawn_local(outbox::run());
        Rc::new(ThreadService {
            places: Places::new(&thread.bootstrap.listeners),
            thread,
            cut: Rc::default(),
            listeners: RefCell::default(),
            worlds: Worlds::default(),
        })
    }))
}

/// Opens all log files now, where a failure can still be reported before anything changed.
fn open_logs(bootstrap: &Bootstrap, writer: &Arc<LogWriter>) -> Result<(), LogError> {
    let logs = ThreadLogs::new(writer);
    for listener in &bootstrap.listeners {
        logs.logger(&listener.access_log)?;
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for filter in chains.flat_map(|chain| &chain.filters) {
            logs.logger(logs_of(filter))?;
        }
    }
    Ok(())
}

fn logs_of(filter: &NetworkFilter) -> &[AccessLog] {
    match filter {
        NetworkFilter::HttpConnectionManager(manager) => &manager.access_log,
        NetworkFilter::TcpProxy(proxy) => &proxy.access_log,
        NetworkFilter::Echo | NetworkFilter::DirectResponse(_) => &[],
    }
}

/// The service of one thread.
pub(super) struct ThreadService {
    pub(super) thread: Rc<Thread>,
    /// The books are closed; connections that are dropped now were written off already.
    pub(super) cut: Rc<Cell<bool>>,
    /// Listeners of the configuration, made when they are needed first.
    listeners: RefCell<HashMap<usize, Rc<ActiveListener>>>,
    pub(super) places: Places,
    pub(super) worlds: Worlds,
}

impl ThreadService {
    /// A listener of this configuration.
    pub(super) fn active(&self, index: usize) -> Option<Rc<ActiveListener>> {
        if let Some(listener) = self.listeners.borrow().get(&index) {
            return Some(Rc::clone(listener));
        }
        let config = self.thread.bootstrap.listeners.get(index)?;
        match ActiveListener::new(&self.thread, (index, config), &self.cut) {
            Ok(listener) => {
                let listener = Rc::new(listener);
                self.listeners.borrow_mut().insert(index, Rc::clone(&listener));
                Some(listener)
            }
            Err(error) => {
                tracing::error!(listener = config.name, %error, "cannot run the listener");
                None
            }
        }
    }
}

impl Service for ThreadService {
    fn listener(&self, index: usize) -> Option<Rc<dyn Serve>> {
        self.active(index).map(|listener| listener as Rc<dyn Serve>)
    }

    fn tick(&self) {
        self.thread.tick();
        self.worlds.sweep();
    }

    fn books(&self) -> Books {
        let ledger = &self.thread.ledger;
        let (opened, ended) = ledger.totals();
        let (moved, stayed) = self.thread.mover.totals();
        Books {
            opened,
            ended,
            active_requests: self.thread.active_requests.get(),
            open: ConnectionKind::ALL.map(|kind| ledger.open(kind).value()),
            moved,
            stayed,
        }
    }

    fn cut(&self) {
        self.cut.set(true);
        for _ in 0..self.thread.ledger.open_now() {
            self.thread.ledger.closed(EndReason::CutByDeadline);
        }
    }

    fn give_away(&self, to: Option<GiveAway>) {
        let mover = &self.thread.mover;
        let Some(GiveAway { exports, closes_removed }) = to else { return mover.stop() };
        let runs = mover.is_active();
        mover.start(exports, closes_removed);
        if !runs {
            tokio::task::spawn_local(give_away(Rc::clone(&self.thread)));
        }
    }

    fn look_again(&self) {
        tokio::task::spawn_local(look_again(Rc::clone(&self.thread)));
    }

    fn import(&self, import: Import) -> Result<Landing, Stay> {
        self.adopt(import)
    }

    fn inherit(&self, id: EscrowId, import: Import) -> Option<Landing> {
        let desk = &self.thread.escrow;
        if !desk.is_given(id) {
            return None;
        }
        match self.adopt(import) {
            Ok(landing) => Some(landing),
            Err(why) => {
                tracing::error!(why = why.as_str(), "a connection of a dead generation is lost");
                self.thread.ledger.opened();
                self.thread.ledger.closed(EndReason::Crash);
                // A hold that is dropped ends the escrow.
                drop(desk.take(id));
                None
            }
        }
    }
}

/// Between two groups of connections that are woken, so that traffic goes on.
const STEP: Duration = Duration::from_millis(1);

/// Wakes each connection of a thread once.
async fn look_again(thread: Rc<Thread>) {
    /// Connections that are woken together.
    const GROUP: usize = 64;
    let mut at = 0;
    loop {
        at = thread.deadlines.wake_some(at, GROUP);
        if at == 0 {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Wakes the connections of a thread, a few at a time, so that each finds out that it shall move;
/// traffic goes on in between. Those that cannot move at that moment are woken again.
async fn give_away(thread: Rc<Thread>) {
    /// Between two rounds over all of them.
    const ROUND: Duration = Duration::from_millis(25);
    let mut at = 0;
    while thread.mover.is_active() {
        hcm::pooled::give_away(&thread);
        at = thread.deadlines.wake_some(at, thread.mover.room());
        tokio::time::sleep(if at == 0 { ROUND } else { STEP }).await;
    }
}

/// One listener on one thread.
pub(super) struct ActiveListener {
    thread: Rc<Thread>,
    pub(super) config: Arc<Listener>,
    pub(super) name: Arc<str>,
    /// The chains of the configuration, in its order, then the default one.
    pub(super) chains: Vec<(Arc<FilterChain>, Chain)>,
    /// Where connections of each chain belong.
    origins: Vec<Rc<Origin>>,
    stats: ListenerStats,
    logger: AccessLogger,
    cut: Rc<Cell<bool>>,
}

impl ActiveListener {
    pub(super) fn new(
        thread: &Rc<Thread>,
        (index, config): (usize, &Arc<Listener>),
        cut: &Rc<Cell<bool>>,
    ) -> Result<Self, LogError> {
        let chains = config.filter_chains.iter().chain(&config.default_filter_chain);
        let chains = chains.map(|chain| Ok((Arc::clone(chain), Chain::new(thread, chain)?)));
        let chains = chains.collect::<Result<Vec<_>, LogError>>()?;
        let name: Arc<str> = config.name.as_str().into();
        let origin = |chain| {
            Rc::new(Origin {
                source: thread.source.clone(),
                listener: index,
                chain,
                name: Arc::clone(&name),
                keys: keys(config),
            })
        };
        Ok(Self {
            origins: (0..chains.len()).map(origin).collect(),
            chains,
            stats: ListenerStats::new(&thread.stats, &config.stat_prefix),
            logger: thread.access_logger(&config.access_log)?,
            name,
            thread: Rc::clone(thread),
            config: Arc::clone(config),
            cut: Rc::clone(cut),
        })
    }

    /// Position of the chain for these addresses.
    pub(super) fn chain_for(
        &self,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> Option<usize> {
        let wanted = filter_chain_match::find(&self.config, addresses(local, peer).as_ref())?;
        self.chains.iter().position(|(config, _)| Arc::ptr_eq(config, wanted))
    }

    /// Where connections of a chain belong.
    pub(super) fn origin(&self, chain: usize) -> Rc<Origin> {
        let origin = self.origins.get(chain).or_else(|| self.origins.first());
        // A listener without chains has no connections.
        origin.map_or_else(Origin::nowhere, Rc::clone)
    }

    /// Serves a connection to its end and keeps its books.
    fn spawn(self: Rc<Self>, mut open: Open, info: Option<Box<ConnectionInfo>>, serving: Serving) {
        tokio::task::spawn_local(async move {
            let Ended { reason, moved } = serving.await;
            open.end(reason);
            if moved.is_some() {
                fault::point("migrate.old.ended");
            }
            if let Some(info) = info.filter(|_| moved.is_none()) {
                self.log(*info, open.opened);
            }
            // Only now the books of this generation have it.
            drop(moved);
        });
    }

    /// The connection for the listener's own access log, if it has one.
    fn logged(
        &self,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        filter_chain: &Arc<str>,
    ) -> Option<Box<ConnectionInfo>> {
        (!self.logger.is_empty()).then(|| {
            Box::new(ConnectionInfo {
                id: self.thread.connection_id(),
                peer,
                local,
                listener: Arc::clone(&self.name),
                filter_chain: Arc::clone(filter_chain),
            })
        })
    }

    /// Serves a connection that another generation gave away.
    pub(super) fn serve_arrived(
        self: Rc<Self>,
        kind: ConnectionKind,
        permit: Permit,
        common: &Common,
        filter_chain: &Arc<str>,
        serving: Serving,
    ) {
        let open = Open::arrived(&self, kind, permit, common.opened);
        let info = self.logged(common.peer, common.local, filter_chain);
        self.spawn(open, info, serving);
    }

    fn log(&self, connection: ConnectionInfo, opened: Opened) {
        let now = clock::now();
        let begin = (opened.wall, opened.at);
        let mut info = StreamInfo::new(Rc::new(connection), begin, &Arc::from(""));
        info.ended = Some(now);
        self.logger.log(&LogContext {
            info: &info,
            request: None,
            response: None,
            trailers: None,
            now,
            node: &self.thread.bootstrap.node,
        });
    }
}

impl Serve for ActiveListener {
    fn serve(self: Rc<Self>, connection: Accepted, permit: Permit) {
        let (stream, peer, local) = match connection {
            Accepted::Tcp { stream, peer, local } => (Stream::from(stream), Some(peer), local),
            Accepted::Unix { stream } => (Stream::from(stream), None, None),
        };
        let found = self.chain_for(local, peer);
        let found =
            found.and_then(|at| self.chains.get(at).map(|(config, chain)| (at, config, chain)));
        let kind = found.map_or(ConnectionKind::Tcp, |(_, config, _)| kind(config));
        let mut open = Open::new(&self, kind, permit);
        let Some((at, _, chain)) = found else {
            self.stats.no_filter_chain_match.inc();
            open.end(EndReason::Upstream);
            return;
        };
        let info = self.logged(peer, local, &chain.name);
        let serving = chain.serve(NewConnection {
            buffer_limit_bytes: self.config.buffer_limit_bytes,
            stream,
            peer,
            local,
            listener: Arc::clone(&self.name),
            filter_chain: Arc::clone(&chain.name),
            origin: self.origin(at),
            opened: open.opened,
        });
        self.spawn(open, info, serving);
    }

    fn refused(&self, limit: Limit) {
        match limit {
            Limit::Global => self.stats.downstream_global_cx_overflow.inc(),
            Limit::Listener => self.stats.downstream_cx_overflow.inc(),
        }
    }
}

/// The addresses of a listener as text, by which it is found in another configuration.
pub(super) fn keys(listener: &Listener) -> Vec<String> {
    let key = |address: &Address| match address {
        Address::Ip(address) => ListenerKey::tcp(*address).to_string(),
        Address::Pipe { path, .. } => ListenerKey::unix(path).to_string(),
        Address::Name { host, port } => format!("{host}:{port}"),
    };
    listener.addresses.iter().map(key).collect()
}

fn addresses(local: Option<SocketAddr>, peer: Option<SocketAddr>) -> Option<Addresses> {
    let peer = peer?;
    Some(Addresses { local: local?, peer, source: peer })
}

fn kind(chain: &FilterChain) -> ConnectionKind {
    match chain.filters.last() {
        Some(NetworkFilter::HttpConnectionManager(_)) => ConnectionKind::Http1,
        Some(
            NetworkFilter::TcpProxy(_) | NetworkFilter::Echo | NetworkFilter::DirectResponse(_),
        )
        | None => ConnectionKind::Tcp,
    }
}

/// An open connection in the books; closes itself there when its task is lost.
struct Open {
    listener: Rc<ActiveListener>,
    kind: ConnectionKind,
    opened: Opened,
    ended: bool,
    _permit: Permit,
}

impl Open {
    fn new(listener: &Rc<ActiveListener>, kind: ConnectionKind, permit: Permit) -> Self {
        listener.stats.downstream_cx_total.inc();
        Self::begin(listener, kind, permit, Opened::now())
    }

    /// One that another generation accepted.
    fn arrived(
        listener: &Rc<ActiveListener>,
        kind: ConnectionKind,
        permit: Permit,
        opened: Opened,
    ) -> Self {
        listener.thread.mover.imported().inc();
        Self::begin(listener, kind, permit, opened)
    }

    fn begin(
        listener: &Rc<ActiveListener>,
        kind: ConnectionKind,
        permit: Permit,
        opened: Opened,
    ) -> Self {
        listener.stats.downstream_cx_active.inc();
        listener.thread.ledger.opened();
        listener.thread.ledger.open(kind).inc();
        Self { listener: Rc::clone(listener), kind, opened, ended: false, _permit: permit }
    }

    fn end(&mut self, reason: EndReason) {
        if self.ended || self.listener.cut.get() {
            return;
        }
        self.ended = true;
        let Self { listener, kind, opened, .. } = self;
        if reason != EndReason::Migrated {
            let age = clock::now().saturating_duration_since(opened.at).as_millis();
            let millis = u64::try_from(age).unwrap_or(u64::MAX);
            listener.stats.downstream_cx_length_ms.record(millis);
            listener.stats.downstream_cx_destroy.inc();
        }
        listener.stats.downstream_cx_active.dec();
        listener.thread.ledger.open(*kind).dec();
        listener.thread.ledger.closed(reason);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Only a task that panicked gets here without an end.
        self.end(EndReason::Crash);
    }
}

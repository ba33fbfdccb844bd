//! What one worker thread owns: everything a connection needs, without a lock.
//!
//! The configuration reaches a thread as an immutable snapshot; what is made from it (filters,
//! route tables, pools) belongs to the thread alone.

mod clusters;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

pub use self::clusters::ThreadCluster;
use self::clusters::ThreadClusters;
use crate::{
    access_log::{AccessLogger, LogError, LogWriter, ThreadLogs},
    activity::Activity,
    buffer::BufferPool,
    cluster::{ClusterManager, Endpoint},
    config::{
        access_log::AccessLog,
        hcm::{HttpConnectionManager, Routes},
        model::{Bootstrap, ClusterIndex},
    },
    deadline::Deadlines,
    drain::DrainHandle,
    escrow::Desk,
    http::{
        h1::date::DateCache,
        head::{RequestHead, ResponseHead},
    },
    migrate::{ConfigSource, Edition, Mover},
    route::RouteSlot,
    stats::{DescriptorStats, Ledger, ThreadStats},
    upstream::{
        Stream,
        connect::{ConnectError, Connecting},
        pool::PooledConnection,
        shortage,
    },
};

/// Heads kept for the next requests, at most.
const SPARE_HEADS_MAX: usize = 256;

/// The state of a worker thread.
#[derive(Debug)]
pub struct Thread {
    /// Number of the thread, 0 first.
    pub index: usize,
    /// The configuration.
    pub bootstrap: Arc<Bootstrap>,
    /// Its statistics.
    pub stats: ThreadStats,
    /// How its downstream connections ended.
    pub ledger: Ledger,
    /// Free buffers.
    pub buffers: BufferPool,
    /// Deadlines of its connections.
    pub deadlines: Deadlines,
    /// Whether the generation drains.
    pub drain: DrainHandle,
    /// The `date` header.
    pub date: RefCell<DateCache>,
    /// HTTP requests in flight.
    pub active_requests: Rc<Cell<u64>>,
    /// Random numbers for routing and request ids.
    pub random: RefCell<fastrand::Rng>,
    /// Space for heads on their way out.
    pub scratch: RefCell<Vec<u8>>,
    /// Whether connections shall move to another generation.
    pub mover: Mover,
    /// The configuration as bytes, for connections that move in the middle of something.
    pub edition: Edition,
    /// Where connections are put that outlive this process.
    pub escrow: Desk,
    /// What it began last.
    pub activity: Arc<Activity>,
    /// What the limit of open files prevented.
    pub descriptors: DescriptorStats,
    /// Shortages of the process that its idle connections made room for.
    shortages: Cell<u64>,
    manager: Arc<ClusterManager>,
    clusters: ThreadClusters,
    logs: ThreadLogs,
    heads: RefCell<Vec<(RequestHead, ResponseHead)>>,
    /// Routes that are resources of their own, with the connection manager they are for.
    routes: RefCell<Vec<(Arc<HttpConnectionManager>, Rc<RouteSlot>)>>,
    /// A log or a header of a resource shows our own address towards endpoints.
    shows_upstream_local: Cell<bool>,
    next_connection: Rc<Cell<u64>>,
}

/// What a thread is made from.
#[derive(Debug)]
pub struct Parts {
    /// Number of the thread, 0 first.
    pub index: usize,
    /// The configuration.
    pub bootstrap: Arc<Bootstrap>,
    /// Its statistics.
    pub stats: ThreadStats,
    /// Whether the generation drains.
    pub drain: DrainHandle,
    /// The clusters of the process.
    pub clusters: Arc<ClusterManager>,
    /// The access log writer of the process.
    pub log_writer: Arc<LogWriter>,
    /// The configuration as bytes; `None` = connections in the middle of something cannot move.
    pub source: Option<Arc<ConfigSource>>,
    /// Where connections are put that outlive this process.
    pub escrow: Desk,
    /// What the thread began last.
    pub activity: Arc<Activity>,
}

impl Thread {
    /// Makes the state of a thread, on that thread.
    pub fn new(parts: Parts) -> Rc<Self> {
        let now = crate::clock::now();
        Rc::new(Self {
            index: parts.index,
            ledger: Ledger::new(&parts.stats),
            buffers: BufferPool::default(),
            deadlines: Deadlines::new(now),
            drain: parts.drain,
            date: RefCell::default(),
            active_requests: Rc::default(),
            random: RefCell::new(fastrand::Rng::new()),
            scratch: RefCell::default(),
            mover: Mover::new(&parts.stats),
            edition: Edition::new(parts.source),
            escrow: parts.escrow,
            activity: parts.activity,
            descriptors: DescriptorStats::new(&parts.stats),
            shortages: Cell::new(shortage::count()),
            clusters: ThreadClusters::new(&parts.stats, parts.clusters.table()),
            manager: parts.clusters,
            logs: ThreadLogs::new(&parts.log_writer),
            heads: RefCell::default(),
            routes: RefCell::default(),
            shows_upstream_local: Cell::default(),
            next_connection: Rc::new(Cell::new(1)),
            bootstrap: parts.bootstrap,
            stats: parts.stats,
        })
    }

    /// The same thread under another configuration: that of an older generation, which governs
    /// what was in progress when its connection moved here.
    pub fn under(
        &self,
        source: &Arc<ConfigSource>,
        bootstrap: &Arc<Bootstrap>,
        clusters: &Arc<ClusterManager>,
    ) -> Rc<Self> {
        Rc::new(Self {
            index: self.index,
            ledger: self.ledger.clone(),
            buffers: self.buffers.clone(),
            deadlines: self.deadlines.clone(),
            drain: self.drain.clone(),
            date: RefCell::default(),
            active_requests: Rc::clone(&self.active_requests),
            random: RefCell::new(fastrand::Rng::new()),
            scratch: RefCell::default(),
            mover: self.mover.clone(),
            edition: Edition::new(Some(Arc::clone(source))),
            escrow: self.escrow.clone(),
            activity: Arc::clone(&self.activity),
            descriptors: self.descriptors.clone(),
            shortages: self.shortages.clone(),
            clusters: ThreadClusters::new(&self.stats, clusters.table()),
            manager: Arc::clone(clusters),
            logs: self.logs.clone(),
            heads: RefCell::default(),
            routes: RefCell::default(),
            shows_upstream_local: Cell::default(),
            next_connection: Rc::clone(&self.next_connection),
            bootstrap: Arc::clone(bootstrap),
            stats: self.stats.clone(),
        })
    }

    /// The thread's side of all clusters it has used.
    pub fn clusters(&self) -> Vec<Rc<ThreadCluster>> {
        self.clusters.used()
    }

    /// The thread's side of a cluster, made when it is used first; `None` when there is no such cluster
    /// now.
    pub fn cluster(&self, index: ClusterIndex) -> Option<Rc<ThreadCluster>> {
        self.clusters.get(&self.stats, index)
    }

    /// Position of a cluster, by name.
    pub fn cluster_index(&self, name: &str) -> Option<ClusterIndex> {
        self.clusters.by_name(name)
    }

    /// The thread's side of a cluster, by name.
    pub fn cluster_by_name(&self, name: &str) -> Option<Rc<ThreadCluster>> {
        self.cluster(self.cluster_index(name)?)
    }

    /// The routes of a connection manager.
    pub fn routes(&self, manager: &Arc<HttpConnectionManager>) -> Rc<RouteSlot> {
        match &manager.routes {
            Routes::Static(table) => RouteSlot::fixed(table),
            Routes::Rds(_) => self.slot_of(manager).unwrap_or_else(|| {
                let slot = RouteSlot::awaited(&self.edition);
                self.routes.borrow_mut().push((Arc::clone(manager), Rc::clone(&slot)));
                slot
            }),
        }
    }

    /// Routes that are a resource of their own.
    pub fn slot_of(&self, manager: &Arc<HttpConnectionManager>) -> Option<Rc<RouteSlot>> {
        let slots = self.routes.borrow();
        let found = slots.iter().find(|(known, _)| Arc::ptr_eq(known, manager));
        found.map(|(_, slot)| Rc::clone(slot))
    }

    /// Forgets the routes of connection managers that nothing uses any more.
    fn sweep_routes(&self) {
        self.routes.borrow_mut().retain(|(_, slot)| Rc::strong_count(slot) > 1);
    }

    /// From now on our own address towards endpoints is shown somewhere.
    pub fn show_upstream_local(&self) {
        self.shows_upstream_local.set(true);
    }

    /// Takes up what became of the clusters. What is in progress goes on with those it began with.
    pub fn update_clusters(&self) {
        self.clusters.update(&self.stats, self.manager.table());
    }

    /// Keeps an idle connection to an endpoint for the next request of a cluster of this
    /// configuration; closes it when there is no such cluster, or the cluster no such endpoint.
    /// Says whether it was kept.
    pub fn keep(&self, cluster: &str, connection: PooledConnection, now: Instant) -> bool {
        let Some(cluster) = self.cluster_by_name(cluster) else { return false };
        let address = connection.endpoint.endpoint().address();
        let set = cluster.state.endpoints();
        let Some(endpoint) = set.at(&address) else { return false };
        let connection = PooledConnection {
            // It was counted when it was opened.
            endpoint: endpoint.resume_connection(),
            counted: connection.counted.under(&cluster.stats),
            local: connection.local.or_else(|| self.upstream_local(&connection.stream)),
            ..connection
        };
        cluster.pool.borrow_mut().put(connection, now);
        true
    }

    /// Our address on a connection to an endpoint, if a log or a header of this configuration shows it.
    pub fn upstream_local(&self, stream: &Stream) -> Option<SocketAddr> {
        let is_shown = self.bootstrap.shows_upstream_local || self.shows_upstream_local.get();
        if is_shown { stream.local_addr() } else { None }
    }

    /// A number for a new connection, unique in the process.
    pub fn connection_id(&self) -> u64 {
        /// Bits for the number within a thread; the thread's own number stands above them.
        const THREAD_SHIFT: u32 = 48;
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        (self.index as u64) << THREAD_SHIFT | id
    }

    /// Makes configured access logs run on this thread.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn access_logger(&self, configs: &[AccessLog]) -> Result<AccessLogger, LogError> {
        self.logs.logger(configs)
    }

    /// Hands buffered log lines to the writer and closes idle upstream connections that ended;
    /// called about once a second.
    pub fn tick(&self) {
        self.logs.flush();
        if self.drain.is_stopping() {
            self.deadlines.wake_all();
        }
        if self.shortages.replace(shortage::count()) != shortage::count() {
            while self.close_idle() {}
        }
        self.sweep_routes();
        let now = crate::clock::now();
        for cluster in self.clusters() {
            cluster.sweep(now);
        }
    }

    /// Begins to connect to an endpoint of a cluster. Idle connections of this thread make room when there
    /// is none, and those of other threads will.
    ///
    /// # Errors
    /// As [`Connecting::start`].
    pub fn connect(
        &self,
        endpoint: &Endpoint,
        cluster: &ThreadCluster,
    ) -> Result<Connecting, ConnectError> {
        let config = &cluster.state.config;
        loop {
            let error = match Connecting::start(endpoint, config) {
                Ok(connecting) => return Ok(connecting),
                Err(error) => error,
            };
            // A source address that is not ours is no shortage.
            let limit = shortage::limit_of(error.cause()).filter(|_| !error.is_bind());
            let Some(limit) = limit else { return Err(error) };
            shortage::ask_for_room();
            if !self.close_idle() {
                self.descriptors.connect_failed.inc();
                shortage::tell(&cluster.name, limit, error.cause());
                return Err(error);
            }
        }
    }

    /// Closes an idle connection to an endpoint; false when there is none.
    fn close_idle(&self) -> bool {
        self.clusters().iter().any(|cluster| cluster.pool.borrow_mut().take_any().is_some())
    }

    /// Empty heads.
    pub fn take_heads(&self) -> (RequestHead, ResponseHead) {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes heads back to use their memory again.
    pub fn return_heads(&self, mut request: RequestHead, mut response: ResponseHead) {
        request.clear();
        response.clear();
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_HEADS_MAX {
            heads.push((request, response));
        }
    }
}

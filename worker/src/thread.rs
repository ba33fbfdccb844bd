//! What one worker thread owns: everything a connection needs, without a lock.
//!
//! The configuration reaches a thread as an immutable snapshot; what is made from it (filters,
//! route tables, pools) belongs to the thread alone.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use crate::{
    access_log::{AccessLogger, LogError, LogWriter, ThreadLogs},
    activity::Activity,
    buffer::BufferPool,
    cluster::{
        ClusterManager, ClusterState, ClusterTable, Endpoint,
        balance::{PickContext, Picker},
        endpoint::{EndpointAddress, EndpointInfo},
    },
    config::{
        access_log::AccessLog,
        hcm::Routes,
        model::{Bootstrap, ClusterIndex},
        route::RouteConfiguration,
        subscription::RdsSource,
    },
    deadline::Deadlines,
    drain::DrainHandle,
    escrow::Desk,
    http::{
        h1::date::DateCache,
        head::{RequestHead, ResponseHead},
    },
    migrate::{ConfigSource, Mover},
    route::RouteSlot,
    stats::{ClusterStats, DescriptorStats, Ledger, ThreadStats},
    upstream::{
        Stream,
        connect::{ConnectError, Connecting},
        pool::{Pool, PooledConnection},
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
    pub source: Option<Arc<ConfigSource>>,
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
    /// Routes that are resources of their own.
    routes: RefCell<HashMap<RdsSource, Rc<RouteSlot>>>,
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
            source: parts.source,
            escrow: parts.escrow,
            activity: parts.activity,
            descriptors: DescriptorStats::new(&parts.stats),
            shortages: Cell::new(shortage::count()),
            clusters: ThreadClusters::new(&parts.stats, parts.clusters.table()),
            manager: parts.clusters,
            logs: ThreadLogs::new(&parts.log_writer),
            heads: RefCell::default(),
            routes: RefCell::default(),
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
            source: Some(Arc::clone(source)),
            escrow: self.escrow.clone(),
            activity: Arc::clone(&self.activity),
            descriptors: self.descriptors.clone(),
            shortages: self.shortages.clone(),
            clusters: ThreadClusters::new(&self.stats, clusters.table()),
            manager: Arc::clone(clusters),
            logs: self.logs.clone(),
            heads: RefCell::default(),
            routes: RefCell::default(),
            next_connection: Rc::clone(&self.next_connection),
            bootstrap: Arc::clone(bootstrap),
            stats: self.stats.clone(),
        })
    }

    /// The thread's side of all clusters it has used.
    pub fn clusters(&self) -> Vec<Rc<ThreadCluster>> {
        self.clusters.made.borrow().iter().flatten().map(Rc::clone).collect()
    }

    /// The thread's side of a cluster, made when it is used first; `None` when there is no such cluster
    /// now.
    pub fn cluster(&self, index: ClusterIndex) -> Option<Rc<ThreadCluster>> {
        self.clusters.get(&self.stats, index)
    }

    /// Position of a cluster, by name.
    pub fn cluster_index(&self, name: &str) -> Option<ClusterIndex> {
        self.clusters.table.borrow().by_name(name)
    }

    /// The thread's side of a cluster, by name.
    pub fn cluster_by_name(&self, name: &str) -> Option<Rc<ThreadCluster>> {
        self.cluster(self.cluster_index(name)?)
    }

    /// The routes of a connection manager.
    pub fn routes(&self, routes: &Routes) -> Rc<RouteSlot> {
        match routes {
            Routes::Static(table) => RouteSlot::fixed(table),
            Routes::Rds(source) => {
                let mut slots = self.routes.borrow_mut();
                let slot = slots.entry((**source).clone()).or_insert_with(RouteSlot::awaited);
                Rc::clone(slot)
            }
        }
    }

    /// Requests from now on take these routes.
    pub fn set_routes(&self, source: &RdsSource, table: &Arc<RouteConfiguration>) {
        let mut slots = self.routes.borrow_mut();
        slots.entry(source.clone()).or_insert_with(RouteSlot::awaited).replace(table);
    }

    /// Forgets routes that no listener names any more.
    pub fn forget_routes(&self, source: &RdsSource) {
        self.routes.borrow_mut().remove(source);
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
        if self.bootstrap.shows_upstream_local { stream.local_addr() } else { None }
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

/// The thread's side of the clusters.
#[derive(Debug)]
struct ThreadClusters {
    /// The clusters there are, as far as this thread was told.
    table: RefCell<Arc<ClusterTable>>,
    /// Those it uses, by position.
    made: RefCell<Vec<Option<Rc<ThreadCluster>>>>,
}

impl ThreadClusters {
    /// Makes only those whose statistics are wanted before they are used: of ten thousand clusters
    /// a thread may never use most, and each has fourteen kilobytes of statistics.
    fn new(stats: &ThreadStats, table: Arc<ClusterTable>) -> Self {
        let clusters = Self { table: RefCell::default(), made: RefCell::default() };
        clusters.update(stats, table);
        clusters
    }

    fn get(&self, stats: &ThreadStats, index: ClusterIndex) -> Option<Rc<ThreadCluster>> {
        if let Some(Some(made)) = self.made.borrow().get(index.0) {
            return Some(Rc::clone(made));
        }
        let cluster = ThreadCluster::new(stats, self.table.borrow().get(index)?);
        if let Some(slot) = self.made.borrow_mut().get_mut(index.0) {
            *slot = Some(Rc::clone(&cluster));
        }
        Some(cluster)
    }

    fn update(&self, stats: &ThreadStats, table: Arc<ClusterTable>) {
        let mut made = self.made.borrow_mut();
        made.resize(table.slots(), None);
        for (at, slot) in made.iter_mut().enumerate() {
            let state = table.get(ClusterIndex(at));
            *slot = match (slot.take(), state) {
                (Some(known), Some(state)) if Arc::ptr_eq(&known.state, state) => Some(known),
                (Some(known), Some(state)) => {
                    Some(ThreadCluster::in_place_of(&known, stats, state))
                }
                (None, Some(state)) if state.is_counted() => Some(ThreadCluster::new(stats, state)),
                (None, Some(_)) | (_, None) => None,
            };
        }
        self.table.replace(table);
    }
}

/// A cluster as one thread sees it.
#[derive(Debug)]
pub struct ThreadCluster {
    /// Configuration and endpoints.
    pub state: Arc<ClusterState>,
    /// Its name.
    pub name: Arc<str>,
    /// Its statistics.
    pub stats: Rc<ClusterStats>,
    /// Idle connections of this thread; those of its successors as long as connections are made alike.
    pub pool: Rc<RefCell<Pool>>,
    /// Chooses endpoints for this thread.
    picker: RefCell<Picker>,
    /// The endpoint of a connection that was taken over before DNS gave the cluster any.
    own: RefCell<Option<Arc<Endpoint>>>,
    /// Version of the endpoints when the pool was looked through for those that are gone.
    swept: Cell<u64>,
}

impl ThreadCluster {
    fn new(stats: &ThreadStats, state: &Arc<ClusterState>) -> Rc<Self> {
        Rc::new(Self::fresh(stats, state))
    }

    fn fresh(stats: &ThreadStats, state: &Arc<ClusterState>) -> Self {
        state.count();
        Self {
            state: Arc::clone(state),
            name: state.config.name.as_str().into(),
            stats: Rc::new(ClusterStats::new(stats, &state.config.stat_name)),
            pool: Rc::default(),
            picker: RefCell::new(Picker::new(state.config.balancer, fastrand::u64(..))),
            own: RefCell::default(),
            swept: Cell::default(),
        }
    }

    /// The same cluster with another configuration. Idle connections stay if the new one would make
    /// them in the same way.
    fn in_place_of(known: &Self, stats: &ThreadStats, state: &Arc<ClusterState>) -> Rc<Self> {
        let (before, config) = (&known.state.config, &state.config);
        let mut cluster = Self::fresh(stats, state);
        if before.stat_name == config.stat_name {
            cluster.stats = Rc::clone(&known.stats);
        }
        if before.connects_like(config) {
            cluster.pool = Rc::clone(&known.pool);
        }
        cluster.name = Arc::clone(&known.name);
        Rc::new(cluster)
    }

    /// Closes idle connections that ended, are idle for too long, or lead to endpoints that are gone.
    fn sweep(&self, now: Instant) {
        let mut pool = self.pool.borrow_mut();
        let endpoints = self.state.endpoints();
        if self.swept.replace(endpoints.version) != endpoints.version && !pool.is_empty() {
            let ids: HashSet<u64> =
                endpoints.endpoints.iter().map(|endpoint| endpoint.id).collect();
            // One that was taken over before DNS gave the cluster any is in no set.
            if !ids.is_empty() {
                pool.retain_endpoints(&ids);
            }
        }
        pool.sweep(now, self.state.config.idle_timeout);
    }

    /// The endpoint at an address, for a connection to it that was taken over. One the cluster does
    /// not have (any more) is made for that connection. As long as DNS gave the cluster none at all,
    /// this thread uses it for others, too; the set itself has one writer, and that is DNS.
    pub fn endpoint_at(&self, address: &EndpointAddress, info: &EndpointInfo) -> Arc<Endpoint> {
        let set = self.state.endpoints();
        if let Some(endpoint) = set.at(address) {
            return Arc::clone(endpoint);
        }
        let made = || Arc::new(Endpoint::new(address.clone(), info.clone()));
        if !set.endpoints.is_empty() {
            return made();
        }
        let mut own = self.own.borrow_mut();
        let same = own.take().filter(|own| *own.address() == *address);
        Arc::clone(own.insert(same.unwrap_or_else(made)))
    }

    /// The endpoint that takes the next request.
    pub fn pick(&self) -> Option<Arc<Endpoint>> {
        let picked = self.picker.borrow_mut().pick(&self.state.endpoints());
        picked.or_else(|| self.own.borrow().clone())
    }

    /// The endpoint that takes another attempt of a request or of a connection.
    pub fn pick_with(&self, context: &PickContext<'_>) -> Option<Arc<Endpoint>> {
        let picked = self.picker.borrow_mut().pick_with(&self.state.endpoints(), context);
        picked.or_else(|| self.own.borrow().clone())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cluster::balance::Further;
    use crate::config::load::{LoadOptions, Source, load};

    fn manager(clusters: usize) -> Arc<ClusterManager> {
        let clusters: Vec<_> = (0..clusters)
            .map(|at| serde_json::json!({"name": format!("c{at}"), "connect_timeout": "1s"}))
            .collect();
        let config = serde_json::json!({
            "static_resources": {"clusters": clusters},
            "admin": {"address": {"pipe": {"path": "@admin"}}},
        });
        let bytes = config.to_string().into_bytes();
        let source = Source { path: PathBuf::from("envoy.json"), bytes };
        ClusterManager::new(&load(&source, &LoadOptions::default()).unwrap().bootstrap)
    }

    #[test]
    fn a_connection_taken_over_before_dns_answered_gives_its_thread_an_endpoint_and_no_set() {
        let manager = manager(1);
        let table = manager.table();
        let state = table.get(ClusterIndex(0)).unwrap();
        let cluster = ThreadCluster::new(&ThreadStats::detached(), state);
        assert!(cluster.pick().is_none());
        let address = |port| EndpointAddress::Ip(([10, 0, 0, 1], port).into());
        let first = cluster.endpoint_at(&address(80), &EndpointInfo::default());
        let again = cluster.endpoint_at(&address(80), &EndpointInfo::default());
        assert_eq!(first.id, again.id, "its numbers are in one place");
        assert_eq!(cluster.pick().map(|endpoint| endpoint.id), Some(first.id));
        let context = PickContext { tried: &[], further: Further::Search };
        assert_eq!(cluster.pick_with(&context).map(|endpoint| endpoint.id), Some(first.id));
        let second = cluster.endpoint_at(&address(81), &EndpointInfo::default());
        assert_eq!(cluster.pick().map(|endpoint| endpoint.id), Some(second.id));
        let set = state.endpoints();
        assert!(set.endpoints.is_empty() && set.version == 0, "an answer of dns would be lost");
    }

    #[test]
    fn of_many_clusters_a_thread_makes_only_those_it_uses() {
        for (clusters, made) in [(1, 1), (100, 100), (101, 0)] {
            let manager = manager(clusters);
            let threads = ThreadClusters::new(&ThreadStats::detached(), manager.table());
            assert_eq!(threads.made.borrow().len(), clusters);
            assert_eq!(threads.made.borrow().iter().flatten().count(), made);
            assert_eq!(manager.table().iter().filter(|state| state.is_counted()).count(), made);
        }
        let manager = manager(101);
        let table = manager.table();
        let state = table.get(ClusterIndex(100)).unwrap();
        ThreadCluster::new(&ThreadStats::detached(), state);
        assert!(state.is_counted(), "the main thread keeps its statistics from now on");
    }
}

//! What one worker thread owns: everything a connection needs, without a lock.
//!
//! The configuration reaches a thread as an immutable snapshot; what is made from it (filters,
//! route tables, pools) belongs to the thread alone.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use crate::{
    access_log::{AccessLogger, LogError, LogWriter, ThreadLogs},
    buffer::BufferPool,
    cluster::{ClusterManager, ClusterState, Endpoint, balance::Picker},
    config::{
        access_log::AccessLog,
        model::{Bootstrap, ClusterIndex},
    },
    deadline::Deadlines,
    drain::DrainHandle,
    http::{
        h1::date::DateCache,
        head::{RequestHead, ResponseHead},
    },
    stats::{ClusterStats, Ledger, ThreadStats},
    upstream::pool::Pool,
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
    pub active_requests: Cell<u64>,
    /// Random numbers for routing and request ids.
    pub random: RefCell<fastrand::Rng>,
    /// Space for heads on their way out.
    pub scratch: RefCell<Vec<u8>>,
    manager: Arc<ClusterManager>,
    clusters: Vec<Rc<ThreadCluster>>,
    logs: ThreadLogs,
    heads: RefCell<Vec<(RequestHead, ResponseHead)>>,
    next_connection: Cell<u64>,
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
}

impl Thread {
    /// Makes the state of a thread, on that thread.
    pub fn new(parts: Parts) -> Rc<Self> {
        let now = crate::clock::now();
        let clusters = parts.clusters.clusters().iter();
        let clusters = clusters.map(|state| Rc::new(ThreadCluster::new(&parts.stats, state)));
        Rc::new(Self {
            index: parts.index,
            ledger: Ledger::new(&parts.stats),
            buffers: BufferPool::default(),
            deadlines: Deadlines::new(now),
            drain: parts.drain,
            date: RefCell::default(),
            active_requests: Cell::new(0),
            random: RefCell::new(fastrand::Rng::new()),
            scratch: RefCell::default(),
            clusters: clusters.collect(),
            manager: parts.clusters,
            logs: ThreadLogs::new(&parts.log_writer),
            heads: RefCell::default(),
            next_connection: Cell::new(1),
            bootstrap: parts.bootstrap,
            stats: parts.stats,
        })
    }

    /// The thread's side of a cluster.
    pub fn cluster(&self, index: ClusterIndex) -> Option<&Rc<ThreadCluster>> {
        self.clusters.get(index.0)
    }

    /// The thread's side of a cluster, by name.
    pub fn cluster_by_name(&self, name: &str) -> Option<&Rc<ThreadCluster>> {
        self.cluster(self.manager.by_name(name)?)
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
        let now = crate::clock::now();
        for cluster in &self.clusters {
            cluster.pool.borrow_mut().sweep(now, cluster.state.config.idle_timeout);
        }
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

/// A cluster as one thread sees it.
#[derive(Debug)]
pub struct ThreadCluster {
    /// Configuration and endpoints.
    pub state: Arc<ClusterState>,
    /// Its name.
    pub name: Arc<str>,
    /// Its statistics.
    pub stats: ClusterStats,
    /// Idle connections of this thread.
    pub pool: RefCell<Pool>,
    /// Chooses endpoints for this thread.
    pub picker: RefCell<Picker>,
}

impl ThreadCluster {
    fn new(stats: &ThreadStats, state: &Arc<ClusterState>) -> Self {
        Self {
            state: Arc::clone(state),
            name: state.config.name.as_str().into(),
            stats: ClusterStats::new(stats, &state.config.stat_name),
            pool: RefCell::default(),
            picker: RefCell::new(Picker::new(state.config.balancer, fastrand::u64(..))),
        }
    }

    /// The endpoint that takes the next request.
    pub fn pick(&self) -> Option<Arc<Endpoint>> {
        self.picker.borrow_mut().pick(&self.state.endpoints.load())
    }
}

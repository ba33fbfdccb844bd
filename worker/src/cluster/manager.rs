//! All clusters of a generation and the task that keeps their DNS endpoints fresh.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{
    discovery::{self, Discovery},
    endpoint::EndpointSet,
    resolver::{Resolve, SystemResolver},
};
use crate::config::{
    cluster::Cluster,
    model::{Bootstrap, ClusterIndex},
};

/// One cluster: its configuration and the endpoints it has now.
#[derive(Debug)]
pub struct ClusterState {
    /// What the file says.
    pub config: Arc<Cluster>,
    /// Replaced whole by the DNS refresh; load it for each pick.
    pub endpoints: ArcSwap<EndpointSet>,
    /// What the DNS refresh did.
    pub updates: Updates,
    /// Whether it has statistics.
    counted: AtomicBool,
}

/// Up to this number of clusters all have statistics from the start, as in Envoy. Of more, a cluster
/// has them from its first use on, as with Envoy's `enable_deferred_creation_stats`: the fifty
/// names and the cells of one take about 70 KB, and most clusters of a long list serve nothing.
const COUNTED_MAX: usize = 100;

impl ClusterState {
    /// Whether statistics of the cluster are kept by now.
    pub fn is_counted(&self) -> bool {
        self.counted.load(Relaxed)
    }

    /// The cluster is used: its statistics are kept from now on.
    pub fn count(&self) {
        self.counted.store(true, Relaxed);
    }
}

/// Counts of the DNS refresh of one cluster. All relaxed: [`super::report::Reporter`] makes them
/// statistics.
#[derive(Debug, Default)]
pub struct Updates {
    /// Questions asked.
    pub attempt: AtomicU64,
    /// Answers with an address.
    pub success: AtomicU64,
    /// Failures and answers without an address.
    pub failure: AtomicU64,
    /// Answers without an address.
    pub empty: AtomicU64,
    /// Answers that changed nothing.
    pub no_rebuild: AtomicU64,
    /// Changes of the endpoints, the first ones included.
    pub membership_change: AtomicU64,
}

/// All clusters. Shared by every thread.
#[derive(Debug)]
pub struct ClusterManager {
    clusters: Vec<Arc<ClusterState>>,
    names: HashMap<String, ClusterIndex>,
    pub(super) discoveries: Vec<Arc<Discovery>>,
}

impl ClusterManager {
    /// Makes the clusters; names are resolved as the system is set up to.
    pub fn new(bootstrap: &Bootstrap) -> Arc<Self> {
        let resolver: Arc<dyn Resolve> = Arc::new(SystemResolver::default());
        Self::with_resolver(bootstrap, &resolver)
    }

    /// Makes the clusters; those with literal addresses have their endpoints at once.
    pub fn with_resolver(bootstrap: &Bootstrap, resolver: &Arc<dyn Resolve>) -> Arc<Self> {
        let mut manager = Self {
            clusters: Vec::with_capacity(bootstrap.clusters.len()),
            names: HashMap::with_capacity(bootstrap.clusters.len()),
            discoveries: Vec::new(),
        };
        let counted = bootstrap.clusters.len() <= COUNTED_MAX;
        for (index, config) in bootstrap.clusters.iter().enumerate() {
            manager.names.insert(config.name.clone(), ClusterIndex(index));
            let state = Arc::new(ClusterState {
                config: Arc::clone(config),
                endpoints: ArcSwap::from_pointee(EndpointSet::default()),
                updates: Updates::default(),
                counted: AtomicBool::new(counted),
            });
            let discovery = Discovery::new(&state, resolver);
            if discovery.needs_dns() {
                manager.discoveries.push(Arc::new(discovery));
            }
            manager.clusters.push(state);
        }
        Arc::new(manager)
    }

    /// A cluster of this configuration.
    ///
    /// # Panics
    /// When the index comes from another configuration.
    pub fn cluster(&self, index: ClusterIndex) -> &Arc<ClusterState> {
        &self.clusters[index.0]
    }

    /// All clusters in the order of the file.
    pub fn clusters(&self) -> &[Arc<ClusterState>] {
        &self.clusters
    }

    /// Finds a cluster for `cluster_header`.
    pub fn by_name(&self, name: &str) -> Option<ClusterIndex> {
        self.names.get(name).copied()
    }

    /// Waits until every DNS cluster had its first answer or failure, at most `timeout`. Returns
    /// at once when all addresses are literal. What has no answer yet starts empty.
    pub async fn warm(&self, timeout: Duration) {
        discovery::warm(&self.discoveries, timeout).await;
    }

    /// Keeps the DNS clusters fresh; never returns. Runs on the main thread's runtime.
    pub async fn run_refresh(&self) {
        discovery::refresh(&self.discoveries).await;
    }
}

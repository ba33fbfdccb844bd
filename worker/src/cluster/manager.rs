//! All clusters of a generation and the task that keeps their DNS endpoints fresh.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use baton_contract::message::Resolved;

use super::{
    discovery::{self, Discovery, Wait},
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
    /// Replaced whole by the DNS refresh, which is its only writer.
    pub(super) endpoints: ArcSwap<EndpointSet>,
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
    /// The endpoints it has now; to be asked for each pick.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.endpoints.load()
    }

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

    /// Waits for the first answers of DNS, at most `timeout`. Returns at once when all addresses are
    /// literal. What has no answer yet starts empty, or with what it inherited.
    pub async fn warm(&self, timeout: Duration, wait: Wait) {
        discovery::warm(&self.discoveries, timeout, wait).await;
    }

    /// Begins with what older generations knew; to be called before [`Self::warm`].
    pub fn inherit(&self, answers: &[Resolved]) {
        let mut known = HashMap::with_capacity(answers.len());
        for Resolved { cluster, name, addresses } in answers {
            known.insert((cluster.as_str(), name.as_str()), addresses.as_slice());
        }
        for discovery in &self.discoveries {
            discovery.inherit(&known);
        }
    }

    /// What names resolve to, as far as it changed since the last call.
    pub fn take_news(&self) -> Vec<Resolved> {
        self.discoveries.iter().flat_map(|discovery| discovery.take_news()).collect()
    }

    /// The next [`Self::take_news`] has everything.
    pub fn tell_again(&self) {
        self.discoveries.iter().for_each(|discovery| discovery.tell_again());
    }

    /// The next [`Self::take_news`] has the names without an address, and those of their clusters.
    pub fn tell_lacks(&self) {
        self.discoveries.iter().for_each(|discovery| discovery.tell_lacks());
    }

    /// A line for each name that goes on with what older generations knew.
    pub fn inherited(&self) -> Vec<String> {
        self.discoveries.iter().flat_map(|discovery| discovery.inherited()).collect()
    }

    /// A line for each cluster that has no address, where the generation that serves has none either.
    pub fn still_missing(&self) -> Vec<String> {
        self.discoveries.iter().filter_map(|discovery| discovery.still_missing()).collect()
    }

    /// A line for each other cluster whose names gave no address at all.
    pub fn missing(&self) -> Vec<String> {
        self.discoveries.iter().filter_map(|discovery| discovery.missing()).collect()
    }

    /// Keeps the DNS clusters fresh; never returns. Runs on the main thread's runtime.
    pub async fn run_refresh(&self) {
        discovery::refresh(&self.discoveries).await;
    }
}

//! All clusters of a generation and the task that keeps their DNS endpoints fresh.
//!
//! A [`ClusterTable`] is a snapshot: it is replaced whole when a cluster comes, changes or goes. Its
//! positions stay: a [`ClusterIndex`] means the same name for as long as the process lives.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use baton_contract::message::Resolved;
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
};

use super::{
    discovery::{self, Discovery, Wait},
    endpoint::{Endpoint, EndpointAddress, EndpointInfo, EndpointSet},
    resolver::{Resolve, SystemResolver},
};
use crate::config::{
    cluster::{Cluster, EndpointConfig},
    model::{Address, Bootstrap, ClusterIndex},
};

/// One cluster: its configuration and the endpoints it has now.
#[derive(Debug)]
pub struct ClusterState {
    /// What the configuration says.
    pub config: Arc<Cluster>,
    /// Replaced whole by the main thread, which is its only writer: by the DNS refresh, or by what a
    /// resource of endpoints says.
    pub(super) endpoints: ArcSwap<EndpointSet>,
    /// What the refresh did; that of all its successors.
    pub updates: Arc<Updates>,
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

    /// Replaces the set when it differs from the present one.
    pub(super) fn set_endpoints(&self, endpoints: Vec<Arc<Endpoint>>) {
        let present = self.endpoints.load();
        let next = EndpointSet::new(endpoints, present.version.saturating_add(1));
        if present.is_same(&next) {
            return;
        }
        if !present.has_same_members(&next) {
            self.updates.membership_change.fetch_add(1, Relaxed);
        }
        self.endpoints.store(Arc::new(next));
    }

    /// Takes over what a resource says about the endpoints. All addresses are literal.
    pub fn assign(&self, endpoints: &[EndpointConfig]) {
        let known = self.endpoints.load();
        let mut addresses = std::collections::HashSet::with_capacity(endpoints.len());
        let found = endpoints.iter().filter_map(|config| {
            let address = match &config.address {
                Address::Ip(address) => EndpointAddress::Ip(*address),
                Address::Pipe { path, .. } => EndpointAddress::Pipe(path.as_path().into()),
                Address::Name { .. } => return None,
            };
            let info = EndpointInfo::of(config);
            addresses.insert(address.clone()).then(|| known.take_over(address, &info))
        });
        self.set_endpoints(found.collect());
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

/// The clusters at one moment.
#[derive(Debug, Default)]
pub struct ClusterTable {
    /// By [`ClusterIndex`]; a cluster that is named somewhere and not there has none.
    slots: Vec<Option<Arc<ClusterState>>>,
    /// Shared with the tables before as long as no name comes or goes.
    names: Arc<HashMap<String, ClusterIndex>>,
}

impl ClusterTable {
    /// The cluster at a position, if there is one by now.
    pub fn get(&self, index: ClusterIndex) -> Option<&Arc<ClusterState>> {
        self.slots.get(index.0)?.as_ref()
    }

    /// Finds a cluster for `cluster_header`.
    pub fn by_name(&self, name: &str) -> Option<ClusterIndex> {
        self.names.get(name).copied()
    }

    /// All clusters, those of the file first, in its order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ClusterState>> {
        self.slots.iter().flatten()
    }

    /// Number of clusters.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no cluster.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Number of positions.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }
}

/// A cluster before it is one: it has its endpoints, or asks for them.
#[derive(Debug)]
pub struct Candidate {
    index: ClusterIndex,
    state: Arc<ClusterState>,
    discovery: Option<Arc<Discovery>>,
}

impl Candidate {
    /// The cluster.
    pub fn state(&self) -> &Arc<ClusterState> {
        &self.state
    }

    /// Its position.
    pub fn index(&self) -> ClusterIndex {
        self.index
    }

    /// Whether it asks DNS and has no address yet.
    pub fn is_cold(&self) -> bool {
        self.discovery.as_ref().is_some_and(|discovery| discovery.is_empty())
    }

    /// Waits for the first answers of DNS, at most `timeout`.
    pub async fn warm(&self, timeout: Duration) {
        if let Some(discovery) = &self.discovery {
            discovery::warm(std::slice::from_ref(discovery), timeout, Wait::FirstResult).await;
        }
    }
}

/// What becomes of a cluster.
#[derive(Debug)]
pub enum Change {
    /// It is there from now on, or in place of the one of its name.
    Put(Candidate),
    /// It is gone.
    Remove(ClusterIndex),
}

/// All clusters. Shared by every thread; only the main thread changes it.
#[derive(Debug)]
pub struct ClusterManager {
    table: ArcSwap<ClusterTable>,
    resolver: Arc<dyn Resolve>,
    discoveries: Mutex<Vec<Arc<Discovery>>>,
    /// There are other discoveries.
    changed: Notify,
}

impl ClusterManager {
    /// Makes the clusters; names are resolved as the system is set up to.
    pub fn new(bootstrap: &Bootstrap) -> Arc<Self> {
        let resolver: Arc<dyn Resolve> = Arc::new(SystemResolver::default());
        Self::with_resolver(bootstrap, &resolver)
    }

    /// Makes the clusters; those with literal addresses have their endpoints at once.
    pub fn with_resolver(bootstrap: &Bootstrap, resolver: &Arc<dyn Resolve>) -> Arc<Self> {
        let manager = Self {
            table: ArcSwap::default(),
            resolver: Arc::clone(resolver),
            discoveries: Mutex::default(),
            changed: Notify::new(),
        };
        let is_counted = bootstrap.clusters.len() <= COUNTED_MAX;
        let clusters = bootstrap.clusters.iter().enumerate();
        let put = clusters.map(|(at, config)| {
            Change::Put(manager.candidate_of(ClusterIndex(at), config, is_counted))
        });
        manager.apply(put.collect());
        Arc::new(manager)
    }

    /// The clusters as they are now.
    pub fn table(&self) -> Arc<ClusterTable> {
        self.table.load_full()
    }

    /// A cluster that is to come, or to be in place of the one at this position, whose endpoints it takes
    /// over. `of` is how many clusters there will be.
    pub fn candidate(&self, index: ClusterIndex, config: &Arc<Cluster>, of: usize) -> Candidate {
        let clusters = of.max(self.table.load().len());
        self.candidate_of(index, config, clusters <= COUNTED_MAX)
    }

    fn candidate_of(
        &self,
        index: ClusterIndex,
        config: &Arc<Cluster>,
        is_counted: bool,
    ) -> Candidate {
        let table = self.table.load();
        let before = table.get(index);
        let endpoints = before.map(|before| before.endpoints.load_full()).unwrap_or_default();
        let was_counted = before.is_some_and(|before| before.is_counted());
        let state = Arc::new(ClusterState {
            config: Arc::clone(config),
            endpoints: ArcSwap::new(endpoints),
            updates: before.map(|before| Arc::clone(&before.updates)).unwrap_or_default(),
            counted: AtomicBool::new(is_counted || was_counted),
        });
        let discovery = Discovery::new(&state, &self.resolver);
        if let Some(before) = before {
            self.lock().iter().filter(|d| d.is_of(before)).for_each(|d| discovery.continue_from(d));
        }
        let discovery = discovery.needs_dns().then(|| Arc::new(discovery));
        Candidate { index, state, discovery }
    }

    /// Publishes a table with these changes. The threads take it up when they are told to.
    pub fn apply(&self, changes: Vec<Change>) {
        let table = self.table.load();
        let mut next = ClusterTable { slots: table.slots.clone(), names: Arc::clone(&table.names) };
        let mut discoveries = self.lock();
        for change in changes {
            let (index, candidate) = match change {
                Change::Put(candidate) => (candidate.index, Some(candidate)),
                Change::Remove(index) => (index, None),
            };
            if next.slots.len() <= index.0 {
                next.slots.resize(index.0 + 1, None);
            }
            let Some(slot) = next.slots.get_mut(index.0) else { continue };
            let before = slot.take();
            let name = |state: &Arc<ClusterState>| state.config.name.clone();
            match (before.as_ref().map(name), candidate.as_ref().map(|it| name(&it.state))) {
                (Some(before), Some(now)) if before == now => {}
                (before, now) => {
                    let names = Arc::make_mut(&mut next.names);
                    before.map(|name| names.remove(&name));
                    now.map(|name| names.insert(name, index));
                }
            }
            if let Some(before) = before {
                discoveries.retain(|discovery| !discovery.is_of(&before));
            }
            if let Some(Candidate { state, discovery, .. }) = candidate {
                *slot = Some(state);
                discoveries.extend(discovery);
            }
        }
        drop(discoveries);
        self.table.store(Arc::new(next));
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Discovery>>> {
        // A panic of another holder cannot leave the list half changed.
        self.discoveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that ask DNS.
    pub(super) fn discoveries(&self) -> Vec<Arc<Discovery>> {
        self.lock().clone()
    }

    /// Waits for the first answers of DNS, at most `timeout`. Returns at once when all addresses are
    /// literal. What has no answer yet starts empty, or with what it inherited.
    pub async fn warm(&self, timeout: Duration, wait: Wait) {
        discovery::warm(&self.discoveries(), timeout, wait).await;
    }

    /// Begins with what older generations knew; to be called before [`Self::warm`].
    pub fn inherit(&self, answers: &[Resolved]) {
        let mut known = HashMap::with_capacity(answers.len());
        for Resolved { cluster, name, addresses } in answers {
            known.insert((cluster.as_str(), name.as_str()), addresses.as_slice());
        }
        for discovery in self.lock().iter() {
            discovery.inherit(&known);
        }
    }

    /// What names resolve to, as far as it changed since the last call.
    pub fn take_news(&self) -> Vec<Resolved> {
        self.lock().iter().flat_map(|discovery| discovery.take_news()).collect()
    }

    /// The next [`Self::take_news`] has everything.
    pub fn tell_again(&self) {
        self.lock().iter().for_each(|discovery| discovery.tell_again());
    }

    /// The next [`Self::take_news`] has the names without an address, and those of their clusters.
    pub fn tell_lacks(&self) {
        self.lock().iter().for_each(|discovery| discovery.tell_lacks());
    }

    /// A line for each name that goes on with what older generations knew.
    pub fn inherited(&self) -> Vec<String> {
        self.lock().iter().flat_map(|discovery| discovery.inherited()).collect()
    }

    /// A line for each cluster that has no address, where the generation that serves has none either.
    pub fn still_missing(&self) -> Vec<String> {
        self.lock().iter().filter_map(|discovery| discovery.still_missing()).collect()
    }

    /// A line for each other cluster whose names gave no address at all.
    pub fn missing(&self) -> Vec<String> {
        self.lock().iter().filter_map(|discovery| discovery.missing()).collect()
    }

    /// Keeps the DNS clusters fresh; never returns. Runs on the main thread's runtime.
    pub async fn run_refresh(&self) {
        let mut tasks = JoinSet::new();
        let mut running: Vec<(Arc<Discovery>, Vec<AbortHandle>)> = Vec::new();
        loop {
            let wanted = self.discoveries();
            let is_in = |list: &[Arc<Discovery>], one: &Arc<Discovery>| {
                list.iter().any(|discovery| Arc::ptr_eq(discovery, one))
            };
            let gone = running.extract_if(.., |(one, _)| !is_in(&wanted, one));
            gone.flat_map(|(_, asking)| asking).for_each(|asking| asking.abort());
            let known: Vec<_> = running.iter().map(|(one, _)| Arc::clone(one)).collect();
            for discovery in wanted.into_iter().filter(|one| !is_in(&known, one)) {
                let asking = discovery.keep_fresh(&mut tasks);
                running.push((discovery, asking));
            }
            tokio::select! {
                () = self.changed.notified() => {}
                // One ends only with its cluster.
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

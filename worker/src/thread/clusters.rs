//! The clusters as one thread sees them: with its statistics, its idle connections, and its turn among
//! the endpoints.

use std::{cell::RefCell, collections::HashSet, rc::Rc, sync::Arc, time::Instant};

use crate::{
    cluster::{
        ClusterState, ClusterTable, Endpoint,
        balance::{PickContext, Picker},
        endpoint::{EndpointAddress, EndpointInfo},
    },
    config::model::ClusterIndex,
    stats::{ClusterStats, ThreadStats},
    upstream::pool::Pool,
};

/// The thread's side of the clusters.
#[derive(Debug)]
pub(super) struct ThreadClusters {
    /// The clusters there are, as far as this thread was told.
    table: RefCell<Arc<ClusterTable>>,
    /// Those it uses, by position.
    made: RefCell<Vec<Option<Rc<ThreadCluster>>>>,
}

impl ThreadClusters {
    /// Makes only those whose statistics are wanted before they are used: of ten thousand clusters
    /// a thread may never use most, and each has fourteen kilobytes of statistics.
    pub(super) fn new(stats: &ThreadStats, table: Arc<ClusterTable>) -> Self {
        let clusters = Self { table: RefCell::default(), made: RefCell::default() };
        clusters.update(stats, table);
        clusters
    }

    /// Position of a cluster, by name.
    pub(super) fn by_name(&self, name: &str) -> Option<ClusterIndex> {
        self.table.borrow().by_name(name)
    }

    /// Those that are used.
    pub(super) fn used(&self) -> Vec<Rc<ThreadCluster>> {
        self.made.borrow().iter().flatten().map(Rc::clone).collect()
    }

    /// A cluster, made when it is used first.
    pub(super) fn get(
        &self,
        stats: &ThreadStats,
        index: ClusterIndex,
    ) -> Option<Rc<ThreadCluster>> {
        if let Some(Some(made)) = self.made.borrow().get(index.0) {
            return Some(Rc::clone(made));
        }
        let cluster = ThreadCluster::new(stats, self.table.borrow().get(index)?);
        if let Some(slot) = self.made.borrow_mut().get_mut(index.0) {
            *slot = Some(Rc::clone(&cluster));
        }
        Some(cluster)
    }

    /// Takes up another table.
    pub(super) fn update(&self, stats: &ThreadStats, table: Arc<ClusterTable>) {
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
                (Some(gone), None) => {
                    // Requests that are in progress hold it, perhaps for long.
                    gone.pool.borrow_mut().close();
                    None
                }
                (None, Some(_) | None) => None,
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
    /// Numbers of the endpoints, for a look through the pool for connections to others; and the version
    /// of the set they are of.
    known: RefCell<(u64, HashSet<u64>)>,
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
            known: RefCell::default(),
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
        } else {
            known.pool.borrow_mut().close();
        }
        cluster.name = Arc::clone(&known.name);
        Rc::new(cluster)
    }

    /// Closes idle connections that ended, are idle for too long, or lead to endpoints that are gone.
    pub(super) fn sweep(&self, now: Instant) {
        let mut pool = self.pool.borrow_mut();
        let endpoints = self.state.endpoints();
        // One that was taken over before DNS gave the cluster any is in no set.
        if !pool.is_empty() && !endpoints.endpoints.is_empty() {
            let mut known = self.known.borrow_mut();
            if known.0 != endpoints.version {
                let ids = endpoints.endpoints.iter().map(|endpoint| endpoint.id);
                *known = (endpoints.version, ids.collect());
            }
            pool.retain_endpoints(&known.1);
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
    use crate::cluster::{Change, ClusterManager, balance::Further};
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

    /// A cluster with one endpoint.
    fn cluster(name: &str, timeout: &str) -> Arc<crate::config::cluster::Cluster> {
        let address =
            serde_json::json!({"socket_address": {"address": "10.0.0.1", "port_value": 80}});
        let endpoints = serde_json::json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
        let config = serde_json::json!({
            "static_resources": {"clusters": [{
                "name": name,
                "connect_timeout": timeout,
                "load_assignment": {"cluster_name": name, "endpoints": endpoints},
            }]},
            "admin": {"address": {"pipe": {"path": "@admin"}}},
        });
        let source =
            Source { path: PathBuf::from("envoy.json"), bytes: config.to_string().into_bytes() };
        Arc::clone(&load(&source, &LoadOptions::default()).unwrap().bootstrap.clusters[0])
    }

    #[test]
    fn many_clusters_that_come_at_once_have_no_statistics_before_they_are_used() {
        for (count, counted) in [(100, 100), (101, 0)] {
            let manager = manager(0);
            let put = (0..count).map(|at| {
                let config = cluster(&format!("c{at}"), "1s");
                Change::Put(manager.candidate(ClusterIndex(at), &config, count))
            });
            manager.apply(put.collect());
            let table = manager.table();
            assert_eq!(table.len(), count);
            assert_eq!(table.iter().filter(|state| state.is_counted()).count(), counted);
        }
    }

    #[test]
    fn a_changed_cluster_keeps_its_endpoints_its_pool_and_its_place() {
        let manager = manager(0);
        let put = |config: &Arc<_>| {
            manager.apply(vec![Change::Put(manager.candidate(ClusterIndex(3), config, 1))]);
        };
        put(&cluster("a", "1s"));
        let stats = ThreadStats::detached();
        let threads = ThreadClusters::new(&stats, manager.table());
        let before = threads.get(&stats, ClusterIndex(3)).unwrap();
        put(&cluster("a", "2s"));
        threads.update(&stats, manager.table());
        let after = threads.get(&stats, threads.by_name("a").unwrap()).unwrap();
        assert_eq!(after.state.config.connect_timeout, std::time::Duration::from_secs(2));
        assert!(Rc::ptr_eq(&before.pool, &after.pool) && Rc::ptr_eq(&before.stats, &after.stats));
        assert_eq!(before.pick().unwrap().id, after.pick().unwrap().id);
        manager.apply(vec![Change::Remove(ClusterIndex(3))]);
        threads.update(&stats, manager.table());
        assert!(threads.by_name("a").is_none() && threads.get(&stats, ClusterIndex(3)).is_none());
        assert!(before.pick().is_some(), "what is in progress keeps the one it has");
    }
}

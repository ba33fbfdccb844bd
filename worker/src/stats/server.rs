//! `server.*`, `cluster_manager.*` and `listener_manager.*`: facts of the generation, kept by its
//! main thread.

use std::cell::OnceCell;

use super::{
    MetricName, ThreadStats,
    changes::{ClusterChangeStats, ListenerChangeStats},
    table::group,
};

group! {
    /// Envoy's `server.*`. What can be told from the clock and the generation table (`uptime`,
    /// `live`, connections, memory) is added when it is shown.
    pub struct Server, rows SERVER_ROWS, lazy [];
    local_gauge concurrency "Worker threads.";
    histogram initialization_time_ms "Time from the start of the process to serving, ms.";
}

group! {
    /// Envoy's `cluster_manager.*`.
    pub struct ClusterManagerStats, rows CLUSTER_MANAGER_ROWS, lazy [];
    counter cluster_added "Clusters added.";
    local_gauge active_clusters "Clusters in use.";
}

group! {
    /// Envoy's `listener_manager.*`.
    pub struct ListenerManagerStats, rows LISTENER_MANAGER_ROWS, lazy [];
    counter listener_added "Listeners added.";
    counter listener_stopped "Listeners stopped.";
    counter listener_create_success "Listeners started on a thread.";
    local_gauge total_listeners_active "Listeners that accept connections.";
    gauge total_listeners_draining "Listeners that are draining.";
    local_gauge workers_started "1 when all worker threads run.";
}

/// What the main thread of a generation keeps.
#[derive(Clone, Debug)]
pub struct ServerStats {
    /// `server.*`.
    pub server: Server,
    /// `cluster_manager.*`.
    pub cluster_manager: ClusterManagerStats,
    /// `listener_manager.*`.
    pub listener_manager: ListenerManagerStats,
    stats: ThreadStats,
    cluster_changes: OnceCell<ClusterChangeStats>,
    listener_changes: OnceCell<ListenerChangeStats>,
}

impl ServerStats {
    /// The statistics of the main thread.
    pub fn new(stats: &ThreadStats) -> Self {
        let plain =
            |scope: &'static str| move |name: &str| MetricName::plain(format!("{scope}.{name}"));
        Self {
            server: Server::define(stats, plain("server")),
            cluster_manager: ClusterManagerStats::define(stats, plain("cluster_manager")),
            listener_manager: ListenerManagerStats::define(stats, plain("listener_manager")),
            stats: stats.clone(),
            cluster_changes: OnceCell::new(),
            listener_changes: OnceCell::new(),
        }
    }

    /// `cluster_manager.*` about clusters that change, made when one does.
    pub fn cluster_changes(&self) -> &ClusterChangeStats {
        self.cluster_changes.get_or_init(|| ClusterChangeStats::new(&self.stats))
    }

    /// `listener_manager.*` about listeners that change, made when one does.
    pub fn listener_changes(&self) -> &ListenerChangeStats {
        self.listener_changes.get_or_init(|| ListenerChangeStats::new(&self.stats))
    }

    /// So many listeners are served by another generation, or by none.
    pub fn stopped(&self, listeners: usize) {
        let listeners = u64::try_from(listeners).unwrap_or(u64::MAX);
        let stats = &self.listener_manager;
        if stats.total_listeners_draining.value() == 0 {
            stats.listener_stopped.add(listeners);
        }
        stats.total_listeners_draining.set(listeners);
        stats.total_listeners_active.set(0);
    }
}

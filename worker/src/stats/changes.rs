//! What the main thread counts of clusters and listeners that change while a generation serves. Made when
//! the first one does: plain configurations have none of them.

use super::{MetricName, ThreadStats, table::group};

group! {
    /// Envoy's `cluster_manager.*` about clusters that change.
    pub struct ClusterChangeStats, rows CLUSTER_ROWS, lazy [];
    counter cluster_modified "Clusters that were replaced by another version.";
    counter cluster_removed "Clusters that were removed.";
}

group! {
    /// Envoy's `listener_manager.*` about listeners that change.
    pub struct ListenerChangeStats, rows LISTENER_ROWS, lazy [];
    counter listener_modified "Listeners that were replaced by another version.";
    counter listener_removed "Listeners that were removed.";
    counter listener_create_failure "Listeners that could not be used.";
}

impl ClusterChangeStats {
    /// In the slab of the calling thread.
    pub fn new(stats: &ThreadStats) -> Self {
        Self::define(stats, |name| MetricName::plain(format!("cluster_manager.{name}")))
    }
}

impl ListenerChangeStats {
    /// In the slab of the calling thread.
    pub fn new(stats: &ThreadStats) -> Self {
        Self::define(stats, |name| MetricName::plain(format!("listener_manager.{name}")))
    }
}

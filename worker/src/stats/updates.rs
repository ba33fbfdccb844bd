//! What the main thread counts of the files that resources come from.

use super::{Counter, MetricName, ThreadStats, table::Row, table::group};

group! {
    /// Envoy's `update_*` of a subscription: `cluster_manager.cds.*`, `listener_manager.lds.*`,
    /// `http.<stat_prefix>.rds.<route_config_name>.*`, `cluster.<name>.*`.
    pub struct UpdateStats, rows ROWS, lazy [config_reload: Option<Counter>, update_empty: Option<Counter>];
    counter update_attempt "Times the resources were read.";
    counter update_success "Times the resources were accepted as a whole.";
    counter update_failure "Times the resources could not be read.";
    counter update_rejected "Times a resource was refused.";
    counter init_fetch_timeout "Times nothing came within the time for it.";
}

/// Those that not every kind of resource has.
pub(super) const MORE_ROWS: &[Row] = &[
    Row { name: "config_reload", help: "Times a resource changed." },
    Row { name: "update_empty", help: "Times there was no resource." },
];

impl UpdateStats {
    /// Of clusters.
    pub fn clusters(stats: &ThreadStats) -> Self {
        let name = |name: &str| MetricName::plain(format!("cluster_manager.cds.{name}"));
        Self::define(stats, name, Some(stats.counter(&name("config_reload"))), None)
    }

    /// Of listeners.
    pub fn listeners(stats: &ThreadStats) -> Self {
        let name = |name: &str| MetricName::plain(format!("listener_manager.lds.{name}"));
        Self::define(stats, name, None, None)
    }

    /// Of the table of routes `routes`, which a connection manager with this `stat_prefix` asked for.
    pub fn routes(stats: &ThreadStats, prefix: &str, routes: &str) -> Self {
        let name = |name: &str| {
            MetricName::tagged(
                format!("http.{prefix}.rds.{routes}.{name}"),
                format!("http.rds.{name}"),
                &[("envoy.rds_route_config", routes), ("envoy.http_conn_manager_prefix", prefix)],
            )
        };
        let reload = stats.counter(&name("config_reload"));
        Self::define(stats, name, Some(reload), Some(stats.counter(&name("update_empty"))))
    }

    /// Of the endpoints of the cluster with this `stat_name`.
    pub fn endpoints(stats: &ThreadStats, cluster: &str) -> Self {
        let name = |name: &str| super::cluster::metric(cluster, name);
        Self::define(stats, name, None, Some(stats.counter(&name("update_empty"))))
    }

    /// Adds to `config_reload`, for a kind that has it.
    pub fn reloaded(&self, times: u64) {
        self.config_reload.iter().for_each(|it| it.add(times));
    }

    /// Adds to `update_empty`, for a kind that has it.
    pub fn was_empty(&self, times: u64) {
        self.update_empty.iter().for_each(|it| it.add(times));
    }
}

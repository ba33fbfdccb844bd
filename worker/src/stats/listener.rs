//! `listener.<address>.*`: what happens to accepted connections before a filter sees them.

use super::{MetricName, ThreadStats, table::group};

group! {
    /// Envoy's `listener.<address>.*`.
    pub struct ListenerStats, rows ROWS, lazy [];
    counter downstream_cx_total "Connections accepted.";
    gauge downstream_cx_active "Connections open.";
    counter downstream_cx_destroy "Connections ended.";
    counter downstream_cx_overflow "Connections refused because of the listener's limit.";
    counter downstream_global_cx_overflow "Connections refused because of the limit of all listeners.";
    counter no_filter_chain_match "Connections closed because no filter chain matches.";
    histogram downstream_cx_length_ms "Life of connections, ms.";
}

impl ListenerStats {
    /// The statistics of the listener with this `stat_prefix`, `0.0.0.0_10000`.
    pub fn new(stats: &ThreadStats, address: &str) -> Self {
        Self::define(stats, |name| {
            MetricName::tagged(
                format!("listener.{address}.{name}"),
                format!("listener.{name}"),
                &[("envoy.listener_address", address)],
            )
        })
    }
}

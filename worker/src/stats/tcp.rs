//! `tcp.<stat_prefix>.*`: what the TCP proxy filter counts.

use super::{MetricName, ThreadStats, table::group};

group! {
    /// Envoy's `tcp.<stat_prefix>.*`.
    pub struct TcpStats, rows ROWS, lazy [];
    counter downstream_cx_total "Connections handled.";
    counter downstream_cx_rx_bytes_total "Bytes received from clients.";
    counter downstream_cx_tx_bytes_total "Bytes sent to clients.";
    counter idle_timeout "Connections closed because they were idle.";
    counter max_downstream_connection_duration "Connections closed because of their age.";
}

impl TcpStats {
    /// The statistics of the TCP proxy with this `stat_prefix`.
    pub fn new(stats: &ThreadStats, prefix: &str) -> Self {
        Self::define(stats, |name| {
            MetricName::tagged(
                format!("tcp.{prefix}.{name}"),
                format!("tcp.{name}"),
                &[("envoy.tcp_prefix", prefix)],
            )
        })
    }
}

//! `tcp.<stat_prefix>.*`: what the TCP proxy filter counts.

use super::{MetricName, ThreadStats, table::group};

group! {
    /// Envoy's `tcp.<stat_prefix>.*`.
    pub struct TcpStats, rows ROWS, lazy [];
    counter downstream_cx_total "Connections handled.";
    counter downstream_cx_no_route "Connections without a cluster.";
    counter downstream_cx_drain_close "Connections closed because of draining.";
    counter downstream_cx_rx_bytes_total "Bytes received from clients.";
    gauge downstream_cx_rx_bytes_buffered "Bytes received and not yet forwarded.";
    counter downstream_cx_tx_bytes_total "Bytes sent to clients.";
    gauge downstream_cx_tx_bytes_buffered "Bytes waiting to be sent to clients.";
    counter downstream_flow_control_paused_reading_total "Times reading stopped because a buffer was full.";
    counter downstream_flow_control_resumed_reading_total "Times reading went on.";
    counter idle_timeout "Connections closed because they were idle.";
    counter max_downstream_connection_duration "Connections closed because of their age.";
    counter upstream_flush_total "Connections whose upstream side was flushed after the client left.";
    gauge upstream_flush_active "Upstream sides that are being flushed.";
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

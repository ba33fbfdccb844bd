//! `http.<stat_prefix>.*`: what an HTTP connection manager counts on the downstream side.

use super::{Counter, MetricName, ThreadStats, table::Row, table::group};

/// Tag of the HTTP connection manager.
const PREFIX_TAG: &str = "envoy.http_conn_manager_prefix";

group! {
    /// Envoy's `http.<stat_prefix>.*`.
    pub struct HttpStats, rows ROWS, lazy [classes: [Counter; 5]];
    counter downstream_cx_total "Connections accepted.";
    gauge downstream_cx_active "Connections open.";
    counter downstream_cx_http1_total "HTTP/1 connections accepted.";
    gauge downstream_cx_http1_active "HTTP/1 connections open.";
    counter downstream_cx_destroy "Connections ended.";
    counter downstream_cx_destroy_remote "Connections ended by the client.";
    counter downstream_cx_destroy_local "Connections ended by the proxy.";
    counter downstream_cx_destroy_active_rq "Connections ended with a request in flight.";
    counter downstream_cx_destroy_remote_active_rq "Connections ended by the client with a request in flight.";
    counter downstream_cx_destroy_local_active_rq "Connections ended by the proxy with a request in flight.";
    counter downstream_cx_protocol_error "Connections ended by a violation of HTTP.";
    counter downstream_cx_idle_timeout "Connections closed because they were idle.";
    counter downstream_cx_max_duration_reached "Connections closed because of their age.";
    counter downstream_cx_max_requests_reached "Connections closed because of their number of requests.";
    counter downstream_cx_delayed_close_timeout "Connections closed because the client did not read the end.";
    counter downstream_cx_drain_close "Connections closed because of draining.";
    counter downstream_cx_rx_bytes_total "Bytes received from clients.";
    counter downstream_cx_tx_bytes_total "Bytes sent to clients.";
    counter downstream_cx_upgrades_total "Connections upgraded, as to WebSocket.";
    gauge downstream_cx_upgrades_active "Upgraded connections open.";
    histogram downstream_cx_length_ms "Life of connections, ms.";
    counter downstream_flow_control_paused_reading_total "Times reading stopped because a buffer was full.";
    counter downstream_flow_control_resumed_reading_total "Times reading went on.";
    counter downstream_rq_total "Requests received.";
    counter downstream_rq_http1_total "HTTP/1 requests received.";
    gauge downstream_rq_active "Requests in flight.";
    counter downstream_rq_completed "Requests answered.";
    counter downstream_rq_rx_reset "Requests given up by the client.";
    counter downstream_rq_tx_reset "Requests given up by the proxy.";
    counter downstream_rq_non_relative_path "Requests refused because their path does not begin with a slash.";
    counter downstream_rq_idle_timeout "Requests ended because they were idle.";
    counter downstream_rq_header_timeout "Requests whose headers did not come in time.";
    counter downstream_rq_timeout "Requests that did not come whole in time.";
    counter downstream_rq_too_large "Requests answered with 413, because a filter was to hold more than it may.";
    counter downstream_rq_ws_on_non_ws_route "Upgrades refused because they are not allowed.";
    counter downstream_rq_failed_path_normalization "Requests refused because of their path.";
    counter downstream_rq_redirected_with_normalized_path "Requests redirected to their normalised path.";
    counter downstream_rq_response_before_rq_complete "Responses sent before the request was whole.";
    counter no_route "Requests without a route.";
    counter no_cluster "Requests whose cluster does not exist.";
    counter rq_total "Requests that reached the router.";
    counter rq_direct_response "Requests answered by a direct response.";
    counter rq_redirect "Requests answered by a redirect.";
    counter rq_reset_after_downstream_response_started "Upstream failures after a response had begun.";
    histogram downstream_rq_time "Duration of requests, ms.";
}

pub(super) const CODE_ROWS: &[Row] =
    &[Row { name: "downstream_rq_xx", help: "Responses sent, by class of their status." }];

impl HttpStats {
    /// The statistics of the connection manager with this `stat_prefix`.
    pub fn new(stats: &ThreadStats, prefix: &str) -> Self {
        let classes = ["1", "2", "3", "4", "5"].map(|class| {
            stats.counter(&MetricName::tagged(
                format!("http.{prefix}.downstream_rq_{class}xx"),
                "http.downstream_rq_xx",
                &[("envoy.response_code_class", class), (PREFIX_TAG, prefix)],
            ))
        });
        Self::define(
            stats,
            |name| {
                MetricName::tagged(
                    format!("http.{prefix}.{name}"),
                    format!("http.{name}"),
                    &[(PREFIX_TAG, prefix)],
                )
            },
            classes,
        )
    }

    /// Counts a response by the class of its status, and as completed.
    #[inline]
    pub fn response(&self, status: u16) {
        self.downstream_rq_completed.inc();
        if let Some(class) = self.class(status) {
            class.inc();
        }
    }

    /// The counter of the class of a status, `None` when it is not one of HTTP's five.
    #[inline]
    pub fn class(&self, status: u16) -> Option<&Counter> {
        self.classes.get(usize::from(status / 100).wrapping_sub(1))
    }
}

//! `cluster.<name>.*`: what happens towards the endpoints of a cluster.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use super::{Counter, MetricName, ThreadStats, table::Row, table::group};

/// Tag of the cluster.
const CLUSTER_TAG: &str = "envoy.cluster_name";

group! {
    /// Envoy's `cluster.<name>.*`, without what [`MembershipStats`] has.
    pub struct ClusterStats, rows ROWS, lazy [codes: Rc<Codes>, retried: Rc<Codes>];
    counter upstream_cx_total "Connections begun.";
    gauge upstream_cx_active "Connections open.";
    counter upstream_cx_http1_total "HTTP/1 connections begun.";
    counter upstream_cx_connect_fail "Connections that failed before they were made.";
    counter upstream_cx_connect_timeout "Connections not made in time.";
    counter upstream_cx_connect_attempts_exceeded "Connections given up after all attempts.";
    counter upstream_cx_none_healthy "Times there was no endpoint to connect to.";
    counter upstream_cx_destroy "Connections ended.";
    counter upstream_cx_destroy_local "Connections ended by the proxy.";
    counter upstream_cx_destroy_remote "Connections ended by the endpoint.";
    counter upstream_cx_destroy_with_active_rq "Connections ended with a request in flight.";
    counter upstream_cx_destroy_local_with_active_rq "Connections ended by the proxy with a request in flight.";
    counter upstream_cx_destroy_remote_with_active_rq "Connections ended by the endpoint with a request in flight.";
    counter upstream_cx_close_notify "Connections closed because the endpoint said so.";
    counter upstream_cx_idle_timeout "Connections closed because they were idle.";
    counter upstream_cx_max_requests "Connections closed because of their number of requests.";
    counter upstream_cx_protocol_error "Connections ended by a violation of HTTP.";
    counter upstream_cx_rx_bytes_total "Bytes received from endpoints.";
    counter upstream_cx_tx_bytes_total "Bytes sent to endpoints.";
    histogram upstream_cx_connect_ms "Time to connect, ms.";
    histogram upstream_cx_length_ms "Life of connections, ms.";
    counter upstream_flow_control_paused_reading_total "Times reading stopped because a buffer was full.";
    counter upstream_flow_control_resumed_reading_total "Times reading went on.";
    counter upstream_rq_total "Requests sent.";
    gauge upstream_rq_active "Requests in flight.";
    counter upstream_rq_completed "Responses received.";
    counter upstream_rq_pending_total "Requests that waited for a connection.";
    gauge upstream_rq_pending_active "Requests waiting for a connection.";
    counter upstream_rq_pending_failure_eject "Requests failed because the connection failed.";
    counter upstream_rq_cancelled "Requests given up before a connection was made.";
    counter upstream_rq_timeout "Requests without a response in time.";
    counter upstream_rq_retry "Requests sent again.";
    counter upstream_rq_retry_success "Requests that succeeded when sent again.";
    counter upstream_rq_retry_backoff_exponential "Retries after a time of our own.";
    counter upstream_rq_retry_backoff_ratelimited "Retries after a time that a response named.";
    counter upstream_rq_retry_limit_exceeded "Requests that were tried as often as they may be.";
    counter upstream_rq_per_try_timeout "Tries that took longer than `per_try_timeout`.";
    counter upstream_rq_per_try_idle_timeout "Tries in which nothing moved for `per_try_idle_timeout`.";
    counter retry_or_shadow_abandoned "Bodies that were too large to be kept for a further try or for a copy.";
    histogram upstream_rq_time "Time from the request to the whole response, ms.";
    counter bind_errors "Failures to bind the source address.";
}

group! {
    /// The part of Envoy's `cluster.<name>.*` that is about the list of endpoints. The main thread
    /// keeps it, the rest is the business of the threads.
    pub struct MembershipStats, rows MEMBERSHIP_ROWS, lazy [];
    counter membership_change "Changes of the endpoints.";
    local_gauge membership_healthy "Healthy endpoints.";
    local_gauge membership_total "Endpoints.";
    counter update_attempt "Resolutions begun.";
    counter update_success "Resolutions that succeeded.";
    counter update_failure "Resolutions that failed.";
    counter update_empty "Resolutions without an address.";
    counter update_no_rebuild "Resolutions that changed nothing.";
}

pub(super) const CODE_ROWS: &[Row] = &[
    Row { name: "upstream_rq_xx", help: "Responses received, by class of their status." },
    Row { name: "upstream_rq", help: "Responses received, by status." },
    Row {
        name: "retry.upstream_rq_xx",
        help: "Responses that retries took the place of, by class.",
    },
    Row { name: "retry.upstream_rq", help: "Responses that retries took the place of, by status." },
    Row { name: "retry.upstream_rq_completed", help: "Responses that retries took the place of." },
];

/// Counters by status, made when a status is first seen.
#[derive(Debug)]
struct Codes {
    stats: ThreadStats,
    cluster: String,
    /// What stands before the names.
    prefix: &'static str,
    classes: RefCell<HashMap<u16, Counter>>,
    statuses: RefCell<HashMap<u16, Counter>>,
    /// Of responses that a retry took the place of.
    completed: OnceCell<Counter>,
}

impl ClusterStats {
    /// The statistics of the cluster with this `stat_name`.
    pub fn new(stats: &ThreadStats, cluster: &str) -> Self {
        let codes = |prefix| {
            Rc::new(Codes {
                stats: stats.clone(),
                cluster: cluster.to_owned(),
                prefix,
                classes: RefCell::default(),
                statuses: RefCell::default(),
                completed: OnceCell::new(),
            })
        };
        Self::define(stats, |name| metric(cluster, name), codes(""), codes("retry."))
    }

    /// Counts a response that a retry took the place of, in the same way under names of their own.
    pub fn retried_response(&self, status: u16) {
        let completed = || {
            let name = format!("{}upstream_rq_completed", self.retried.prefix);
            self.retried.stats.counter(&metric(&self.retried.cluster, &name))
        };
        self.retried.completed.get_or_init(completed).inc();
        if (100..600).contains(&status) {
            self.retried.count(status);
        }
    }

    /// Counts a response by its status, by the class of it, and as completed. Like in Envoy these
    /// counters appear with the first response; a status below 100 or above 599 has none.
    pub fn response(&self, status: u16) {
        self.upstream_rq_completed.inc();
        if (100..600).contains(&status) {
            self.codes.count(status);
        }
    }
}

impl MembershipStats {
    /// The statistics of the cluster with this `stat_name`.
    pub fn new(stats: &ThreadStats, cluster: &str) -> Self {
        Self::define(stats, |name| metric(cluster, name))
    }
}

pub(super) fn metric(cluster: &str, name: &str) -> MetricName {
    MetricName::tagged(
        format!("cluster.{cluster}.{name}"),
        format!("cluster.{name}"),
        &[(CLUSTER_TAG, cluster)],
    )
}

impl Codes {
    fn count(&self, status: u16) {
        let class = status / 100;
        let mut classes = self.classes.borrow_mut();
        classes.entry(class).or_insert_with(|| self.class_counter(class)).inc();
        let mut statuses = self.statuses.borrow_mut();
        statuses.entry(status).or_insert_with(|| self.status_counter(status)).inc();
    }

    fn class_counter(&self, class: u16) -> Counter {
        self.stats.counter(&MetricName::tagged(
            format!("cluster.{}.{}upstream_rq_{class}xx", self.cluster, self.prefix),
            format!("cluster.{}upstream_rq_xx", self.prefix),
            &[("envoy.response_code_class", &class.to_string()), (CLUSTER_TAG, &self.cluster)],
        ))
    }

    fn status_counter(&self, status: u16) -> Counter {
        self.stats.counter(&MetricName::tagged(
            format!("cluster.{}.{}upstream_rq_{status}", self.cluster, self.prefix),
            format!("cluster.{}upstream_rq", self.prefix),
            &[("envoy.response_code", &status.to_string()), (CLUSTER_TAG, &self.cluster)],
        ))
    }
}

//! Every statistic that is exported under a name of Envoy's moves when what it counts happens.
//!
//! [`SCENARIOS`] says what happens and which names that moves. A name that is exported and stands in no
//! scenario fails, so that nothing can be exported that is never fed.

mod house;
mod own;

use house::{House, open, say};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;

use crate::harness::client;
use crate::harness::eventually::eventually;

/// What happens, and the families that move. What it returns is kept open until they have.
type Scenario = (&'static str, fn(&House) -> Vec<TcpStream>, &'static [&'static str]);

/// What a program exports, by name.
type Read = fn(&House) -> BTreeMap<String, f64>;

/// The first scenario: what is there from the start moved then.
const START: &str = "the start";

const SCENARIOS: &[Scenario] = &[
    (
        START,
        |_| Vec::new(),
        &[
            "cluster_manager_active_clusters",
            "cluster_manager_cluster_added",
            "cluster_membership_change",
            "cluster_membership_healthy",
            "cluster_membership_total",
            "cluster_update_attempt",
            "cluster_update_empty",
            "cluster_update_failure",
            "listener_manager_listener_added",
            "listener_manager_listener_create_success",
            "listener_manager_total_listeners_active",
            "listener_manager_workers_started",
            "server_concurrency",
            "server_hot_restart_generation",
            "server_initialization_time_ms",
            "server_live",
            "server_memory_allocated",
            "server_memory_heap_size",
            "server_memory_physical_size",
            "server_uptime",
        ],
    ),
    (
        "a name that has an address, and has it still",
        House::name,
        &["cluster_update_no_rebuild", "cluster_update_success"],
    ),
    (
        "a request under way",
        |house| vec![house.begin("/hang")],
        &[
            "cluster_upstream_cx_active",
            "cluster_upstream_cx_connect_ms",
            "cluster_upstream_cx_http1_total",
            "cluster_upstream_cx_total",
            "cluster_upstream_cx_tx_bytes_total",
            "cluster_upstream_rq_active",
            "cluster_upstream_rq_pending_total",
            "cluster_upstream_rq_total",
            "http_downstream_cx_active",
            "http_downstream_cx_http1_active",
            "http_downstream_cx_http1_total",
            "http_downstream_cx_rx_bytes_total",
            "http_downstream_cx_total",
            "http_downstream_rq_active",
            "http_downstream_rq_http1_total",
            "http_downstream_rq_total",
            "http_rq_total",
            "listener_downstream_cx_active",
            "listener_downstream_cx_total",
            "server_total_connections",
        ],
    ),
    (
        "a client that is gone in the middle",
        |house| house.reset("/hang"),
        &[
            "cluster_upstream_cx_destroy",
            "cluster_upstream_cx_destroy_local",
            "cluster_upstream_cx_destroy_local_with_active_rq",
            "cluster_upstream_cx_destroy_with_active_rq",
            "cluster_upstream_cx_length_ms",
            "http_downstream_cx_destroy",
            "http_downstream_cx_destroy_active_rq",
            "http_downstream_cx_destroy_remote",
            "http_downstream_cx_destroy_remote_active_rq",
            "http_downstream_cx_length_ms",
            "http_downstream_rq_rx_reset",
            "listener_downstream_cx_destroy",
            "listener_downstream_cx_length_ms",
        ],
    ),
    (
        "a response",
        |house| house.get("/ok", 200),
        &[
            "cluster_upstream_cx_rx_bytes_total",
            "cluster_upstream_rq",
            "cluster_upstream_rq_completed",
            "cluster_upstream_rq_time",
            "cluster_upstream_rq_xx",
            "http_downstream_cx_tx_bytes_total",
            "http_downstream_rq_completed",
            "http_downstream_rq_time",
            "http_downstream_rq_xx",
        ],
    ),
    (
        "a last response of an endpoint",
        |house| house.get("/close", 200),
        &["cluster_upstream_cx_close_notify"],
    ),
    (
        "an endpoint that is gone in the middle",
        |house| house.get("/end", 503),
        &[
            "cluster_upstream_cx_destroy_remote",
            "cluster_upstream_cx_destroy_remote_with_active_rq",
        ],
    ),
    (
        "a pooled connection that ends as it is used",
        House::use_stale,
        &["cluster_upstream_rq_retry", "cluster_upstream_rq_retry_success"],
    ),
    (
        "a response that is tried again, and again in vain",
        |house| house.get("/again", 413),
        &[
            "cluster_retry_upstream_rq",
            "cluster_retry_upstream_rq_completed",
            "cluster_retry_upstream_rq_xx",
            "cluster_upstream_rq_retry_backoff_exponential",
            "cluster_upstream_rq_retry_limit_exceeded",
        ],
    ),
    (
        "a retry at a time that the response named",
        |house| house.get("/named", 413),
        &["cluster_upstream_rq_retry_backoff_ratelimited"],
    ),
    (
        "a try that takes too long",
        |house| house.get("/try_late", 504),
        &["cluster_upstream_rq_per_try_timeout"],
    ),
    (
        "a try in which nothing moves",
        |house| house.get("/try_idle", 504),
        &["cluster_upstream_rq_per_try_idle_timeout"],
    ),
    (
        "a body that is too large to be kept for a retry",
        |house| house.send("POST /again HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nx"),
        &["cluster_retry_or_shadow_abandoned"],
    ),
    (
        "a body that is too large to be held back",
        |house| house.send("POST /whole HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n123456"),
        &["http_downstream_rq_too_large"],
    ),
    (
        "a response that is none",
        |house| house.get("/bad", 502),
        &["cluster_upstream_cx_protocol_error"],
    ),
    (
        "half a response",
        |house| house.get_half("/half"),
        &["http_downstream_rq_tx_reset", "http_rq_reset_after_downstream_response_started"],
    ),
    ("no endpoint", |house| house.get("/empty", 503), &["cluster_upstream_cx_none_healthy"]),
    (
        "an endpoint that is not there",
        |house| house.get("/dead", 503),
        &["cluster_upstream_cx_connect_fail", "cluster_upstream_rq_pending_failure_eject"],
    ),
    (
        "a source address that is not ours",
        |house| house.get("/bind", 503),
        &["cluster_bind_errors"],
    ),
    (
        "an endpoint that does not answer the connect",
        |house| vec![house.begin("/full")],
        &["cluster_upstream_rq_pending_active", "cluster_upstream_cx_connect_timeout"],
    ),
    (
        "a client that is gone before the connect",
        |house| house.reset("/wait"),
        &["cluster_upstream_rq_cancelled"],
    ),
    ("a worn connection", |house| house.get("/worn", 200), &["cluster_upstream_cx_max_requests"]),
    (
        "an idle connection to an endpoint",
        |house| house.get("/rest", 200),
        &["cluster_upstream_cx_idle_timeout"],
    ),
    ("no response in time", |house| house.get("/late", 504), &["cluster_upstream_rq_timeout"]),
    (
        "a client that reads late",
        House::read_late,
        &[
            "cluster_upstream_flow_control_paused_reading_total",
            "cluster_upstream_flow_control_resumed_reading_total",
        ],
    ),
    (
        "an endpoint that reads late",
        House::send_much,
        &[
            "http_downstream_flow_control_paused_reading_total",
            "http_downstream_flow_control_resumed_reading_total",
        ],
    ),
    (
        "a client that does not read",
        House::never_read,
        &[
            "http_downstream_cx_destroy_local",
            "http_downstream_cx_destroy_local_active_rq",
            "http_downstream_rq_idle_timeout",
        ],
    ),
    (
        "an answer before the request is whole",
        |house| house.send("POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"),
        &[
            "http_downstream_rq_response_before_rq_complete",
            "http_downstream_cx_delayed_close_timeout",
        ],
    ),
    (
        "an upgrade",
        House::upgrade,
        &["http_downstream_cx_upgrades_active", "http_downstream_cx_upgrades_total"],
    ),
    (
        "an upgrade that is not allowed",
        |house| {
            house.send(
                "GET /ok HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
            )
        },
        &["http_downstream_rq_ws_on_non_ws_route"],
    ),
    (
        "a head that is none",
        |house| house.send("no head\r\n\r\n"),
        &["http_downstream_cx_protocol_error"],
    ),
    ("half a head", |house| house.send("GET /"), &["http_downstream_rq_header_timeout"]),
    (
        "half a body",
        |house| house.send("POST /hang HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n1"),
        &["http_downstream_rq_timeout"],
    ),
    (
        "a path that is none",
        |house| house.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"),
        &["http_downstream_rq_non_relative_path"],
    ),
    (
        "a path that is refused",
        |house| house.send("GET /a%2Fb HTTP/1.1\r\nhost: a\r\n\r\n"),
        &["http_downstream_rq_failed_path_normalization"],
    ),
    (
        "a path that is redirected",
        House::redirected,
        &["http_downstream_rq_redirected_with_normalized_path"],
    ),
    (
        "no virtual host",
        |house| house.send("GET / HTTP/1.1\r\nhost: nobody\r\n\r\n"),
        &["http_no_route"],
    ),
    ("no such cluster", |house| house.get("/nowhere", 503), &["http_no_cluster"]),
    ("a direct response", |house| house.get("/direct", 200), &["http_rq_direct_response"]),
    ("a redirect", |house| house.get("/moved", 301), &["http_rq_redirect"]),
    ("a client with nothing to say", House::idle, &["http_downstream_cx_idle_timeout"]),
    ("an old connection", House::old, &["http_downstream_cx_max_duration_reached"]),
    ("a connection with many requests", House::many, &["http_downstream_cx_max_requests_reached"]),
    ("no filter chain", |house| open(house.nobody), &["listener_no_filter_chain_match"]),
    ("a full listener", |house| open(house.full), &["listener_downstream_cx_overflow"]),
    ("too many clients", House::too_many, &["listener_downstream_global_cx_overflow"]),
    (
        "a tunnel with nothing to say",
        |house| open(house.tcp_idle),
        &["tcp_downstream_cx_total", "tcp_idle_timeout"],
    ),
    (
        "an old tunnel",
        |house| say(house.tcp_old),
        &[
            "tcp_downstream_cx_rx_bytes_total",
            "tcp_downstream_cx_tx_bytes_total",
            "tcp_max_downstream_connection_duration",
        ],
    ),
    (
        "a tunnel to nobody",
        |house| open(house.tcp_dead),
        &["cluster_upstream_cx_connect_attempts_exceeded"],
    ),
    (
        "a reload",
        House::reload,
        &[
            "http_downstream_cx_drain_close",
            "listener_manager_listener_stopped",
            "listener_manager_total_listeners_draining",
            "server_hot_restart_epoch",
            "server_parent_connections",
        ],
    ),
    ("a failed health check", House::fail_health, &["server_state"]),
];

/// What each family of Envoy's has, added up over its labels; of a histogram the count.
fn families(house: &House) -> BTreeMap<String, f64> {
    let text = client::get(house.admin, "/stats/prometheus").body;
    let mut families = BTreeMap::new();
    let mut histogram = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# TYPE envoy_") {
            let (name, kind) = name.split_once(' ').expect("a kind");
            histogram = (kind == "histogram").then(|| format!("{name}_count"));
            families.insert(name.to_owned(), 0.0);
        }
        let Some(sample) = line.strip_prefix("envoy_") else { continue };
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        let value: f64 =
            sample.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0.0);
        let family = match &histogram {
            Some(count) if name == count => name.trim_end_matches("_count"),
            Some(_) => continue,
            None => name,
        };
        *families.entry(family.to_owned()).or_default() += value;
    }
    families
}

/// Lets everything happen and waits for what it moves. `read` tells what is exported, `elsewhere` are
/// names that stand in no scenario.
fn walk(house: &House, scenarios: &[Scenario], elsewhere: &[&str], read: Read) {
    for (what, happen, names) in scenarios {
        let before = if *what == START { BTreeMap::new() } else { read(house) };
        let at = |now: &BTreeMap<String, f64>, name: &str| now.get(name).copied().unwrap_or(0.0);
        let held = happen(house);
        let mut waiting: BTreeSet<&str> = names.iter().copied().collect();
        eventually(what, || {
            let now = read(house);
            waiting.retain(|name| at(&now, name) <= at(&before, name));
            if waiting.is_empty() { Ok(()) } else { Err(format!("{waiting:?} did not move")) }
        });
        drop(held);
    }
    let names = scenarios.iter().flat_map(|(_, _, names)| *names).chain(elsewhere);
    let moved: BTreeSet<&str> = names.copied().collect();
    let exported = read(house);
    let never: Vec<_> = exported.keys().filter(|name| !moved.contains(name.as_str())).collect();
    assert!(never.is_empty(), "exported, and moved by no scenario: {never:?}");
}

#[test]
fn every_statistic_moves_when_what_it_counts_happens() {
    let house = House::start(&["--drain-strategy", "immediate"]);
    walk(&house, SCENARIOS, &[], families);
}

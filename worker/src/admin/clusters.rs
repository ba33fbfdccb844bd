//! `/clusters`: endpoints and what is counted for each, as text or JSON.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{AdminContext, Answer, query::Query};
use crate::{
    cluster::{ClusterState, Endpoint, EndpointAddress},
    config::pattern,
};

/// Envoy's circuit breaker defaults; other values cannot be configured yet.
const THRESHOLDS: [(&str, u32); 4] = [
    ("max_connections", 1024),
    ("max_pending_requests", 1024),
    ("max_requests", 1024),
    ("max_retries", 3),
];

/// Answers `/clusters`.
pub(super) fn answer(context: &AdminContext, query: &Query) -> Answer {
    let Ok(filter) = query.get("filter").map(pattern::search).transpose() else {
        return Answer::error(StatusCode::BAD_REQUEST, "Invalid re2 regex\n");
    };
    let table = context.clusters.table();
    let shown = |cluster: &&ClusterState| {
        filter.as_ref().is_none_or(|filter| filter.is_match(cluster.config.name.as_bytes()))
    };
    let clusters = table.iter().map(AsRef::as_ref).filter(shown);
    let known = context.static_clusters();
    let is_added = |cluster: &ClusterState| !known.contains(cluster.config.name.as_str());
    if query.get("format") == Some("json") {
        let statuses: Vec<_> = clusters.map(|cluster| json(cluster, is_added(cluster))).collect();
        return Answer::json(&json!({ "cluster_statuses": statuses }));
    }
    let mut out = String::new();
    for cluster in clusters {
        text(cluster, is_added(cluster), &mut out);
    }
    Answer::text(out)
}

fn text(cluster: &ClusterState, is_added: bool, out: &mut String) {
    let name = &cluster.config.name;
    // Writing to a string cannot fail, here and below.
    writeln!(out, "{name}::observability_name::{}", cluster.config.stat_name).ok();
    for priority in ["default", "high"] {
        for (limit, value) in THRESHOLDS {
            writeln!(out, "{name}::{priority}_priority::{limit}::{value}").ok();
        }
    }
    writeln!(out, "{name}::added_via_api::{is_added}").ok();
    for endpoint in &cluster.endpoints().endpoints {
        let address = endpoint.address();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(out, "{name}::{address}::{key}::{value}").ok();
        };
        for (key, value, _) in numbers(endpoint) {
            line(key, &value);
        }
        let info = &endpoint.info;
        line("hostname", &info.hostname);
        line("health_flags", &"healthy");
        line("weight", &info.weight);
        line("region", &"");
        line("zone", &info.zone);
        line("sub_zone", &"");
        line("canary", &false);
        line("priority", &info.priority);
        line("success_rate", &-1);
        line("local_origin_success_rate", &-1);
    }
}

/// Name, value, and whether it is a gauge.
fn numbers(endpoint: &Endpoint) -> [(&'static str, u64, bool); 9] {
    let stats = &endpoint.stats;
    [
        ("cx_active", stats.cx_active.load(Relaxed), true),
        ("cx_connect_fail", stats.cx_connect_fail.load(Relaxed), false),
        ("cx_total", stats.cx_total.load(Relaxed), false),
        ("rq_active", stats.rq_active.load(Relaxed), true),
        ("rq_error", stats.rq_error.load(Relaxed), false),
        ("rq_pending_active", 0, true),
        ("rq_success", stats.rq_success.load(Relaxed), false),
        ("rq_timeout", stats.rq_timeout.load(Relaxed), false),
        ("rq_total", stats.rq_total.load(Relaxed), false),
    ]
}

fn json(cluster: &ClusterState, is_added: bool) -> Value {
    let thresholds = |priority: Option<&str>| {
        let mut object = serde_json::Map::new();
        if let Some(priority) = priority {
            object.insert("priority".into(), priority.into());
        }
        object.extend(THRESHOLDS.map(|(name, value)| (name.to_owned(), value.into())));
        Value::Object(object)
    };
    let hosts: Vec<_> = cluster.endpoints().endpoints.iter().map(|e| host(e)).collect();
    let mut status = json!({
        "name": cluster.config.name,
        "host_statuses": hosts,
        "circuit_breakers": { "thresholds": [thresholds(None), thresholds(Some("HIGH"))] },
        "observability_name": cluster.config.stat_name,
    });
    if let (true, Some(fields)) = (is_added, status.as_object_mut()) {
        fields.shift_insert(1, "added_via_api".into(), true.into());
    }
    status
}

/// A host as protobuf's JSON: what is 0 or empty is left out.
fn host(endpoint: &Endpoint) -> Value {
    let stats = numbers(endpoint).map(|(name, value, is_gauge)| {
        let mut object = serde_json::Map::new();
        if is_gauge {
            object.insert("type".into(), "GAUGE".into());
        }
        if value != 0 {
            object.insert("value".into(), value.to_string().into());
        }
        object.insert("name".into(), name.into());
        Value::Object(object)
    });
    let info = &endpoint.info;
    let mut locality = serde_json::Map::new();
    if !info.zone.is_empty() {
        locality.insert("zone".into(), info.zone.as_str().into());
    }
    let mut object = json!({
        "address": address(&endpoint.address()),
        "stats": stats,
        "health_status": { "eds_health_status": "HEALTHY" },
        "weight": info.weight,
        "locality": locality,
    });
    if let Some(fields) = object.as_object_mut() {
        if !info.hostname.is_empty() {
            fields.insert("hostname".into(), info.hostname.as_str().into());
        }
        if info.priority != 0 {
            fields.insert("priority".into(), info.priority.into());
        }
    }
    object
}

pub(super) fn address(address: &EndpointAddress) -> Value {
    match address {
        EndpointAddress::Ip(ip) => json!({
            "socket_address": { "address": ip.ip().to_string(), "port_value": ip.port() }
        }),
        EndpointAddress::Pipe(path) => json!({ "pipe": { "path": &**path } }),
    }
}

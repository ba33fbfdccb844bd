//! `/listeners`: name and address of every listener of this generation, as text or JSON.

use serde_json::{Value, json};

use super::{AdminContext, Answer, query::Query};
use crate::config::model::Address;

/// Answers `/listeners`.
pub(super) fn answer(context: &AdminContext, query: &Query) -> Answer {
    let shown = context.shown.load();
    let listeners = &shown.listeners;
    if query.get("format") == Some("json") {
        let statuses = listeners.iter().map(|listener| {
            let mut addresses = listener.addresses.iter().map(json);
            let mut status = json!({ "name": listener.name, "local_address": addresses.next() });
            let more: Vec<_> = addresses.collect();
            if let (Some(status), false) = (status.as_object_mut(), more.is_empty()) {
                status.insert("additional_local_addresses".into(), more.into());
            }
            status
        });
        return Answer::json(&json!({ "listener_statuses": statuses.collect::<Vec<_>>() }));
    }
    let lines = listeners.iter().flat_map(|listener| {
        listener.addresses.iter().map(|at| format!("{}::{}\n", listener.name, text(at)))
    });
    Answer::text(lines.collect::<String>())
}

/// `127.0.0.1:10000`.
pub(super) fn text(address: &Address) -> String {
    match address {
        Address::Ip(ip) => ip.to_string(),
        Address::Name { host, port } => format!("{host}:{port}"),
        Address::Pipe { path, .. } => path.display().to_string(),
    }
}

fn json(address: &Address) -> Value {
    match address {
        Address::Ip(ip) => json!({
            "socket_address": { "address": ip.ip().to_string(), "port_value": ip.port() }
        }),
        Address::Name { host, port } => json!({
            "socket_address": { "address": host, "port_value": port }
        }),
        Address::Pipe { path, .. } => json!({ "pipe": { "path": path } }),
    }
}

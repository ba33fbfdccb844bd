//! `/ready`, `/server_info` and `/hot_restart_version`.

use std::time::Duration;

use baton_contract::{message::DrainStrategy, shm::mono_ms, version::hot_restart_version};
use hyper::StatusCode;
use serde_json::json;

use super::{AdminContext, Answer, extra::ServerState, query::Query};
use crate::clock;

/// Answers `/ready`.
pub(super) fn ready(context: &AdminContext, _: &Query) -> Answer {
    let state = ServerState::of(context);
    let status = match state {
        ServerState::Live => StatusCode::OK,
        ServerState::Draining | ServerState::Initializing => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer::text(format!("{}\n", state.as_str())).with_status(status)
}

/// Answers `/server_info`.
pub(super) fn server_info(context: &AdminContext, _: &Query) -> Answer {
    let options = &context.options;
    let uptime = clock::now().duration_since(context.started);
    let first = context.reader.generations().iter().map(|row| row.registered_ms).min();
    let all = first
        .map_or(uptime, |first| uptime.max(Duration::from_millis(mono_ms().saturating_sub(first))));
    let node = &context.bootstrap.node;
    // The first is not one of Envoy's.
    let strategy = match options.drain_strategy {
        DrainStrategy::Migrate => "Migrate",
        DrainStrategy::Gradual => "Gradual",
        DrainStrategy::Immediate => "Immediate",
    };
    Answer::json(&json!({
        "version": concat!("baton/", env!("CARGO_PKG_VERSION")),
        "state": ServerState::of(context).as_str(),
        "hot_restart_version": hot_restart_version(),
        "command_line_options": {
            "base_id": context.reader.base_id().to_string(),
            "concurrency": options.concurrency,
            "config_path": options.config_path,
            "restart_epoch": context.generation,
            "drain_time": seconds(options.drain_time),
            "parent_shutdown_time": seconds(options.parent_shutdown_time),
            "drain_strategy": strategy,
            "mode": "Serve",
        },
        "node": {
            "id": node.id,
            "cluster": node.cluster,
            "locality": { "zone": node.zone },
        },
        "uptime_current_epoch": seconds(uptime),
        "uptime_all_epochs": seconds(all),
    }))
}

/// A duration as protobuf's JSON, whole seconds.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

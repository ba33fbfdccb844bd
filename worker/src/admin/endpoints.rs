//! The table of endpoints.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use baton_contract::version::hot_restart_version;
use hyper::StatusCode;
use serde_json::json;

use super::{
    AdminAction, AdminContext, Answer, ListenersEnd, clusters, config_dump, extra::Memory,
    generations, info, init_dump, listeners, logging, page, query::Query, stats,
};
use crate::drain::Scope;

/// One path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) help: &'static str,
    /// Parameters and what they do.
    pub(super) parameters: &'static [(&'static str, &'static str)],
    /// It changes something, so it needs POST.
    pub(super) mutates: bool,
    pub(super) answer: fn(&AdminContext, &Query) -> Answer,
}

const fn reads(
    path: &'static str,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    answer: fn(&AdminContext, &Query) -> Answer,
) -> Endpoint {
    Endpoint { path, help, parameters, mutates: false, answer }
}

const fn changes(
    path: &'static str,
    help: &'static str,
    parameters: &'static [(&'static str, &'static str)],
    answer: fn(&AdminContext, &Query) -> Answer,
) -> Endpoint {
    Endpoint { path, help, parameters, mutates: true, answer }
}

const FILTER: (&str, &str) = ("filter", "Regular expression for the names that are shown");
const FORMAT: (&str, &str) = ("format", "text or json");
const USED: (&str, &str) = ("usedonly", "Only metrics that are not 0");
const INVERT: (&str, &str) = ("invert_filter", "Only names the filter does not find");

/// Every path, sorted.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    reads("/", "Admin home page", &[], page::answer),
    reads("/certs", "print certs on machine", &[], |_, _| {
        Answer::json(&json!({ "certificates": [] }))
    }),
    reads("/clusters", "upstream cluster status", &[FILTER, FORMAT], clusters::answer),
    reads(
        "/config_dump",
        "dump the configuration of this generation, secrets redacted",
        &[
            ("resource", "Dump only this list of resources, e.g. static_clusters"),
            ("mask", "Show only these fields, separated by commas"),
            ("name_regex", "Dump only resources whose name matches"),
            ("include_eds", "Dump the endpoints of clusters, too"),
        ],
        config_dump::answer,
    ),
    changes(
        "/drain_listeners",
        "drain listeners",
        &[
            ("graceful", "Tell clients during the drain time, then close the listeners"),
            ("skip_exit", "Tell clients, and never close the listeners"),
            ("inboundonly", "Drain only listeners with traffic_direction INBOUND"),
        ],
        drain_listeners,
    ),
    reads("/generations", "print every generation and its connections", &[], generations::answer),
    changes("/healthcheck/fail", "cause the server to fail health checks", &[], |context, _| {
        context.health_failed.store(true, Relaxed);
        act(context, AdminAction::FailHealthChecks(true))
    }),
    changes("/healthcheck/ok", "cause the server to pass health checks", &[], |context, _| {
        context.health_failed.store(false, Relaxed);
        act(context, AdminAction::FailHealthChecks(false))
    }),
    reads("/help", "print out list of admin commands", &[], |_, _| Answer::text(help())),
    reads("/hot_restart_version", "print the hot restart compatibility version", &[], |_, _| {
        Answer::text(hot_restart_version())
    }),
    reads(
        "/init_dump",
        "print what is still waited for",
        &[("mask", "listener: only what listeners wait for")],
        init_dump::answer,
    ),
    reads("/listeners", "print listener info", &[FORMAT], listeners::answer),
    changes(
        "/logging",
        "query/change logging levels",
        &[
            ("paths", "Change levels of components, <name>:<level>,<name>:<level>"),
            ("level", "Change the level of all components"),
        ],
        logging::answer,
    ),
    reads("/memory", "print current memory usage", &[], |_, _| {
        let memory = Memory::now();
        Answer::json(&json!({
            "allocated": memory.data.to_string(),
            "heap_size": memory.data.to_string(),
            "pageheap_unmapped": "0",
            "pageheap_free": "0",
            "total_thread_cache": "0",
            "total_physical_bytes": memory.resident.to_string(),
        }))
    }),
    changes("/quitquitquit", "exit the server", &[], |context, _| act(context, AdminAction::Quit)),
    reads(
        "/ready",
        "print server state, return 200 if LIVE, otherwise return 503",
        &[],
        info::ready,
    ),
    changes("/reopen_logs", "reopen access logs", &[], |context, _| {
        act(context, AdminAction::ReopenLogs)
    }),
    changes("/reset_counters", "reset all counters to zero", &[], |context, _| {
        tracing::info!(action = "reset counters", "asked for on the admin interface");
        match context.segment.reset_counters() {
            Ok(()) => Answer::text("OK\n"),
            Err(error) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    }),
    reads("/runtime", "print runtime values", &[], |_, _| {
        Answer::json(&json!({ "entries": {}, "layers": [] }))
    }),
    reads("/server_info", "print server version/status information", &[], info::server_info),
    reads(
        "/stats",
        "print server stats",
        &[
            USED,
            FILTER,
            INVERT,
            ("format", "text, json or prometheus"),
            ("type", "All, Counters, Gauges, Histograms or TextReadouts"),
        ],
        stats::answer,
    ),
    reads(
        "/stats/prometheus",
        "print server stats in prometheus format",
        &[USED, FILTER, INVERT],
        stats::prometheus,
    ),
];

fn act(context: &AdminContext, action: AdminAction) -> Answer {
    match context.actions.send(action) {
        Ok(()) => Answer::text("OK\n"),
        Err(_) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the server is ending\n"),
    }
}

/// As in Envoy a parameter counts when it is there, whatever its value.
fn drain_listeners(context: &AdminContext, query: &Query) -> Answer {
    let has = |name| query.get(name).is_some();
    let scope = if has("inboundonly") { Scope::Inbound } else { Scope::All };
    let end = match (has("skip_exit"), has("graceful")) {
        (true, _) => ListenersEnd::Never,
        (false, true) => ListenersEnd::AfterDrain,
        (false, false) => ListenersEnd::Now,
    };
    let answer = act(context, AdminAction::DrainListeners { scope, end });
    let closes = answer.status == StatusCode::OK && end != ListenersEnd::Never;
    if !closes || !context.options.supervisor_keeps_sockets {
        return answer;
    }
    Answer::text(
        "OK\nwarning: the supervisor is of an older version and keeps the sockets: new clients wait \
         instead of being refused\nhint: `baton upgrade` replaces it\n",
    )
}

/// The endpoint at a path; a slash at the end does not matter.
pub(super) fn find(path: &str) -> Option<&'static Endpoint> {
    let trimmed = match path.strip_suffix('/') {
        Some("") | None => path,
        Some(trimmed) => trimmed,
    };
    ENDPOINTS.iter().find(|endpoint| endpoint.path == trimmed)
}

/// What `/help` prints, in Envoy's form.
pub(super) fn help() -> String {
    let mut text = "admin commands are:\n".to_owned();
    for endpoint in ENDPOINTS {
        let post = if endpoint.mutates { " (POST)" } else { "" };
        // Writing to a string cannot fail.
        writeln!(text, "  {}{post}: {}", endpoint.path, endpoint.help).ok();
        for (name, help) in endpoint.parameters {
            writeln!(text, "      {name}: {help}").ok();
        }
    }
    text
}

//! Which lines are in the log: levels, and the components that can have one of their own.

use std::collections::BTreeMap;

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::filter::Targets;

/// Modules by the component they belong to; the first prefix that fits decides.
pub(super) const COMPONENTS: &[(&str, &str)] = &[
    ("baton_worker::cluster", "upstream"),
    ("baton_worker::upstream", "upstream"),
    ("baton_worker::config", "config"),
    ("baton_worker::http", "http"),
    ("baton_worker::filter::network::hcm", "http"),
    ("baton_worker::filter::http", "http"),
    ("baton_worker::filter", "filter"),
    ("baton_worker::route", "router"),
    ("baton_worker::listener", "connection"),
    ("baton_worker::admin", "admin"),
    ("baton_worker::handoff", "handoff"),
    ("baton_worker::access_log", "access_log"),
    ("baton_worker", "main"),
    ("baton_supervisor", "main"),
    ("baton", "main"),
];

/// Components that only Envoy has. Launchers set their levels, Istio's that of `misc`.
#[rustfmt::skip]
const ENVOYS: &[&str] = &[
    "a2a", "ai_protocol_manager", "alternate_protocols_cache", "assert", "aws", "backtrace",
    "basic_auth", "cache_filter", "client", "compression", "conn_handler", "credential_injector",
    "decompression", "dns", "dubbo", "dynamic_modules", "envoy_bug", "ext_authz", "ext_proc",
    "file", "forward_proxy", "geolocation", "golang", "grpc", "happy_eyeballs", "hc",
    "health_checker", "http2", "hystrix", "init", "io", "ip_tagging", "json_rpc", "jwt", "kafka",
    "key_value_store", "local_rate_limit", "lua", "matcher", "mcp", "misc", "mongo",
    "multi_connection", "notification", "oauth2", "pool", "quic", "quic_stream",
    "rate_limit_quota", "rbac", "rds", "redis", "rocketmq", "runtime", "secret", "sse", "stats",
    "stats_sinks", "tap", "testing", "thrift", "tracing", "udp", "wasm", "websocket",
];

#[derive(Clone, Debug)]
pub(super) struct Levels {
    pub(super) default: LevelFilter,
    pub(super) components: BTreeMap<String, LevelFilter>,
    /// Components that only Envoy has, whose level was given.
    pub(super) of_envoy: Vec<String>,
}

impl Levels {
    /// `components` is Envoy's `--component-log-level`, `http:debug,upstream:trace`.
    ///
    /// # Errors
    /// A sentence when a level or a component does not exist.
    pub(super) fn parse(level: &str, components: &str) -> Result<Self, String> {
        let default = parse_level(level)?;
        let mut levels = Self { default, components: BTreeMap::new(), of_envoy: Vec::new() };
        if components.is_empty() {
            return Ok(levels);
        }
        for entry in components.split(',') {
            let (component, level) = entry
                .split_once(':')
                .ok_or_else(|| format!("`{entry}` is not COMPONENT:LEVEL, as in `http:debug`"))?;
            let level = parse_level(level)?;
            if ENVOYS.contains(&component) {
                levels.of_envoy.push(component.to_owned());
            } else {
                levels.components.insert(known_component(component)?, level);
            }
        }
        Ok(levels)
    }

    /// For a worker: the default level, then those of components, as in `info,http:debug`.
    pub(super) fn for_worker(&self) -> String {
        let components = self.components.iter();
        components.fold(level_name(self.default).to_owned(), |text, (name, level)| {
            format!("{text},{name}:{}", level_name(*level))
        })
    }

    pub(super) fn targets(&self) -> Targets {
        // Libraries speak up only when something is wrong with them.
        let libraries = self.default.min(LevelFilter::WARN);
        let ours = COMPONENTS.iter().map(|(module, component)| {
            (*module, self.components.get(*component).copied().unwrap_or(self.default))
        });
        Targets::new().with_default(libraries).with_targets(ours)
    }
}

pub(super) fn component_names() -> Vec<&'static str> {
    let mut names: Vec<_> = COMPONENTS.iter().map(|(_, component)| *component).collect();
    names.sort_unstable();
    names.dedup();
    names
}

pub(super) fn known_component(name: &str) -> Result<String, String> {
    let names = component_names();
    if names.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("there is no log component `{name}`; there are {}", names.join(", ")))
}

/// Envoy's names; `critical` is `error` here.
pub(super) fn parse_level(name: &str) -> Result<LevelFilter, String> {
    Ok(match name {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "critical" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        _ => {
            return Err(format!(
                "`{name}` is not a log level; there are trace, debug, info, warning, error, \
                 critical and off"
            ));
        }
    })
}

pub(super) fn level_name(level: LevelFilter) -> &'static str {
    level.into_level().map_or("off", event_level)
}

pub(super) fn event_level(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

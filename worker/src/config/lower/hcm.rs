//! The HTTP connection manager and HTTP filters.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        hcm::{
            CodecType, EscapedSlashes, HttpConnectionManager, HttpFilter, InternalClients, Routes,
            ServerHeader, StripHostPort, UnderscoresAction,
        },
        listener::TrafficDirection,
        message::Msg,
        route::Upgrade,
    },
    Lower, common,
    route::User,
};

/// Largest request head, bytes, when the configuration does not say. Envoy's default.
const HEADERS_BYTES: usize = 60 * 1024;
/// Most header lines when the configuration does not say. Envoy's default.
const HEADERS_COUNT: usize = 100;
/// Time for a request head. Envoy has no such limit by default; without one, a client that sends a
/// byte now and then holds a connection forever.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Envoy's default.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// Envoy's default.
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl Lower<'_> {
    /// Lowers a connection manager.
    pub(super) fn hcm(&self, message: &Msg, direction: TrafficDirection) -> HttpConnectionManager {
        let upgrades = self.upgrades(message);
        let filters = self.http_filters(message);
        let routes = self.routes(message, &upgrades, &filters);
        let common = message.message("common_http_protocol_options");
        let http1 = message.message("http_protocol_options");
        let flag = |name| message.flag(name).unwrap_or(false);
        let http1_flag = |name| http1.and_then(|m| m.flag(name));
        let hour = Some(Duration::from_hours(1));
        let limit = |name, default| common::limit(message, name, default);
        self.client_certificates(message);
        HttpConnectionManager {
            stat_prefix: message.text("stat_prefix").to_owned(),
            codec: self.codec(message),
            routes,
            filters,
            access_log: self.access_logs(message),
            direction,
            use_remote_address: flag("use_remote_address"),
            skip_xff_append: flag("skip_xff_append"),
            xff_trusted_hops: message.uint32("xff_num_trusted_hops").unwrap_or(0),
            internal: self.internal_clients(message),
            via: message.text("via").to_owned(),
            generate_request_id: message.flag("generate_request_id").unwrap_or(true),
            preserve_external_request_id: flag("preserve_external_request_id"),
            request_id_in_response: flag("always_set_request_id_in_response"),
            normalize_path: message.flag("normalize_path").unwrap_or(true),
            merge_slashes: flag("merge_slashes"),
            escaped_slashes: self.escaped_slashes(message),
            strip_host_port: self.strip_host_port(message),
            server_header: server_header(message),
            server_name: match message.text("server_name") {
                "" => "baton".to_owned(),
                name => name.to_owned(),
            },
            upgrades,
            idle_timeout: common.map_or(hour, |c| common::limit(c, "idle_timeout", hour)),
            max_connection_duration: common
                .and_then(|c| common::limit(c, "max_connection_duration", None)),
            max_requests_per_connection: common
                .and_then(|c| c.uint32("max_requests_per_connection"))
                .filter(|n| *n > 0),
            max_headers_count: common
                .and_then(|c| c.uint("max_headers_count"))
                .map_or(HEADERS_COUNT, common::size),
            underscores: underscores(common),
            max_headers_bytes: message
                .uint("max_request_headers_kb")
                .map_or(HEADERS_BYTES, |kb| common::size(kb.saturating_mul(1024))),
            stream_idle_timeout: limit("stream_idle_timeout", Some(STREAM_IDLE_TIMEOUT)),
            request_timeout: limit("request_timeout", None),
            request_headers_timeout: limit("request_headers_timeout", Some(HEADERS_TIMEOUT)),
            delayed_close_timeout: limit("delayed_close_timeout", Some(DELAYED_CLOSE_TIMEOUT)),
            drain_timeout: message.duration("drain_timeout").unwrap_or(Duration::from_secs(5)),
            accept_http_10: http1_flag("accept_http_10").unwrap_or(false),
            default_host_for_http_10: http1
                .map_or("", |m| m.text("default_host_for_http_10"))
                .to_owned(),
            allow_absolute_url: http1_flag("allow_absolute_url").unwrap_or(true),
            enable_trailers: http1_flag("enable_trailers").unwrap_or(false),
            proxy_100_continue: flag("proxy_100_continue"),
            add_user_agent: flag("add_user_agent"),
        }
    }

    fn routes(&self, message: &Msg, upgrades: &[Upgrade], filters: &[HttpFilter]) -> Routes {
        if let Some(source) = message.message("rds").and_then(|rds| self.rds_source(rds)) {
            return Routes::Rds(Arc::new(source));
        }
        let table = message.message("route_config");
        let user = User { upgrades, filters };
        let table = table.map(|table| self.route_config(table, user));
        Routes::Static(Arc::new(table.unwrap_or_default()))
    }

    fn client_certificates(&self, message: &Msg) {
        if let Some(other) = message.choice("forward_client_cert_details")
            && other != "SANITIZE"
        {
            let at = message.at_of("forward_client_cert_details");
            let text = format!("`{other}` is not implemented by baton yet");
            self.report.error(&at, text).hint("implemented: SANITIZE");
        }
    }

    fn internal_clients(&self, message: &Msg) -> InternalClients {
        let Some(config) = message.message("internal_address_config") else {
            return InternalClients::default();
        };
        InternalClients {
            ranges: config.messages("cidr_ranges").filter_map(|m| self.cidr(m)).collect(),
            unix_sockets: config.flag("unix_sockets").unwrap_or(false),
        }
    }

    fn escaped_slashes(&self, message: &Msg) -> EscapedSlashes {
        self.passable_routes(message);
        match message.choice("path_with_escaped_slashes_action") {
            Some("REJECT_REQUEST") => EscapedSlashes::Reject,
            Some("UNESCAPE_AND_REDIRECT") => EscapedSlashes::UnescapeAndRedirect,
            Some("UNESCAPE_AND_FORWARD") => EscapedSlashes::UnescapeAndForward,
            _ => EscapedSlashes::Keep,
        }
    }

    /// Warns when `%2F` is kept because nothing was said about it, and a route refuses what another
    /// one of its virtual host would send on: `/x%2F..%2Fadmin` is not below `/admin`.
    fn passable_routes(&self, message: &Msg) {
        if message.has("path_with_escaped_slashes_action") {
            return;
        }
        let hosts = message.message("route_config").into_iter();
        for host in hosts.flat_map(|routes| routes.messages("virtual_hosts")) {
            if !host.messages("routes").any(|route| route.has("route")) {
                continue;
            }
            let Some((route, path)) = host.messages("routes").find_map(refused_path) else {
                continue;
            };
            let text = format!(
                "a path with `%2F` or `%5C` passes the route that refuses `{path}`: the upstream \
                 may take them for slashes, routes do not"
            );
            self.report.warning(&route.at, text).hint(
                "set `path_with_escaped_slashes_action` of the connection manager to \
                 `REJECT_REQUEST` or `UNESCAPE_AND_REDIRECT`, or to `KEEP_UNCHANGED` if the \
                 upstream keeps them, too",
            );
            return;
        }
    }

    fn codec(&self, message: &Msg) -> CodecType {
        match message.choice("codec_type") {
            None | Some("AUTO") => CodecType::Auto,
            Some("HTTP1") => CodecType::Http1,
            Some(other) => {
                let at = message.at_of("codec_type");
                let text = format!("`codec_type: {other}` is not implemented by baton yet");
                self.report.error(&at, text).hint("implemented: AUTO, HTTP1");
                CodecType::Auto
            }
        }
    }

    fn strip_host_port(&self, message: &Msg) -> StripHostPort {
        let any = message.flag("strip_any_host_port") == Some(true);
        let matching = message.flag("strip_matching_host_port") == Some(true);
        match (any, matching) {
            (true, true) => {
                let at = message.at_of("strip_matching_host_port");
                let text =
                    "`strip_any_host_port` and `strip_matching_host_port` exclude each other";
                self.report.error(&at, text);
                StripHostPort::Any
            }
            (true, false) => StripHostPort::Any,
            (false, true) => StripHostPort::Matching,
            (false, false) => StripHostPort::No,
        }
    }

    /// `upgrade_configs`, of a connection manager or of a route.
    pub(super) fn upgrades(&self, message: &Msg) -> Vec<Upgrade> {
        let mut upgrades: Vec<Upgrade> = Vec::new();
        for config in message.messages("upgrade_configs") {
            let upgrade_type = config.text("upgrade_type").to_ascii_lowercase();
            if upgrade_type.is_empty() {
                let at = config.at_of("upgrade_type");
                self.report.error(&at, "`upgrade_type` must not be empty");
                continue;
            }
            if upgrades.iter().any(|upgrade| upgrade.upgrade_type == upgrade_type) {
                let at = config.at_of("upgrade_type");
                self.report.error(&at, format!("`{upgrade_type}` stands twice in this list"));
                continue;
            }
            let is_route = config.ty.full_name.starts_with("envoy.config.route.");
            let terminate = is_route && config.has("connect_config");
            if terminate && upgrade_type != "connect" {
                let at = config.at_of("connect_config");
                self.report.error(&at, "`connect_config` needs `upgrade_type: CONNECT`");
            }
            let enabled = config.flag("enabled").unwrap_or(true);
            upgrades.push(Upgrade { upgrade_type, enabled, terminate });
        }
        upgrades
    }

    fn http_filters(&self, message: &Msg) -> Vec<HttpFilter> {
        let filters: Vec<&Msg> = message.messages("http_filters").collect();
        let mut lowered = Vec::new();
        let last = filters.len().saturating_sub(1);
        for (index, filter) in filters.iter().enumerate() {
            let Some(config) = filter.message("typed_config") else {
                if filter.broken.is_empty() {
                    let text = format!("filter `{}` needs a `typed_config`", filter.text("name"));
                    self.report.error(&filter.at, text);
                }
                continue;
            };
            let name = filter.text("name");
            let Some(known) = self.extensions.http_filter(&config.ty.full_name) else { continue };
            if known.is_terminal && index < last {
                let text = format!("`{name}` is terminal: it must be the last HTTP filter");
                self.report.error(&filter.at_of("name"), text);
            }
            if !known.is_terminal && index == last {
                let text = format!("the last HTTP filter is `{name}`, it must be the router");
                self.report.error(&filter.at_of("name"), text).hint(ADD_ROUTER);
            }
            if known.is_terminal && filter.flag("disabled") == Some(true) {
                let text = format!("`{name}` is terminal: it cannot be switched off");
                self.report.error(&filter.at_of("disabled"), text);
            }
            if let Some(settings) = (known.lower)(self, config) {
                lowered.push(HttpFilter {
                    name: name.to_owned(),
                    message: known.message,
                    disabled: filter.flag("disabled").unwrap_or(false),
                    settings,
                });
            }
        }
        if filters.is_empty() && message.broken.is_empty() {
            self.report
                .error(&message.at_of("http_filters"), "there is no HTTP filter, so no router")
                .hint(ADD_ROUTER);
        }
        lowered
    }
}

const ADD_ROUTER: &str = "add `- name: envoy.filters.http.router` with `typed_config: { \"@type\": \
     type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }` at the end";

/// A route that answers some paths, not all, with an error, and which.
fn refused_path(route: &Msg) -> Option<(&Msg, &str)> {
    let status = route.message("direct_response")?.uint("status")?;
    let matches = route.message("match")?;
    let path = ["prefix", "path", "path_separated_prefix"]
        .into_iter()
        .map(|field| matches.text(field))
        .chain(matches.message("safe_regex").map(|regex| regex.text("regex")))
        .find(|path| !path.is_empty())?;
    (status >= 400 && path != "/").then_some((route, path))
}

fn server_header(message: &Msg) -> ServerHeader {
    match message.choice("server_header_transformation") {
        Some("APPEND_IF_ABSENT") => ServerHeader::AppendIfAbsent,
        Some("PASS_THROUGH") => ServerHeader::PassThrough,
        _ => ServerHeader::Overwrite,
    }
}

fn underscores(common: Option<&Msg>) -> UnderscoresAction {
    match common.and_then(|c| c.choice("headers_with_underscores_action")) {
        Some("REJECT_REQUEST") => UnderscoresAction::RejectRequest,
        Some("DROP_HEADER") => UnderscoresAction::DropHeader,
        _ => UnderscoresAction::Allow,
    }
}

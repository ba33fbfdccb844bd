//! The HTTP connection manager (`envoy.extensions.filters.network.http_connection_manager.v3`).

use std::{sync::Arc, time::Duration};

use super::{
    access_log::AccessLog,
    listener::{CidrRange, TrafficDirection},
    route::{RouteConfiguration, Upgrade},
    settings::SharedSettings,
    subscription::RdsSource,
};

/// Envoy's `HttpConnectionManager`. Durations of `None` mean "no limit".
#[expect(clippy::struct_excessive_bools, reason = "they are independent switches of Envoy's")]
#[derive(Clone, Debug)]
pub struct HttpConnectionManager {
    /// `stat_prefix`.
    pub stat_prefix: String,
    /// `codec_type`.
    pub codec: CodecType,
    /// `route_config` or `rds`.
    pub routes: Routes,
    /// `http_filters`; the last one is the router.
    pub filters: Vec<HttpFilter>,
    /// `access_log`.
    pub access_log: Vec<AccessLog>,
    /// `traffic_direction` of the listener.
    pub direction: TrafficDirection,
    /// `use_remote_address`.
    pub use_remote_address: bool,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `xff_num_trusted_hops`.
    pub xff_trusted_hops: u32,
    /// `internal_address_config`.
    pub internal: InternalClients,
    /// `via`: appended to the Via header when not empty.
    pub via: String,
    /// `generate_request_id`, default true.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub request_id_in_response: bool,
    /// `normalize_path`. Default true; Envoy's is false.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `strip_matching_host_port` / `strip_any_host_port`.
    pub strip_host_port: StripHostPort,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `server_name`, default `envoy`... ours is `baton`.
    pub server_name: String,
    /// `upgrade_configs`: lower-case upgrade names that are allowed, with their switch.
    pub upgrades: Vec<Upgrade>,
    /// `common_http_protocol_options.idle_timeout`. Default 1 h.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `common_http_protocol_options.max_headers_count`. Default 100.
    pub max_headers_count: usize,
    /// `common_http_protocol_options.headers_with_underscores_action`.
    pub underscores: UnderscoresAction,
    /// `max_request_headers_kb` in bytes. Default 60 KiB.
    pub max_headers_bytes: usize,
    /// `stream_idle_timeout`. Default 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// `request_timeout`: whole request received. Default none.
    pub request_timeout: Option<Duration>,
    /// `request_headers_timeout`, absolute from the first byte. Default 10 s.
    pub request_headers_timeout: Option<Duration>,
    /// `delayed_close_timeout`: how long the client may be silent before it ends a connection that we
    /// ended. Default 1 s; `None` = it is not waited for.
    pub delayed_close_timeout: Option<Duration>,
    /// `drain_timeout`. Default 5 s.
    pub drain_timeout: Duration,
    /// `http_protocol_options.accept_http_10`.
    pub accept_http_10: bool,
    /// `http_protocol_options.default_host_for_http_10`.
    pub default_host_for_http_10: String,
    /// `http_protocol_options.allow_absolute_url`, default true.
    pub allow_absolute_url: bool,
    /// `http_protocol_options.enable_trailers`.
    pub enable_trailers: bool,
    /// `proxy_100_continue`.
    pub proxy_100_continue: bool,
    /// `add_user_agent`.
    pub add_user_agent: bool,
}

/// Where the route table of a connection manager comes from.
#[derive(Clone, Debug)]
pub enum Routes {
    /// `route_config`: it stands in the configuration.
    Static(Arc<RouteConfiguration>),
    /// `rds`: it is a resource of its own.
    Rds(Arc<RdsSource>),
}

impl Routes {
    /// The table that stands in the configuration.
    pub fn fixed(&self) -> Option<&Arc<RouteConfiguration>> {
        match self {
            Self::Static(table) => Some(table),
            Self::Rds(_) => None,
        }
    }

    /// The table to begin with: without any route when it is still to come.
    pub fn at_first(&self) -> Arc<RouteConfiguration> {
        self.fixed().map(Arc::clone).unwrap_or_default()
    }
}

/// Clients that may send `x-envoy-*` headers: nobody when the configuration is silent.
#[derive(Clone, Debug, Default)]
pub struct InternalClients {
    /// `cidr_ranges`.
    pub ranges: Vec<CidrRange>,
    /// `unix_sockets`.
    pub unix_sockets: bool,
}

/// Envoy's `CodecType`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CodecType {
    /// Find out from the first bytes.
    Auto,
    /// HTTP/1 only.
    Http1,
}

/// Envoy's `PathWithEscapedSlashesAction`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EscapedSlashes {
    /// Leave `%2F` and `%5C` alone. What is done when the configuration is silent.
    Keep,
    /// Answer 400.
    Reject,
    /// Unescape and redirect with 307.
    UnescapeAndRedirect,
    /// Unescape and go on.
    UnescapeAndForward,
}

/// What to do with the port in Host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StripHostPort {
    /// Leave it.
    No,
    /// Remove it when it is the listener's.
    Matching,
    /// Remove it always.
    Any,
}

/// Envoy's `ServerHeaderTransformation`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerHeader {
    /// Always ours.
    Overwrite,
    /// Ours when the upstream sent none.
    AppendIfAbsent,
    /// Leave the upstream's.
    PassThrough,
}

/// Envoy's `HeadersWithUnderscoresAction`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UnderscoresAction {
    /// Pass them on.
    Allow,
    /// Answer 400.
    RejectRequest,
    /// Remove them.
    DropHeader,
}

/// A configured HTTP filter.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// `name`, by which routes speak of it.
    pub name: String,
    /// The message that configures it, by full name: which extension it is.
    pub message: &'static str,
    /// `disabled`: only for routes that switch it on.
    pub disabled: bool,
    /// What the extension made of its configuration.
    pub settings: SharedSettings,
}

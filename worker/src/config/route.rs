//! Routes (`envoy.config.route.v3`).

mod domains;
mod index;
mod lookup;

use std::{sync::Arc, time::Duration};

use regex::bytes::Regex;

pub use self::lookup::Lookup;
use super::{
    matcher::{HeaderMatcher, QueryMatcher},
    retry::RetryOptions,
    settings::SharedSettings,
    target::{ClusterIndex, WeightedTarget},
};
use crate::format::Format;

/// `typed_per_filter_config` of a level and of those around it: one entry for each filter of the
/// chain, `None` when no level says anything.
pub type FilterLevels = Option<Arc<[FilterLevel]>>;

/// What a route and the levels around it say about one filter.
#[derive(Clone, Debug, Default)]
pub struct FilterLevel {
    /// Whether it is switched off here; `None` = as in the chain.
    pub disabled: Option<bool>,
    /// Its configurations, the most specific one last.
    pub settings: Vec<SharedSettings>,
}

/// Envoy's `RouteConfiguration`.
#[derive(Clone, Debug, Default)]
pub struct RouteConfiguration {
    /// `name`.
    pub name: String,
    /// `virtual_hosts`, in the order of the file.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Header changes of this level.
    pub headers: HeaderChanges,
    /// `most_specific_header_mutations_wins`.
    pub most_specific_wins: bool,
    /// `internal_only_headers`, lower case.
    pub internal_only_headers: Vec<String>,
    /// Indexes of the virtual hosts and their routes.
    pub lookup: Lookup,
}

/// Envoy's `VirtualHost`.
#[derive(Clone, Debug, Default)]
pub struct VirtualHost {
    /// `name`.
    pub name: String,
    /// `domains`: exact, `*.suffix`, `prefix.*` or `*`; lower case.
    pub domains: Vec<String>,
    /// `routes`, first match wins.
    pub routes: Vec<Arc<Route>>,
    /// `require_tls`.
    pub require_tls: RequireTls,
    /// Header changes of this level.
    pub headers: HeaderChanges,
}

/// Envoy's `TlsRequirementType`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RequireTls {
    /// No.
    #[default]
    None,
    /// Redirect plain requests that come from outside.
    ExternalOnly,
    /// Redirect every plain request.
    All,
}

/// Envoy's `Route`.
#[derive(Clone, Debug)]
pub struct Route {
    /// `name`.
    pub name: String,
    /// `match`.
    pub matches: RouteMatch,
    /// What to do.
    pub action: Action,
    /// Header changes of this level.
    pub headers: HeaderChanges,
    /// What it says about filters.
    pub filters: FilterLevels,
}

/// Envoy's `RouteMatch`.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// How the path must look.
    pub path: PathMatcher,
    /// `case_sensitive`, default true.
    pub case_sensitive: bool,
    /// `headers`: all must hold.
    pub headers: Vec<HeaderMatcher>,
    /// `query_parameters`: all must hold.
    pub query_parameters: Vec<QueryMatcher>,
    /// `grpc`: only gRPC requests.
    pub grpc_only: bool,
    /// `runtime_fraction.default_value`, as parts of a million; `None` = always.
    pub fraction_ppm: Option<u32>,
}

/// Envoy's `path_specifier`. Query strings never take part.
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// `prefix`.
    Prefix(String),
    /// `path`.
    Exact(String),
    /// `path_separated_prefix`: `/a` matches `/a` and `/a/b`, not `/ab`.
    SeparatedPrefix(String),
    /// `safe_regex`, anchored on both ends as Envoy does.
    Regex(Regex),
    /// `connect_matcher`: the method CONNECT.
    Connect,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// `route`.
    Forward(Box<RouteAction>),
    /// `redirect`.
    Redirect(Box<Redirect>),
    /// `direct_response`.
    DirectResponse(DirectResponse),
    /// `non_forwarding_action`.
    NonForwarding,
}

/// Envoy's `RouteAction`.
#[derive(Clone, Debug)]
pub struct RouteAction {
    /// Where to.
    pub target: ClusterTarget,
    /// `cluster_not_found_response_code`, default 503.
    pub not_found_status: u16,
    /// `prefix_rewrite` or `regex_rewrite`.
    pub rewrite: Option<PathRewrite>,
    /// `host_rewrite_*` / `auto_host_rewrite`.
    pub host_rewrite: Option<HostRewrite>,
    /// `append_x_forwarded_host`.
    pub append_x_forwarded_host: bool,
    /// `timeout`: whole response after the whole request. Default 15 s; `None` = off.
    pub timeout: Option<Duration>,
    /// `idle_timeout`: overrides `stream_idle_timeout`; `Some(None)` = off.
    pub idle_timeout: Option<Option<Duration>>,
    /// `upgrade_configs` of the route: type (lower case) and switch.
    pub upgrades: Vec<Upgrade>,
    /// `priority: HIGH`.
    pub high_priority: bool,
    /// `request_mirror_policies` of the route, else of its virtual host, else of its table.
    pub mirrors: Vec<MirrorPolicy>,
    /// `retry_policy`, `hedge_policy` and what belongs to them, with the virtual host's word where the
    /// route has none.
    pub retry: RetryOptions,
}

impl RouteAction {
    /// What a route does of which only `cluster` is known.
    pub fn to(target: ClusterTarget) -> Self {
        Self {
            target,
            not_found_status: 503,
            rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            timeout: Some(Self::TIMEOUT),
            idle_timeout: None,
            upgrades: Vec::new(),
            high_priority: false,
            mirrors: Vec::new(),
            retry: RetryOptions::default(),
        }
    }

    /// Default of `timeout`.
    pub const TIMEOUT: Duration = Duration::from_secs(15);
}

/// One entry of `upgrade_configs`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upgrade {
    /// Lower case: `websocket`, `connect`.
    pub upgrade_type: String,
    /// `enabled`.
    pub enabled: bool,
    /// `connect_config` of a route: a CONNECT ends here and what it carries goes upstream as plain
    /// TCP, instead of CONNECT being sent on.
    pub terminate: bool,
}

/// Envoy's `RouteAction.RequestMirrorPolicy`: who gets a copy of the request.
#[derive(Clone, Debug)]
pub struct MirrorPolicy {
    /// Where to.
    pub target: MirrorTarget,
    /// `runtime_fraction.default_value`, as parts of a million; `None` = always.
    pub fraction_ppm: Option<u32>,
    /// `disable_shadow_host_suffix_append`: the host is that of the request, without `-shadow`.
    pub keep_host: bool,
    /// `host_rewrite_literal`.
    pub host: Option<String>,
}

/// The cluster of a [`MirrorPolicy`].
#[derive(Clone, Debug)]
pub enum MirrorTarget {
    /// `cluster`.
    Cluster(ClusterIndex),
    /// `cluster_header`.
    Header(String),
}

impl RouteAction {
    /// `weighted_clusters`; empty when there are none.
    pub fn weighted(&self) -> &[WeightedCluster] {
        match &self.target {
            ClusterTarget::Weighted(entries) => entries,
            ClusterTarget::Cluster(_) | ClusterTarget::Unknown(_) | ClusterTarget::Header(_) => &[],
        }
    }
}

/// Envoy's `cluster_specifier`.
#[derive(Clone, Debug)]
pub enum ClusterTarget {
    /// `cluster`.
    Cluster(ClusterIndex),
    /// A `cluster` name that does not exist, allowed by `validate_clusters: false`.
    Unknown(String),
    /// `cluster_header`.
    Header(String),
    /// `weighted_clusters`.
    Weighted(Vec<WeightedCluster>),
}

/// Envoy's `WeightedCluster.ClusterWeight`.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// Cluster and weight.
    pub target: WeightedTarget,
    /// Header changes of this entry.
    pub headers: HeaderChanges,
    /// `host_rewrite_literal`.
    pub host_rewrite: Option<String>,
    /// What it says about filters.
    pub filters: FilterLevels,
}

/// A change of the path.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// `prefix_rewrite`: what takes the place of the matched prefix or path.
    Prefix(String),
    /// `regex_rewrite`: pattern and substitution in the `regex` crate's syntax (`$1`, not `\1`).
    Regex(Regex, String),
}

/// A change of the Host header.
#[derive(Clone, Debug)]
pub enum HostRewrite {
    /// `host_rewrite_literal`.
    Literal(String),
    /// `auto_host_rewrite`: the endpoint's DNS name.
    Auto,
    /// `host_rewrite_header`.
    Header(String),
    /// `host_rewrite_path_regex`.
    PathRegex(Regex, String),
}

/// Envoy's `RedirectAction`.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `https_redirect` / `scheme_redirect`.
    pub scheme: Option<String>,
    /// `host_redirect`.
    pub host: Option<String>,
    /// `port_redirect`.
    pub port: Option<u16>,
    /// How the path changes.
    pub path: RedirectPath,
    /// `strip_query`.
    pub strip_query: bool,
}

/// The path of a [`Redirect`].
#[derive(Clone, Debug)]
pub enum RedirectPath {
    /// As it came.
    Keep,
    /// `path_redirect`; may carry its own query.
    Replace(String),
    /// `prefix_rewrite`.
    Prefix(String),
    /// `regex_rewrite`.
    Regex(Regex, String),
}

/// Envoy's `DirectResponseAction`.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// `status`, 200..=599.
    pub status: u16,
    /// `body`, read at load time.
    pub body: Arc<[u8]>,
}

/// Header changes of one level.
#[derive(Clone, Debug, Default)]
pub struct HeaderChanges {
    /// `request_headers_to_add`.
    pub request_add: Vec<HeaderAdd>,
    /// `request_headers_to_remove`, lower case.
    pub request_remove: Vec<String>,
    /// `response_headers_to_add`.
    pub response_add: Vec<HeaderAdd>,
    /// `response_headers_to_remove`, lower case.
    pub response_remove: Vec<String>,
}

/// Envoy's `HeaderValueOption`.
#[derive(Clone, Debug)]
pub struct HeaderAdd {
    /// Lower case.
    pub name: String,
    /// Value with `%...%` operators.
    pub value: Format,
    /// `append_action`.
    pub action: AppendAction,
    /// `keep_empty_value`.
    pub keep_empty: bool,
}

/// Envoy's `HeaderAppendAction`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AppendAction {
    /// Add one more line, the default.
    AppendIfExistsOrAdd,
    /// Only when absent.
    AddIfAbsent,
    /// Replace all, or add.
    OverwriteIfExistsOrAdd,
    /// Replace all, never add.
    OverwriteIfExists,
}

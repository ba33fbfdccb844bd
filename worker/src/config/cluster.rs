//! Clusters and endpoints (`envoy.config.cluster.v3`, `envoy.config.endpoint.v3`).

use std::{sync::Arc, time::Duration};

use super::{
    model::{Address, TcpKeepalive},
    subscription::EdsSource,
};

/// Envoy's `Cluster`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// `name`.
    pub name: String,
    /// `alt_stat_name`, or the name; `:` becomes `_`.
    pub stat_name: String,
    /// `type`.
    pub discovery: Discovery,
    /// `lb_policy` or the first known entry of `load_balancing_policy`.
    pub balancer: Balancer,
    /// `connect_timeout`. Default 5 s.
    pub connect_timeout: Duration,
    /// `load_assignment.endpoints`, flattened; none for [`Discovery::Eds`].
    pub endpoints: Vec<EndpointConfig>,
    /// `dns_refresh_rate`. Default 5 s.
    pub dns_refresh: Duration,
    /// `respect_dns_ttl`.
    pub respect_dns_ttl: bool,
    /// `dns_lookup_family`.
    pub dns_family: DnsFamily,
    /// `upstream_connection_options.tcp_keepalive`.
    pub keepalive: Option<TcpKeepalive>,
    /// `common_http_protocol_options.idle_timeout` of pooled connections. Default 1 h; `None` = off.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `upstream_bind_config.source_address`.
    pub source_address: Option<std::net::IpAddr>,
    /// `per_connection_buffer_limit_bytes`, bytes. Default 1 MiB.
    pub buffer_limit_bytes: usize,
}

impl Cluster {
    /// Whether connections of another configuration are made in the same way, so that they may stay when
    /// it takes the place of this one.
    pub fn connects_like(&self, other: &Self) -> bool {
        self.keepalive == other.keepalive && self.source_address == other.source_address
    }
}

/// Envoy's `DiscoveryType`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Discovery {
    /// Addresses stand in the configuration.
    Static,
    /// Every address a name resolves to is an endpoint.
    StrictDns,
    /// One logical endpoint, new connections go to the address resolved last.
    LogicalDns,
    /// The endpoints are a resource of their own, which comes from somewhere else.
    Eds(Arc<EdsSource>),
}

impl Discovery {
    /// True when the endpoints are found with DNS.
    pub fn resolves_names(&self) -> bool {
        match self {
            Self::StrictDns | Self::LogicalDns => true,
            Self::Static | Self::Eds(_) => false,
        }
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Balancer {
    /// `ROUND_ROBIN`, with weights.
    RoundRobin,
    /// `LEAST_REQUEST` with `choice_count`, default 2.
    LeastRequest(u32),
    /// `RANDOM`.
    Random,
}

/// Envoy's `DnsLookupFamily`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DnsFamily {
    /// v6 if there is any, else v4.
    Auto,
    /// Only A.
    V4Only,
    /// Only AAAA.
    V6Only,
    /// v4 if there is any, else v6.
    V4Preferred,
    /// Both.
    All,
}

/// Envoy's `LbEndpoint`.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// `endpoint.address`.
    pub address: Address,
    /// `endpoint.hostname`.
    pub hostname: String,
    /// `load_balancing_weight`, 1..
    pub weight: u32,
    /// `priority` of its locality; only 0 gets traffic while health checks are not there.
    pub priority: u32,
    /// `locality.zone`, for logs and `/clusters`.
    pub zone: String,
}

/// Envoy's `ClusterLoadAssignment` as a resource of its own: the endpoints of clusters whose
/// [`EdsSource`] names it.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// `cluster_name`.
    pub name: String,
    /// `endpoints`, flattened. All addresses are literal.
    pub endpoints: Vec<EndpointConfig>,
}

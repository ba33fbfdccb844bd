//! Listeners, filter chains and network filters (`envoy.config.listener.v3`).

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    access_log::AccessLog,
    hcm::HttpConnectionManager,
    model::{Address, TcpKeepalive},
    target::WeightedTarget,
};

/// Envoy's `Listener`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `name`, or the address in text when the file gives none.
    pub name: String,
    /// `address` first, then `additional_addresses`.
    pub addresses: Vec<Address>,
    /// `stat_prefix`, or the address with `_` for `:` as Envoy does.
    pub stat_prefix: String,
    /// `filter_chains`.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// `default_filter_chain`.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// `per_connection_buffer_limit_bytes`, bytes. Default 1 MiB.
    pub buffer_limit_bytes: usize,
    /// `access_log`: one line for each connection.
    pub access_log: Vec<AccessLog>,
    /// `traffic_direction`.
    pub direction: TrafficDirection,
    /// Options of the listening sockets.
    pub socket: ListenerSocket,
}

/// Envoy's `TrafficDirection`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TrafficDirection {
    /// Nobody said.
    #[default]
    Unspecified,
    /// To the program beside the proxy: `/drain_listeners?inboundonly` means these listeners.
    Inbound,
    /// From it.
    Outbound,
}

/// Options of a listening socket. All of them reach the supervisor, which binds.
#[derive(Clone, Debug)]
pub struct ListenerSocket {
    /// `tcp_backlog_size`, connections. Default 4096.
    pub backlog: u32,
    /// `transparent`.
    pub transparent: bool,
    /// `freebind`.
    pub freebind: bool,
    /// `address.socket_address.ipv4_compat`: an IPv6 socket takes IPv4 too.
    pub ipv4_compat: bool,
    /// `tcp_fast_open_queue_length`, connections.
    pub fast_open_queue: Option<u32>,
    /// Keepalive of accepted connections.
    pub keepalive: Option<TcpKeepalive>,
    /// Runtime value `envoy.resource_limits.listener.NAME.connection_limit`, connections; `None` =
    /// no limit.
    pub max_connections: Option<u64>,
    /// `ignore_global_conn_limit`: [`super::model::Bootstrap::max_connections`] does not apply.
    pub ignores_global_limit: bool,
}

impl Default for ListenerSocket {
    fn default() -> Self {
        Self {
            backlog: 4096,
            transparent: false,
            freebind: false,
            ipv4_compat: false,
            fast_open_queue: None,
            keepalive: None,
            max_connections: None,
            ignores_global_limit: false,
        }
    }
}

/// Envoy's `FilterChain`.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// `name`.
    pub name: String,
    /// `filter_chain_match`.
    pub matches: FilterChainMatch,
    /// `filters`, at least one; the last one is terminal.
    pub filters: Vec<NetworkFilter>,
}

/// Envoy's `FilterChainMatch` without the parts that need TLS. Empty lists match all.
#[derive(Clone, Debug, Default)]
pub struct FilterChainMatch {
    /// `destination_port`.
    pub destination_port: Option<u16>,
    /// `prefix_ranges` of the local address.
    pub prefix_ranges: Vec<CidrRange>,
    /// `direct_source_prefix_ranges`.
    pub direct_source_prefix_ranges: Vec<CidrRange>,
    /// `source_prefix_ranges`.
    pub source_prefix_ranges: Vec<CidrRange>,
    /// `source_ports`.
    pub source_ports: Vec<u16>,
}

/// Envoy's `CidrRange`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CidrRange {
    /// Network address with host bits cleared.
    pub address: IpAddr,
    /// Length of the prefix, bits.
    pub prefix_len: u8,
}

impl CidrRange {
    /// Whether it holds an address. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix_len.min(32));
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix_len.min(128));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A configured network filter.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// `envoy.filters.network.http_connection_manager`.
    HttpConnectionManager(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`.
    TcpProxy(Arc<TcpProxy>),
    /// `envoy.filters.network.echo`.
    Echo,
    /// `envoy.filters.network.direct_response`: these bytes, then close.
    DirectResponse(Arc<[u8]>),
}

/// Envoy's `TcpProxy`.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    /// `stat_prefix`.
    pub stat_prefix: String,
    /// `cluster` (one entry, weight 1) or `weighted_clusters`.
    pub clusters: Vec<WeightedTarget>,
    /// `idle_timeout`. Default 1 h; `None` = off.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `max_connect_attempts`. Default 1.
    pub max_connect_attempts: u32,
    /// `access_log`.
    pub access_log: Vec<AccessLog>,
}

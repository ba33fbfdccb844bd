//! Listeners, filter chains and network filters.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        listener::{
            CidrRange, FilterChain, FilterChainMatch, Listener, ListenerSocket, NetworkFilter,
            TcpProxy, TrafficDirection,
        },
        message::{Msg, Value},
        model::Address,
        target::WeightedTarget,
    },
    Lower, common,
};

const HTTP: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ECHO: &str = "envoy.extensions.filters.network.echo.v3.Echo";
const DIRECT: &str = "envoy.extensions.filters.network.direct_response.v3.Config";

impl Lower<'_> {
    /// Lowers all listeners.
    pub(super) fn listeners(
        &self,
        resources: &Msg,
        limits: &HashMap<String, u64>,
    ) -> Vec<Arc<Listener>> {
        let mut lines: HashMap<String, u32> = HashMap::new();
        let mut listeners = Vec::new();
        for message in resources.messages("listeners") {
            let Some(mut listener) = self.listener(message) else { continue };
            let at = message.at_of("name");
            if let Some(first) = lines.get(&listener.name) {
                let text =
                    format!("listener `{}` stands twice, first on line {first}", listener.name);
                self.report.error(&at, text).hint("give each listener its own name");
            }
            lines.insert(listener.name.clone(), at.span.line);
            listener.socket.max_connections = limits.get(&listener.name).copied();
            listeners.push(Arc::new(listener));
        }
        listeners
    }

    /// Finds addresses that two listeners want.
    pub(super) fn addresses(&self, resources: &Msg, admin: Option<&Msg>) {
        let mut lines: HashMap<String, u32> = HashMap::new();
        let listeners = resources.messages("listeners").flat_map(|listener| {
            let more = listener.messages("additional_addresses");
            listener.message("address").into_iter().chain(more.filter_map(|m| m.message("address")))
        });
        for message in listeners.chain(admin.and_then(|admin| admin.message("address"))) {
            let Some(text) = plain_address(message) else { continue };
            let at = common::socket_at(message);
            if let Some(first) = lines.insert(text.clone(), at.span.line) {
                let text = format!("the address {text} is taken already, on line {first}");
                self.report.error(&at, text).hint("give each listener its own address or port");
            }
        }
    }

    pub(super) fn listener(&self, message: &Msg) -> Option<Listener> {
        let Some(address_message) = message.message("address") else {
            // An address that is wrong, and listeners without one, were reported.
            let other = ["address", "api_listener", "internal_listener"];
            let is_broken = |name: &&str| {
                message.ty.position(name).is_some_and(|index| message.broken.contains(&index))
            };
            if !other.iter().any(|name| message.peek(name).is_some() || is_broken(name)) {
                self.report.error(&message.at, "`Listener` needs `address`").hint(
                    "add `address: { socket_address: { address: 0.0.0.0, port_value: 8080 } }`",
                );
            }
            return None;
        };
        let address = self.listen_address(address_message);
        let more = message.messages("additional_addresses").filter_map(|m| m.message("address"));
        let more: Vec<Option<Address>> = more.map(|m| self.listen_address(m)).collect();
        let direction = direction(message);
        let chain = |chain| Arc::new(self.filter_chain(chain, direction));
        let filter_chains: Vec<_> = message.messages("filter_chains").map(chain).collect();
        let default = message.message("default_filter_chain").map(chain);
        let socket = address_message.message("socket_address");
        let is_udp = socket.is_some_and(|socket| socket.choice("protocol") == Some("UDP"));
        let is_empty = filter_chains.is_empty() && default.is_none();
        if is_empty && !is_udp && message.broken.is_empty() {
            self.report
                .error(&message.at, "a listener needs at least one of `filter_chains`")
                .hint("add a chain with the HTTP connection manager or the TCP proxy");
        }
        self.same_matches(message);
        let addresses: Option<Vec<Address>> = std::iter::once(address).chain(more).collect();
        let access_log = self.access_logs(message);
        let socket = self.socket(message, address_message);
        let addresses = addresses?;
        let text = addresses.first().map(address_text).unwrap_or_default();
        let or_text = |name: &str| match message.text(name) {
            "" => text.clone(),
            given => given.to_owned(),
        };
        Some(Listener {
            name: or_text("name"),
            stat_prefix: match message.text("stat_prefix") {
                "" => text.replace(':', "_"),
                given => given.to_owned(),
            },
            addresses,
            filter_chains,
            default_filter_chain: default,
            buffer_limit_bytes: message
                .uint("per_connection_buffer_limit_bytes")
                .map_or(1024 * 1024, common::size),
            access_log,
            direction,
            socket,
        })
    }

    fn socket(&self, message: &Msg, address: &Msg) -> ListenerSocket {
        if message.flag("enable_reuse_port") == Some(false) {
            let at = message.at_of("enable_reuse_port");
            let text = "`enable_reuse_port: false` has no effect: each thread has its own socket";
            self.report.warning(&at, text);
        }
        if message.flag("bind_to_port") == Some(false) {
            let at = message.at_of("bind_to_port");
            self.report.error(&at, "`bind_to_port: false` is not implemented by baton yet");
        }
        let socket = address.message("socket_address");
        ListenerSocket {
            backlog: message.uint32("tcp_backlog_size").unwrap_or(4096),
            transparent: message.flag("transparent").unwrap_or(false),
            freebind: message.flag("freebind").unwrap_or(false),
            ipv4_compat: socket.and_then(|socket| socket.flag("ipv4_compat")).unwrap_or(false),
            fast_open_queue: message.uint32("tcp_fast_open_queue_length"),
            keepalive: message.message("tcp_keepalive").map(common::keepalive),
            max_connections: None,
            ignores_global_limit: message.flag("ignore_global_conn_limit").unwrap_or(false),
        }
    }

    /// Two chains of a listener must not ask for the same.
    fn same_matches(&self, message: &Msg) {
        // A matcher that is not implemented chooses by the names of chains.
        if message.peek("filter_chain_matcher").is_some() {
            return;
        }
        let mut seen: HashMap<String, u32> = HashMap::new();
        for chain in message.messages("filter_chains") {
            let matcher = chain.message("filter_chain_match");
            let is_broken = |message: &Msg| !message.broken.is_empty();
            if is_broken(chain) || matcher.is_some_and(is_broken) {
                continue;
            }
            let text = matcher.map(|m| super::super::dump::message(m).to_string());
            let text = text.unwrap_or_else(|| "{}".to_owned());
            let at = matcher.map_or_else(|| chain.at.clone(), |m| m.at.clone());
            if let Some(first) = seen.get(&text) {
                let text = format!("this filter chain matches the same as the one on line {first}");
                self.report.error(&at, text).hint("give each its own `filter_chain_match`");
            }
            seen.entry(text).or_insert(at.span.line);
        }
    }

    fn filter_chain(&self, message: &Msg, direction: TrafficDirection) -> FilterChain {
        let matches = message.message("filter_chain_match");
        let filters: Vec<(&Msg, Option<NetworkFilter>)> = message
            .messages("filters")
            .map(|filter| (filter, self.network_filter(filter, direction)))
            .collect();
        if filters.is_empty() && message.broken.is_empty() {
            self.report
                .error(&message.at, "a filter chain needs at least one filter")
                .hint("add the HTTP connection manager or the TCP proxy");
        }
        let is_left = filters.iter().any(|(_, filter)| filter.is_some());
        if self.allow_unimplemented && !is_left && !filters.is_empty() {
            self.report.error(&message.at, "no filter of this chain is implemented by baton yet");
        }
        // All filters that are implemented are terminal.
        let last = filters.len().saturating_sub(1);
        for (index, (filter, lowered)) in filters.iter().enumerate() {
            if lowered.is_some() && index < last {
                let text = format!(
                    "`{}` is terminal: it must be the last filter of its chain",
                    filter.text("name")
                );
                self.report.error(&filter.at_of("name"), text);
            }
        }
        FilterChain {
            name: message.text("name").to_owned(),
            matches: matches.map(|m| self.chain_match(m)).unwrap_or_default(),
            filters: filters.into_iter().filter_map(|(_, filter)| filter).collect(),
        }
    }

    fn chain_match(&self, message: &Msg) -> FilterChainMatch {
        let protocol = message.text("transport_protocol");
        if !matches!(protocol, "" | "raw_buffer") {
            let text = format!("`transport_protocol: {protocol}` is not implemented by baton yet");
            self.report.error(&message.at_of("transport_protocol"), text);
        }
        let ranges = |name| message.messages(name).filter_map(|m| self.cidr(m)).collect();
        let port = |value: u64| u16::try_from(value).ok();
        let ports = message.items("source_ports").iter().filter_map(|item| {
            let Value::Uint(value) = item.value else { return None };
            port(value)
        });
        FilterChainMatch {
            destination_port: message.uint("destination_port").and_then(port),
            prefix_ranges: ranges("prefix_ranges"),
            direct_source_prefix_ranges: ranges("direct_source_prefix_ranges"),
            source_prefix_ranges: ranges("source_prefix_ranges"),
            source_ports: ports.collect(),
        }
    }

    pub(super) fn cidr(&self, message: &Msg) -> Option<CidrRange> {
        let text = message.text("address_prefix");
        let at = message.at_of("address_prefix");
        let Ok(address) = text.parse::<IpAddr>() else {
            let added = self.report.error(&at, format!("`{text}` is not an IP address"));
            if text.contains('/') {
                added.hint("write the length of the prefix in `prefix_len`");
            }
            return None;
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = message.uint("prefix_len").unwrap_or(0);
        let prefix_len = u8::try_from(length).ok().filter(|length| *length <= most);
        let Some(prefix_len) = prefix_len else {
            let text = format!("`prefix_len` is {length}, but must be at most {most}");
            self.report.error(&message.at_of("prefix_len"), text);
            return None;
        };
        Some(CidrRange { address: network(address, prefix_len), prefix_len })
    }

    fn network_filter(&self, message: &Msg, direction: TrafficDirection) -> Option<NetworkFilter> {
        let Some(config) = message.message("typed_config") else {
            if message.broken.is_empty() {
                let text = format!("filter `{}` needs a `typed_config`", message.text("name"));
                self.report.error(&message.at, text);
            }
            return None;
        };
        match config.ty.full_name.as_str() {
            HTTP => {
                Some(NetworkFilter::HttpConnectionManager(Arc::new(self.hcm(config, direction))))
            }
            TCP => Some(NetworkFilter::TcpProxy(Arc::new(self.tcp_proxy(config)))),
            ECHO => Some(NetworkFilter::Echo),
            DIRECT => {
                let data = config.message("response").and_then(|source| self.data(source));
                Some(NetworkFilter::DirectResponse(data.unwrap_or_else(|| Arc::from([]))))
            }
            _ => None,
        }
    }

    fn tcp_proxy(&self, message: &Msg) -> TcpProxy {
        let hour = Some(Duration::from_hours(1));
        TcpProxy {
            stat_prefix: message.text("stat_prefix").to_owned(),
            clusters: self.tcp_targets(message),
            idle_timeout: common::limit(message, "idle_timeout", hour),
            max_connection_duration: message.duration("max_downstream_connection_duration"),
            max_connect_attempts: message.uint32("max_connect_attempts").unwrap_or(1),
            access_log: self.access_logs(message),
        }
    }

    fn tcp_targets(&self, message: &Msg) -> Vec<WeightedTarget> {
        if message.has("cluster") {
            if message.text("cluster").is_empty() {
                self.report.error(&message.at_of("cluster"), "`cluster` must not be empty");
            }
            let cluster = self.cluster_ref(message.text("cluster"), &message.at_of("cluster"));
            return cluster
                .map(|cluster| WeightedTarget { cluster, weight: 1 })
                .into_iter()
                .collect();
        }
        let Some(weighted) = message.message("weighted_clusters") else { return Vec::new() };
        weighted
            .messages("clusters")
            .filter_map(|entry| {
                let cluster = self.cluster_ref(entry.text("name"), &entry.at_of("name"))?;
                Some(WeightedTarget { cluster, weight: entry.uint32("weight").unwrap_or(0) })
            })
            .collect()
    }
}

fn direction(message: &Msg) -> TrafficDirection {
    match message.choice("traffic_direction") {
        Some("INBOUND") => TrafficDirection::Inbound,
        Some("OUTBOUND") => TrafficDirection::Outbound,
        _ => TrafficDirection::Unspecified,
    }
}

/// The address with the bits of the host cleared.
fn network(address: IpAddr, prefix_len: u8) -> IpAddr {
    let shift = |bits: u32| bits.saturating_sub(u32::from(prefix_len));
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(shift(32)).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(shift(128)).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

/// An address in text, as it names an unnamed listener.
fn address_text(address: &Address) -> String {
    match address {
        Address::Ip(address) => address.to_string(),
        Address::Name { host, port } => format!("{host}:{port}"),
        Address::Pipe { path, .. } => path.display().to_string(),
    }
}

/// An address that only one socket can have, in one spelling; `None` for port 0.
fn plain_address(message: &Msg) -> Option<String> {
    if let Some(pipe) = message.message("pipe") {
        return Some(super::place::resolved(pipe.text("path")));
    }
    let socket = message.message("socket_address")?;
    let other_space = socket.peek("network_namespace_filepath").is_some();
    if other_space || socket.choice("protocol") == Some("UDP") {
        return None;
    }
    let port = u16::try_from(socket.uint("port_value")?).ok().filter(|port| *port != 0)?;
    let address = common::bare(socket.text("address"));
    Some(match address.parse::<IpAddr>() {
        // As an IPv4 address in the form of IPv6 is one address with the other.
        Ok(ip) => SocketAddr::new(ip.to_canonical(), port).to_string(),
        Err(_) => format!("{address}:{port}"),
    })
}

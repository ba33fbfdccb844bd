//! Clusters and their endpoints.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        cluster::{Balancer, Cluster, Discovery, DnsFamily, EndpointConfig},
        message::{Msg, Value},
        model::Address,
    },
    Lower, common,
};

const LEAST_REQUEST: &str =
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
const ROUND_ROBIN: &str = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
const RANDOM: &str = "envoy.extensions.load_balancing_policies.random.v3.Random";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Envoy's default number of endpoints `LEAST_REQUEST` compares.
const CHOICES: u32 = 2;

impl Lower<'_> {
    /// Lowers a cluster.
    pub(super) fn cluster(&self, message: &Msg) -> Cluster {
        let name = message.text("name").to_owned();
        let stat_name = match message.text("alt_stat_name") {
            "" => name.replace(':', "_"),
            other => other.replace(':', "_"),
        };
        let discovery = self.discovery(message);
        self.only_for_eds(message);
        let http = self.http_options(message);
        let common = match http {
            Some(options) => options.message("common_http_protocol_options"),
            None => message.message("common_http_protocol_options"),
        };
        let hour = Some(Duration::from_hours(1));
        let keepalive = message
            .message("upstream_connection_options")
            .and_then(|options| options.message("tcp_keepalive"));
        Cluster {
            name,
            stat_name,
            balancer: self.balancer(message),
            connect_timeout: message.duration("connect_timeout").unwrap_or(Duration::from_secs(5)),
            endpoints: self.endpoints(message, &discovery),
            dns_refresh: message.duration("dns_refresh_rate").unwrap_or(Duration::from_secs(5)),
            respect_dns_ttl: message.flag("respect_dns_ttl").unwrap_or(false),
            dns_family: dns_family(message),
            keepalive: keepalive.map(common::keepalive),
            idle_timeout: common.map_or(hour, |c| common::limit(c, "idle_timeout", hour)),
            max_requests_per_connection: common
                .and_then(|c| c.uint32("max_requests_per_connection"))
                .or_else(|| message.uint32("max_requests_per_connection"))
                .filter(|n| *n > 0),
            source_address: self.source_address(message),
            buffer_limit_bytes: message
                .uint("per_connection_buffer_limit_bytes")
                .map_or(1024 * 1024, common::size),
            discovery,
        }
    }

    fn http_options<'m>(&self, message: &'m Msg) -> Option<&'m Msg> {
        let set = message.get("typed_extension_protocol_options")?;
        let Value::Map(entries) = &set.item.value else { return None };
        let mut options = None;
        for (key, item) in entries {
            let Some(inner) = item.message() else { continue };
            if inner.ty.full_name != HTTP_OPTIONS {
                continue;
            }
            if key != HTTP_OPTIONS {
                let text = format!("the key for these options is `{HTTP_OPTIONS}`, not `{key}`");
                self.report.error(&item.at, text);
            }
            options = Some(inner);
        }
        options
    }

    fn discovery(&self, message: &Msg) -> Discovery {
        match message.choice("type") {
            // What could not be read may be any type: say nothing that depends on it.
            None if message.mentions("type") => Discovery::StrictDns,
            None | Some("STATIC") => Discovery::Static,
            Some("STRICT_DNS") => Discovery::StrictDns,
            Some("LOGICAL_DNS") => Discovery::LogicalDns,
            Some("EDS") => {
                let source = self.eds_source(message).map(Arc::new);
                source.map_or(Discovery::StrictDns, Discovery::Eds)
            }
            Some(other) => {
                let text = format!("clusters of type `{other}` are not implemented by baton yet");
                self.report
                    .error(&message.at_of("type"), text)
                    .hint("implemented: STATIC, STRICT_DNS, LOGICAL_DNS, EDS");
                Discovery::StrictDns
            }
        }
    }

    fn only_for_eds(&self, message: &Msg) {
        let is_other = match message.choice("type") {
            Some(kind) => kind != "EDS",
            None => !message.mentions("type"),
        };
        if message.has("eds_cluster_config") && is_other {
            let at = message.at_of("eds_cluster_config");
            let text = "`eds_cluster_config` is only for clusters of type EDS";
            self.report.error(&at, text).hint("add `type: EDS`, or remove it");
        }
    }

    fn balancer(&self, message: &Msg) -> Balancer {
        if let Some(policy) = message.message("load_balancing_policy") {
            return self.typed_balancer(policy);
        }
        match message.choice("lb_policy") {
            None | Some("ROUND_ROBIN") => Balancer::RoundRobin,
            Some("RANDOM") => Balancer::Random,
            Some("LEAST_REQUEST") => {
                let config = message.message("least_request_lb_config");
                let choices = config.and_then(|c| c.uint32("choice_count"));
                Balancer::LeastRequest(choices.unwrap_or(CHOICES))
            }
            Some(other) => {
                let text = format!("`lb_policy: {other}` is not implemented by baton yet");
                self.report
                    .error(&message.at_of("lb_policy"), text)
                    .hint("implemented: ROUND_ROBIN, LEAST_REQUEST, RANDOM");
                Balancer::RoundRobin
            }
        }
    }

    fn typed_balancer(&self, message: &Msg) -> Balancer {
        for policy in message.messages("policies") {
            let config = policy
                .message("typed_extension_config")
                .and_then(|extension| extension.message("typed_config"));
            match config.map(|config| (config.ty.full_name.as_str(), config)) {
                Some((ROUND_ROBIN, _)) => return Balancer::RoundRobin,
                Some((RANDOM, _)) => return Balancer::Random,
                Some((LEAST_REQUEST, config)) => {
                    return Balancer::LeastRequest(
                        config.uint32("choice_count").unwrap_or(CHOICES),
                    );
                }
                _ => {}
            }
        }
        self.report
            .error(&message.at, "none of these load balancing policies is implemented by baton yet")
            .hint("implemented: round_robin, least_request, random");
        Balancer::RoundRobin
    }

    fn source_address(&self, message: &Msg) -> Option<std::net::IpAddr> {
        let socket = message.message("upstream_bind_config")?.message("source_address")?;
        let at = socket.at_of("address");
        if socket.uint("port_value").is_some_and(|port| port != 0) {
            self.report
                .error(&socket.at_of("port_value"), "the port of a source address must be 0");
        }
        let address = socket.text("address").parse().ok();
        if address.is_none() {
            let text = format!("`{}` is not an IP address", socket.text("address"));
            self.report.error(&at, text);
        }
        address
    }

    fn endpoints(&self, message: &Msg, discovery: &Discovery) -> Vec<EndpointConfig> {
        let Some(assignment) = message.message("load_assignment") else {
            if *discovery == Discovery::LogicalDns && message.broken.is_empty() {
                let text = format!("cluster `{}` needs `load_assignment`", message.text("name"));
                self.report.error(&message.at, text);
            }
            return Vec::new();
        };
        if matches!(discovery, Discovery::Eds(_)) {
            let at = message.at_of("load_assignment");
            self.report
                .warning(&at, "`load_assignment` has no effect in a cluster of type EDS")
                .hint("its endpoints come from `eds_config`");
            return Vec::new();
        }
        let endpoints = self.assigned(assignment, Some(discovery));
        if *discovery == Discovery::LogicalDns && endpoints.len() != 1 && !self.report.has_errors()
        {
            let count = endpoints.len();
            let text = format!("a cluster of type LOGICAL_DNS has one endpoint, this has {count}");
            self.report
                .error(&assignment.at, text)
                .hint("use `type: STRICT_DNS` for several endpoints");
        }
        endpoints
    }

    /// The endpoints of a `ClusterLoadAssignment`; `discovery` is that of its cluster, `None` when it is a
    /// resource by itself.
    pub(super) fn assigned(
        &self,
        message: &Msg,
        discovery: Option<&Discovery>,
    ) -> Vec<EndpointConfig> {
        let mut endpoints = Vec::new();
        for locality in message.messages("endpoints") {
            let zone = locality.message("locality").map_or("", |l| l.text("zone"));
            let priority = locality.uint32("priority").unwrap_or(0);
            for endpoint in locality.messages("lb_endpoints") {
                endpoints.extend(self.endpoint(endpoint, discovery, zone, priority));
            }
        }
        endpoints
    }

    fn endpoint(
        &self,
        message: &Msg,
        discovery: Option<&Discovery>,
        zone: &str,
        priority: u32,
    ) -> Option<EndpointConfig> {
        if let Some(status) = message.choice("health_status")
            && !matches!(status, "UNKNOWN" | "HEALTHY")
        {
            let text = format!("`health_status: {status}` is not implemented by baton yet");
            self.report.error(&message.at_of("health_status"), text);
        }
        let endpoint = message.message("endpoint")?;
        let Some(address_message) = endpoint.message("address") else {
            self.report.error(&endpoint.at, "`Endpoint` needs `address`");
            return None;
        };
        let address = self.address(address_message)?;
        if let Address::Name { host, .. } = &address
            && !discovery.is_some_and(Discovery::resolves_names)
        {
            let at = common::socket_at(address_message);
            let kind = if discovery.is_some() { "STATIC" } else { "EDS" };
            let text =
                format!("`{host}` is a name, but a cluster of type {kind} needs IP addresses");
            self.report.error(&at, text).hint("use `type: STRICT_DNS` or `type: LOGICAL_DNS`");
        }
        Some(EndpointConfig {
            address,
            hostname: endpoint.text("hostname").to_owned(),
            weight: message.uint32("load_balancing_weight").unwrap_or(1),
            priority,
            zone: zone.to_owned(),
        })
    }
}

fn dns_family(message: &Msg) -> DnsFamily {
    match message.choice("dns_lookup_family") {
        Some("V4_ONLY") => DnsFamily::V4Only,
        Some("V6_ONLY") => DnsFamily::V6Only,
        Some("V4_PREFERRED") => DnsFamily::V4Preferred,
        Some("ALL") => DnsFamily::All,
        _ => DnsFamily::Auto,
    }
}

//! What is implemented of clusters.

use super::{MessageSupport, harmless, message, no_effect, read, strict};

const NO_HEALTH: &str = "there are no health checks yet";

pub(super) const TABLE: &[MessageSupport] = &[
    message(
        "envoy.config.cluster.v3.Cluster",
        &[
            read("name", ""),
            read("alt_stat_name", "default: the name"),
            read("type", "`STATIC`, `STRICT_DNS`, `LOGICAL_DNS`, `EDS`"),
            read("connect_timeout", "default 5 s"),
            read(
                "per_connection_buffer_limit_bytes",
                "soft limit, default 1 MiB; more than 256 KiB counts as 256 KiB, and tunnels always use that",
            ),
            read("lb_policy", "`ROUND_ROBIN`, `LEAST_REQUEST`, `RANDOM`"),
            read("load_balancing_policy", "the first known policy of the list is used"),
            read("least_request_lb_config", ""),
            read("round_robin_lb_config", ""),
            read("common_lb_config", ""),
            read("load_assignment", ""),
            read("eds_cluster_config", ""),
            read("max_requests_per_connection", "deprecated by Envoy"),
            read("common_http_protocol_options", "deprecated by Envoy"),
            read("http_protocol_options", "deprecated by Envoy"),
            read("typed_extension_protocol_options", ""),
            read("dns_refresh_rate", "default 5 s"),
            read("respect_dns_ttl", ""),
            read("dns_lookup_family", "default `AUTO`"),
            read("upstream_bind_config", ""),
            read("upstream_connection_options", ""),
            read("transport_socket", "only `raw_buffer`; TLS is not implemented yet"),
            harmless("metadata", "for control planes only"),
            harmless("cleanup_interval", "for clusters of type `ORIGINAL_DST` only"),
            harmless("wait_for_warm_on_init", "clusters always warm up first"),
            no_effect("dns_failure_refresh_rate", "failures are retried at `dns_refresh_rate`"),
            no_effect("dns_jitter", "the refresh interval always varies a little"),
            no_effect("close_connections_on_host_health_failure", NO_HEALTH),
            no_effect("ignore_health_on_host_removal", NO_HEALTH),
            no_effect("track_cluster_stats", "Envoy's default statistics are kept"),
            no_effect("track_timeout_budgets", "Envoy's default statistics are kept"),
            no_effect("stats_matcher", "all statistics are kept"),
        ],
    ),
    message(
        "envoy.config.cluster.v3.Cluster.EdsClusterConfig",
        &[read("eds_config", "from files only"), read("service_name", "default: the name")],
    ),
    message(
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        &[read("cluster_name", ""), read("endpoints", ""), read("policy", "")],
    ),
    strict(
        "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy",
        &[
            no_effect("overprovisioning_factor", NO_HEALTH),
            no_effect("weighted_priority_health", NO_HEALTH),
        ],
    ),
    message(
        "envoy.config.endpoint.v3.LocalityLbEndpoints",
        &[
            read("locality", ""),
            read("lb_endpoints", ""),
            read("priority", "only priority 0 gets traffic until there are health checks"),
            harmless("metadata", "for subsets only"),
            no_effect(
                "load_balancing_weight",
                "it needs locality-weighted balancing, which is not implemented yet",
            ),
        ],
    ),
    message(
        "envoy.config.endpoint.v3.LbEndpoint",
        &[
            read("endpoint", ""),
            read("health_status", "only `UNKNOWN` and `HEALTHY`"),
            read("load_balancing_weight", "default 1"),
            harmless("metadata", "for subsets only"),
        ],
    ),
    message(
        "envoy.config.endpoint.v3.Endpoint",
        &[read("address", ""), read("hostname", ""), no_effect("health_check_config", NO_HEALTH)],
    ),
    message("envoy.config.cluster.v3.LoadBalancingPolicy", &[read("policies", "")]),
    message(
        "envoy.config.cluster.v3.LoadBalancingPolicy.Policy",
        &[read("typed_extension_config", "")],
    ),
    message("envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin", &[]),
    message(
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        &[read("choice_count", "default 2")],
    ),
    message("envoy.extensions.load_balancing_policies.random.v3.Random", &[]),
    message(
        "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        &[read("choice_count", "default 2")],
    ),
    message("envoy.config.cluster.v3.Cluster.RoundRobinLbConfig", &[]),
    message(
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        &[
            no_effect("healthy_panic_threshold", NO_HEALTH),
            no_effect("ignore_new_hosts_until_first_hc", NO_HEALTH),
            no_effect("update_merge_window", "updates are always applied at once"),
        ],
    ),
    message(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        &[
            read("common_http_protocol_options", ""),
            read("explicit_http_config", "only `http_protocol_options`"),
        ],
    ),
    message(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        &[read("http_protocol_options", "")],
    ),
    strict("envoy.config.core.v3.BindConfig", &[read("source_address", "the port must be 0")]),
    message("envoy.config.cluster.v3.UpstreamConnectionOptions", &[read("tcp_keepalive", "")]),
];

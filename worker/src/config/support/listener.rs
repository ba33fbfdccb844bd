//! What is implemented of listeners and network filters.

use super::{MessageSupport, harmless, message, no_effect, read, strict};

pub(super) const TABLE: &[MessageSupport] = &[
    strict(
        "envoy.config.listener.v3.Listener",
        &[
            read("name", "default: the address"),
            read("address", ""),
            read("additional_addresses", ""),
            read("stat_prefix", "default: the address with `_` for `:`"),
            read("filter_chains", ""),
            read("default_filter_chain", ""),
            read(
                "per_connection_buffer_limit_bytes",
                "soft limit, default 1 MiB; more than 256 KiB counts as 256 KiB, and tunnels always use that",
            ),
            read("listener_filters", "none is implemented yet"),
            read("transparent", ""),
            read("freebind", ""),
            read("tcp_fast_open_queue_length", ""),
            read("tcp_keepalive", ""),
            read("access_log", ""),
            read("tcp_backlog_size", "default 4096"),
            read("enable_reuse_port", "always on: each worker thread has its own socket"),
            read("bind_to_port", "only `true`"),
            harmless("metadata", "for control planes only"),
            read("traffic_direction", "for `/drain_listeners?inboundonly`"),
            harmless("bypass_overload_manager", "there is no overload manager yet"),
            read("ignore_global_conn_limit", ""),
            harmless("max_connections_to_accept_per_socket_event", "a hint for speed"),
            no_effect("listener_filters_timeout", "no listener filter is implemented yet"),
            no_effect(
                "continue_on_listener_filters_timeout",
                "no listener filter is implemented yet",
            ),
            no_effect("connection_balance_config", "the kernel balances over the threads"),
            no_effect("drain_type", "a listener drains only when its generation does"),
            no_effect("stats_matcher", "all statistics are kept"),
        ],
    ),
    message("envoy.config.listener.v3.AdditionalAddress", &[read("address", "")]),
    strict(
        "envoy.config.listener.v3.ListenerFilter",
        &[read("name", ""), read("typed_config", "")],
    ),
    strict(
        "envoy.config.listener.v3.FilterChain",
        &[
            read("name", ""),
            read("filter_chain_match", ""),
            read("filters", "the last one is terminal, no other one is"),
            read("transport_socket", "only `raw_buffer`; TLS is not implemented yet"),
            harmless("metadata", "for control planes only"),
            no_effect("transport_socket_connect_timeout", "there is no handshake without TLS"),
        ],
    ),
    strict(
        "envoy.config.listener.v3.FilterChainMatch",
        &[
            read("destination_port", ""),
            read("prefix_ranges", ""),
            read("direct_source_prefix_ranges", ""),
            read("source_prefix_ranges", ""),
            read("source_ports", ""),
            read("transport_protocol", "only `raw_buffer`"),
        ],
    ),
    strict(
        "envoy.config.core.v3.CidrRange",
        &[read("address_prefix", ""), read("prefix_len", "default 0")],
    ),
    strict(
        "envoy.config.listener.v3.Filter",
        &[read("name", ""), read("typed_config", "may be left out where it would be empty")],
    ),
    message(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        &[
            read("stat_prefix", ""),
            read("cluster", ""),
            read("weighted_clusters", ""),
            read("idle_timeout", "default 1 h, 0 = off"),
            read("max_downstream_connection_duration", "default: none"),
            read("max_connect_attempts", "default 1"),
            read("access_log", ""),
        ],
    ),
    message(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster",
        &[read("clusters", "")],
    ),
    message(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        &[read("name", ""), read("weight", "")],
    ),
    message("envoy.extensions.filters.network.echo.v3.Echo", &[]),
    message("envoy.extensions.filters.network.direct_response.v3.Config", &[read("response", "")]),
];

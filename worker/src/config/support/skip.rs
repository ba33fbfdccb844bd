//! What `--allow-unimplemented` may leave out: extensions and fields that hold nothing back and decide
//! nothing that somebody relies on for safety. What is not listed here is an error in any case,
//! extensions and fields that nobody has heard of among them.

/// An extension that may be left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skippable {
    /// What the names of its messages begin with.
    pub(crate) prefix: &'static str,
    /// What is missing without it.
    pub(crate) lost: &'static str,
}

const fn skip(prefix: &'static str, lost: &'static str) -> Skippable {
    Skippable { prefix, lost }
}

/// Extensions that may be left out.
pub(crate) const EXTENSIONS: &[Skippable] = &[
    skip("envoy.extensions.access_loggers.fluentd.", "no log is sent there"),
    skip("envoy.extensions.access_loggers.grpc.", "no log is sent there"),
    skip("envoy.extensions.access_loggers.open_telemetry.", "no log is sent there"),
    skip("envoy.extensions.filters.http.alternate_protocols_cache.", "HTTP/3 is not tried"),
    skip("envoy.extensions.filters.http.cache.", "every request goes upstream"),
    skip("envoy.extensions.filters.http.compressor.", "bodies are not compressed"),
    skip("envoy.extensions.filters.http.connect_grpc_bridge.", "Connect is not translated"),
    skip("envoy.extensions.filters.http.cors.", "browsers refuse requests across origins"),
    skip("envoy.extensions.filters.http.decompressor.", "bodies stay compressed"),
    skip("envoy.extensions.filters.http.grpc_http1_bridge.", "gRPC is not translated"),
    skip("envoy.extensions.filters.http.grpc_stats.", "no statistics of gRPC"),
    skip("envoy.extensions.filters.http.grpc_web.", "gRPC-Web is not translated"),
    skip("envoy.extensions.filters.http.on_demand.", "there is nothing to discover"),
    skip("envoy.extensions.filters.http.set_metadata.", "nothing reads the metadata"),
    skip("envoy.extensions.filters.http.tap.", "nothing is recorded"),
    skip("envoy.extensions.retry.host.omit_canary_hosts.", "retries go to such endpoints, too"),
    skip("envoy.extensions.retry.host.omit_host_metadata.", "retries go to such endpoints, too"),
];

/// Fields that may be left out, by message.
pub(crate) const FIELDS: &[(&str, &[&str])] = &[
    (
        "envoy.config.bootstrap.v3.Bootstrap",
        &[
            "node_context_params",
            "cluster_manager",
            "hds_config",
            "stats_sinks",
            "stats_eviction_interval",
            "tracing",
            "stats_server_version_override",
            "use_tcp_for_dns_lookups",
            "fatal_actions",
            "config_sources",
            "default_config_source",
            "certificate_provider_instances",
            "perf_tracing_file_path",
            "xds_delegate_extension",
            "xds_config_tracker_extension",
            "grpc_async_client_manager_config",
            "enable_worker_cpu_affinity",
        ],
    ),
    ("envoy.config.bootstrap.v3.Bootstrap.StaticResources", &["secrets"]),
    (
        "envoy.config.bootstrap.v3.Bootstrap.DynamicResources",
        &["lds_resources_locator", "cds_resources_locator", "ads_config"],
    ),
    ("envoy.config.core.v3.ConfigSource", &["authorities", "api_config_source", "ads", "self"]),
    ("envoy.config.core.v3.Node", &["listening_addresses"]),
    (
        "envoy.config.cluster.v3.Cluster",
        &[
            "per_connection_buffer_high_watermark_timeout",
            "health_checks",
            "outlier_detection",
            "upstream_http_protocol_options",
            "http2_protocol_options",
            "use_tcp_for_dns_lookups",
            "ring_hash_lb_config",
            "maglev_lb_config",
            "original_dst_lb_config",
            "protocol_selection",
            "lrs_server",
            "lrs_report_endpoint_metrics",
            "preconnect_policy",
        ],
    ),
    ("envoy.config.endpoint.v3.LocalityLbEndpoints", &["proximity"]),
    ("envoy.config.endpoint.v3.Endpoint", &["additional_addresses", "observability_name"]),
    (
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
        &["slow_start_config", "locality_lb_config"],
    ),
    (
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        &[
            "active_request_bias",
            "slow_start_config",
            "locality_lb_config",
            "enable_full_scan",
            "selection_method",
        ],
    ),
    ("envoy.extensions.load_balancing_policies.random.v3.Random", &["locality_lb_config"]),
    (
        "envoy.config.cluster.v3.Cluster.LeastRequestLbConfig",
        &["active_request_bias", "slow_start_config"],
    ),
    ("envoy.config.cluster.v3.Cluster.RoundRobinLbConfig", &["slow_start_config"]),
    (
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        &[
            "zone_aware_lb_config",
            "locality_weighted_lb_config",
            "close_connections_on_host_set_change",
            "consistent_hashing_lb_config",
            "override_host_status",
        ],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        &[
            "upstream_http_protocol_options",
            "use_downstream_protocol_config",
            "auto_config",
            "outlier_detection",
            "request_mirror_policies",
            "hash_policy",
            "retry_policy",
        ],
    ),
    (
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        &["http2_protocol_options", "http3_protocol_options"],
    ),
    (
        "envoy.config.cluster.v3.UpstreamConnectionOptions",
        &["set_local_interface_name_on_upstream_connections", "happy_eyeballs_config"],
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &[
            "tracing",
            "http1_safe_max_connection_duration",
            "access_log_flush_interval",
            "flush_access_log_on_new_request",
            "access_log_options",
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
            "proxy_status_config",
            "append_local_overload",
            "stream_error_on_invalid_http_message",
            "set_current_client_cert_details",
            "request_id_extension",
            "local_reply_config",
            "append_x_forwarded_port",
            "add_proxy_protocol_connection_state",
        ],
    ),
    ("envoy.config.core.v3.HttpProtocolOptions", &["max_connection_duration_jitter"]),
    (
        "envoy.config.core.v3.Http1ProtocolOptions",
        &[
            "header_key_format",
            "allow_chunked_length",
            "override_stream_error_on_invalid_http_message",
            "allow_custom_methods",
        ],
    ),
    ("envoy.config.listener.v3.AdditionalAddress", &["tcp_keepalive"]),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        &[
            "backoff_options",
            "hash_policy",
            "max_downstream_connection_duration_jitter_percentage",
            "access_log_flush_interval",
            "flush_access_log_on_connected",
            "access_log_options",
            "check_drain_close",
        ],
    ),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", &["request_headers_mutations"]),
    ("envoy.config.route.v3.VirtualHost", &["cors", "retry_policy_typed_config"]),
    (
        "envoy.config.route.v3.RouteAction",
        &[
            "early_data_policy",
            "retry_policy_typed_config",
            "hash_policy",
            "cors",
            "max_grpc_timeout",
            "grpc_timeout_offset",
            "internal_redirect_policy",
            "internal_redirect_action",
            "max_internal_redirects",
        ],
    ),
    (
        "envoy.config.route.v3.RetryPolicy",
        &["retry_priority", "retry_options_predicates", "refresh_cluster_on_retry"],
    ),
    ("envoy.config.route.v3.WeightedCluster", &["use_hash_policy"]),
    ("envoy.config.route.v3.DirectResponseAction", &["body_format"]),
];

/// True when a field may be left out.
pub(crate) fn field(message: &str, field: &str) -> bool {
    FIELDS.iter().any(|(name, fields)| *name == message && fields.contains(&field))
}

/// The entry of an extension that may be left out.
pub(crate) fn extension(message: &str) -> Option<&'static Skippable> {
    EXTENSIONS.iter().find(|known| message.starts_with(known.prefix))
}

//! What older versions of Envoy wrote differently, and how it is written today.

/// Older name of a field, by message, and the sentence that helps.
const FIELDS: &[(&str, &str, &str)] = &[
    (
        "envoy.config.cluster.v3.Cluster",
        "hosts",
        "`hosts` is API v2: write `load_assignment: { cluster_name: NAME, endpoints: [{ lb_endpoints: [{ endpoint: { address: … } }] }] }`",
    ),
    (
        "envoy.config.cluster.v3.Cluster",
        "tls_context",
        "`tls_context` is API v2: write `transport_socket` with `name: envoy.transport_sockets.tls` and a `typed_config` of type `envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext`",
    ),
    (
        "envoy.config.listener.v3.FilterChain",
        "tls_context",
        "`tls_context` is API v2: write `transport_socket` with `name: envoy.transport_sockets.tls` and a `typed_config` of type `envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`",
    ),
    ("*", "config", "`config` is API v2: write `typed_config` and give its `\"@type\"`"),
    ("*", "per_filter_config", "`per_filter_config` is API v2: write `typed_per_filter_config`"),
    (
        "envoy.config.route.v3.RouteMatch",
        "regex",
        "`regex` is API v2: write `safe_regex: { regex: … }`",
    ),
    (
        "envoy.config.route.v3.HeaderMatcher",
        "regex_match",
        "`regex_match` is API v2: write `string_match: { safe_regex: { regex: … } }`",
    ),
    (
        "envoy.config.route.v3.RouteAction",
        "host_rewrite",
        "`host_rewrite` is API v2: write `host_rewrite_literal`",
    ),
    (
        "envoy.config.route.v3.RouteAction",
        "auto_host_rewrite_header",
        "`auto_host_rewrite_header` is API v2: write `host_rewrite_header`",
    ),
    (
        "envoy.config.route.v3.RouteAction",
        "request_mirror_policy",
        "`request_mirror_policy` is API v2: write `request_mirror_policies`, a list",
    ),
    (
        "envoy.config.route.v3.VirtualHost",
        "cors",
        "write `typed_per_filter_config: { envoy.filters.http.cors: … }`",
    ),
    (
        "envoy.config.listener.v3.Listener",
        "use_original_dst",
        "write a listener filter `envoy.filters.listener.original_dst`",
    ),
    (
        "envoy.config.bootstrap.v3.Bootstrap",
        "runtime",
        "`runtime` is API v2: write `layered_runtime`",
    ),
    (
        "envoy.config.bootstrap.v3.Bootstrap",
        "listeners",
        "listeners belong under `static_resources`",
    ),
    ("envoy.config.bootstrap.v3.Bootstrap", "clusters", "clusters belong under `static_resources`"),
    (
        "envoy.config.cluster.v3.Cluster",
        "extension_protocol_options",
        "`extension_protocol_options` is API v2: write `typed_extension_protocol_options`",
    ),
    (
        "envoy.config.cluster.v3.Cluster",
        "drain_connections_on_host_removal",
        "`drain_connections_on_host_removal` is API v2: write `ignore_health_on_host_removal`",
    ),
    (
        "envoy.config.route.v3.RouteMatch",
        "runtime",
        "`runtime` is API v2: write `runtime_fraction: { default_value: { numerator: 50 }, runtime_key: KEY }`",
    ),
    (
        "envoy.config.route.v3.QueryParameterMatcher",
        "value",
        "`value` is API v2: write `string_match: { exact: … }`",
    ),
    (
        "envoy.config.route.v3.QueryParameterMatcher",
        "regex",
        "`regex` is API v2: write `string_match: { safe_regex: { regex: … } }`",
    ),
    (
        "envoy.type.matcher.v3.StringMatcher",
        "regex",
        "`regex` is API v2: write `safe_regex: { regex: … }`",
    ),
    (
        "envoy.config.route.v3.CorsPolicy",
        "allow_origin",
        "`allow_origin` is API v2: write `allow_origin_string_match: [{ exact: … }]`",
    ),
    (
        "envoy.config.route.v3.CorsPolicy",
        "allow_origin_regex",
        "`allow_origin_regex` is API v2: write `allow_origin_string_match: [{ safe_regex: { regex: … } }]`",
    ),
    ("envoy.config.route.v3.CorsPolicy", "enabled", "`enabled` is API v2: write `filter_enabled`"),
    (
        "envoy.config.route.v3.VirtualCluster",
        "pattern",
        "`pattern` is API v2: write `headers: [{ name: \":path\", string_match: { safe_regex: { regex: … } } }]`",
    ),
    (
        "envoy.config.route.v3.VirtualCluster",
        "method",
        "`method` is API v2: write `headers: [{ name: \":method\", string_match: { exact: … } }]`",
    ),
    (
        "envoy.config.listener.v3.FilterChainMatch",
        "sni_domains",
        "`sni_domains` is an old name: write `server_names`",
    ),
    (
        "envoy.config.core.v3.HealthCheck.HttpHealthCheck",
        "use_http2",
        "`use_http2` is API v2: write `codec_client_type: HTTP2`",
    ),
    (
        "envoy.config.core.v3.HealthCheck.HttpHealthCheck",
        "service_name",
        "`service_name` is API v2: write `service_name_matcher: { prefix: … }`",
    ),
    (
        "envoy.config.bootstrap.v3.Bootstrap",
        "rate_limit_service",
        "`rate_limit_service` belongs into the configuration of the rate limit filter",
    ),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing",
        "operation_name",
        "`operation_name` is API v2: write `traffic_direction` in the listener",
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        "verify_subject_alt_name",
        "`verify_subject_alt_name` is API v2: write `match_typed_subject_alt_names`",
    ),
    (
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "config",
        "`config` is API v2: write the fields themselves",
    ),
    (
        "envoy.config.route.v3.RouteAction",
        "prefix",
        "`prefix` belongs under `match`, next to `route`",
    ),
    ("envoy.config.route.v3.Route", "prefix", "write `match: { prefix: … }`"),
    ("envoy.config.route.v3.Route", "cluster", "write `route: { cluster: … }`"),
    (
        "envoy.config.route.v3.RouteMatch",
        "route",
        "`route` belongs next to `match`, not under it: check the indentation",
    ),
    ("envoy.config.core.v3.SocketAddress", "port", "write `port_value`"),
    (
        "envoy.config.core.v3.Address",
        "address",
        "write `socket_address: { address: …, port_value: … }`",
    ),
];

/// A sentence on how a field is written today.
pub(super) fn field_hint(message: &str, field: &str) -> Option<&'static str> {
    FIELDS
        .iter()
        .find(|(of, name, _)| *name == field && (*of == message || *of == "*"))
        .map(|(_, _, hint)| *hint)
}

/// Extensions known by the names they are configured under, older ones included.
const EXTENSIONS: &[(&[&str], &str)] = &[
    (
        &["envoy.filters.network.http_connection_manager", "envoy.http_connection_manager"],
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ),
    (
        &["envoy.filters.network.tcp_proxy", "envoy.tcp_proxy"],
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    ),
    (
        &["envoy.filters.network.echo", "envoy.echo"],
        "envoy.extensions.filters.network.echo.v3.Echo",
    ),
    (
        &["envoy.filters.network.direct_response"],
        "envoy.extensions.filters.network.direct_response.v3.Config",
    ),
    (&["envoy.filters.http.cors", "envoy.cors"], "envoy.extensions.filters.http.cors.v3.Cors"),
    (
        &["envoy.filters.http.grpc_web", "envoy.grpc_web"],
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    ),
    (
        &["envoy.filters.listener.tls_inspector", "envoy.listener.tls_inspector"],
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    ),
    (
        &["envoy.filters.listener.original_dst", "envoy.listener.original_dst"],
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    ),
    (
        &["envoy.filters.listener.http_inspector", "envoy.listener.http_inspector"],
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    ),
    (
        &["envoy.access_loggers.file", "envoy.file_access_log"],
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ),
    (&["envoy.access_loggers.stdout"], "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"),
    (&["envoy.access_loggers.stderr"], "envoy.extensions.access_loggers.stream.v3.StderrAccessLog"),
    (
        &["envoy.load_balancing_policies.round_robin"],
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    ),
    (
        &["envoy.load_balancing_policies.least_request"],
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    ),
    (
        &["envoy.load_balancing_policies.random"],
        "envoy.extensions.load_balancing_policies.random.v3.Random",
    ),
    (
        &["envoy.retry_host_predicates.previous_hosts"],
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    ),
    (
        &["envoy.retry_host_predicates.omit_canary_hosts"],
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
    ),
    (
        &["envoy.transport_sockets.raw_buffer", "raw_buffer"],
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    ),
    (
        &["envoy.filters.http.compressor", "envoy.filters.http.gzip", "envoy.gzip"],
        "envoy.extensions.filters.http.compressor.v3.Compressor",
    ),
    (&["envoy.filters.http.lua", "envoy.lua"], "envoy.extensions.filters.http.lua.v3.Lua"),
    (&["envoy.filters.http.ext_authz"], "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"),
    (
        &["envoy.filters.http.ratelimit", "envoy.rate_limit"],
        "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
    ),
    (
        &["envoy.filters.http.grpc_json_transcoder", "envoy.grpc_json_transcoder"],
        "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
    ),
    (
        &["envoy.filters.http.grpc_http1_bridge", "envoy.grpc_http1_bridge"],
        "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config",
    ),
    (
        &["envoy.filters.http.ip_tagging", "envoy.ip_tagging"],
        "envoy.extensions.filters.http.ip_tagging.v3.IPTagging",
    ),
    (&["envoy.filters.http.rbac"], "envoy.extensions.filters.http.rbac.v3.RBAC"),
    (
        &["envoy.filters.http.jwt_authn"],
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    ),
    (
        &["envoy.filters.network.redis_proxy", "envoy.redis_proxy"],
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
    ),
    (
        &["envoy.filters.network.mongo_proxy", "envoy.mongo_proxy"],
        "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy",
    ),
    (
        &["envoy.filters.network.ratelimit", "envoy.ratelimit"],
        "envoy.extensions.filters.network.ratelimit.v3.RateLimit",
    ),
    (&["envoy.filters.network.rbac"], "envoy.extensions.filters.network.rbac.v3.RBAC"),
    (
        &["envoy.filters.network.ext_authz"],
        "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
    ),
    (
        &["envoy.filters.listener.proxy_protocol", "envoy.listener.proxy_protocol"],
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    ),
    (
        &["envoy.access_loggers.http_grpc", "envoy.http_grpc_access_log"],
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    ),
    (
        &["envoy.access_loggers.tcp_grpc", "envoy.tcp_grpc_access_log"],
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
    ),
];

/// Types whose fields all may be left out, so that the name alone configures them.
const EMPTY_ALLOWED: &[&str] = &[
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.network.echo.v3.Echo",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
    "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    "envoy.extensions.load_balancing_policies.random.v3.Random",
];

/// The type of an extension by its name.
pub(super) fn extension_type(name: &str) -> Option<&'static str> {
    EXTENSIONS.iter().find(|(names, _)| names.contains(&name)).map(|(_, ty)| *ty)
}

/// True when an extension of this type needs no configuration.
pub(super) fn may_be_empty(ty: &str) -> bool {
    EMPTY_ALLOWED.contains(&ty)
}

/// Types that Envoy has no longer, or has elsewhere, by the beginning of their name, and what to do.
const REMOVED: &[(&str, &str)] = &[
    ("envoy.extensions.filters.http.squash.", GONE),
    ("envoy.config.filter.http.squash.", GONE),
    ("envoy.config.filter.http.gzip.", GZIP),
    ("envoy.config.trace.v2.LightstepConfig", TRACER),
    ("envoy.config.trace.v2.OpenCensusConfig", TRACER),
    ("envoy.config.trace.v3.OpenCensusConfig", TRACER),
    ("envoy.extensions.filters.http.checksum.", CONTRIB),
    ("envoy.extensions.filters.http.dynamo.", CONTRIB),
    ("envoy.extensions.filters.http.golang.", CONTRIB),
    ("envoy.extensions.filters.http.sxg.", CONTRIB),
    ("envoy.extensions.filters.network.client_ssl_auth.", CONTRIB),
    ("envoy.extensions.filters.network.golang.", CONTRIB),
    ("envoy.extensions.filters.network.kafka_broker.", CONTRIB),
    ("envoy.extensions.filters.network.kafka_mesh.", CONTRIB),
    ("envoy.extensions.filters.network.mysql_proxy.", CONTRIB),
    ("envoy.extensions.filters.network.postgres_proxy.", CONTRIB),
    ("envoy.extensions.filters.network.rocketmq_proxy.", CONTRIB),
    ("envoy.extensions.filters.network.sip_proxy.", CONTRIB),
    ("envoy.tcp.metadataexchange.", ISTIO),
    ("istio.", ISTIO),
    ("io.istio.", ISTIO),
    ("stats.PluginConfig", ISTIO),
];

const GONE: &str = "Envoy has this filter no longer, and nothing in its place: remove it";
const GZIP: &str = "Envoy has `envoy.extensions.filters.http.compressor.v3.Compressor` in its place, with \
                    `envoy.extensions.compression.gzip.compressor.v3.Gzip` as its library";
const TRACER: &str = "Envoy has `envoy.config.trace.v3.OpenTelemetryConfig` in its place";
const CONTRIB: &str =
    "this extension is in the contrib builds of Envoy only; baton does not have it";
const ISTIO: &str = "this is an extension of Istio's proxy; baton does not have it";

/// What to do about a type that Envoy has no longer, or has elsewhere.
pub(super) fn removed(name: &str) -> Option<&'static str> {
    REMOVED.iter().find(|(start, _)| name.starts_with(start)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::{super::super::schema::Schema, *};

    #[test]
    fn the_tables_name_what_there_is_and_what_there_is_no_longer() {
        let schema = Schema::new(crate::config::extension::Extensions::default());
        let exists = |name: &str| schema.message(name).is_some();
        for (message, field, _) in FIELDS {
            assert!(*message == "*" || exists(message), "{message}.{field}");
        }
        for ty in EXTENSIONS.iter().map(|(_, ty)| ty).chain(EMPTY_ALLOWED) {
            assert!(exists(ty), "{ty}");
        }
        for (start, _) in REMOVED {
            assert!(!schema.names().any(|name| name.starts_with(start)), "{start}");
        }
    }
}

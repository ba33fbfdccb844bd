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
    (
        &["envoy.filters.http.router", "envoy.router"],
        "envoy.extensions.filters.http.router.v3.Router",
    ),
    (&["envoy.filters.http.cors", "envoy.cors"], "envoy.extensions.filters.http.cors.v3.Cors"),
    (
        &["envoy.filters.http.grpc_web", "envoy.grpc_web"],
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    ),
    (
        &["envoy.filters.http.health_check", "envoy.health_check"],
        "envoy.extensions.filters.http.health_check.v3.HealthCheck",
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
        &["envoy.transport_sockets.raw_buffer"],
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    ),
];

/// Types whose fields all may be left out, so that the name alone configures them.
const EMPTY_ALLOWED: &[&str] = &[
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.network.echo.v3.Echo",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
];

/// The type of an extension by its name.
pub(super) fn extension_type(name: &str) -> Option<&'static str> {
    EXTENSIONS.iter().find(|(names, _)| names.contains(&name)).map(|(_, ty)| *ty)
}

/// True when an extension of this type needs no configuration.
pub(super) fn may_be_empty(ty: &str) -> bool {
    EMPTY_ALLOWED.contains(&ty)
}

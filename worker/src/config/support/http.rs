//! What is implemented of the HTTP connection manager and HTTP filters.

use super::{MessageSupport, harmless, message, no_effect, read, strict};

pub(super) const TABLE: &[MessageSupport] = &[
    message(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        &[
            read("codec_type", "`AUTO` and `HTTP1`; HTTP/2 is not implemented yet"),
            read("stat_prefix", ""),
            read("route_config", ""),
            read("rds", ""),
            read("http_filters", "the last one is the router"),
            read("add_user_agent", ""),
            read("common_http_protocol_options", ""),
            read("http_protocol_options", ""),
            read("server_name", "default `baton`"),
            read("server_header_transformation", ""),
            read("max_request_headers_kb", "default 60"),
            read("stream_idle_timeout", "default 5 min, 0 = off"),
            read("request_timeout", "default: none"),
            read(
                "request_headers_timeout",
                "absolute from the first byte; default 10 s (Envoy: none), 0 = off",
            ),
            read(
                "delayed_close_timeout",
                "default 1 s, 0 = off: how long the client may be silent between our end of a connection and its \
                 own; what it sends meanwhile is thrown away, for at most 30 s and 64 MiB",
            ),
            read("drain_timeout", "default 5 s; without effect until there is HTTP/2"),
            read("access_log", ""),
            read("use_remote_address", "default false"),
            read("xff_num_trusted_hops", ""),
            read("skip_xff_append", ""),
            read("internal_address_config", "default: nobody is internal"),
            read("via", ""),
            read("generate_request_id", "default true"),
            read("preserve_external_request_id", ""),
            read("always_set_request_id_in_response", ""),
            read("forward_client_cert_details", "only `SANITIZE`"),
            read("proxy_100_continue", ""),
            read("upgrade_configs", "without filters of their own"),
            read(
                "normalize_path",
                "default true (Envoy: false), so that routes see what upstreams see",
            ),
            read("merge_slashes", ""),
            read(
                "path_with_escaped_slashes_action",
                "default `KEEP_UNCHANGED`, with a warning where a route refuses some paths",
            ),
            read("strip_matching_host_port", ""),
            read("strip_any_host_port", ""),
            no_effect(
                "http2_protocol_options",
                "HTTP/2 is not implemented by baton yet, clients must speak HTTP/1.1",
            ),
            no_effect(
                "http3_protocol_options",
                "HTTP/3 is not implemented by baton yet, clients must speak HTTP/1.1",
            ),
            no_effect("drain_timeout_jitter", "connections drain at their own pace anyway"),
        ],
    ),
    strict(
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        &[read("config_source", "from files only"), read("route_config_name", "")],
    ),
    strict(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig",
        &[read("unix_sockets", ""), read("cidr_ranges", "")],
    ),
    message(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        &[read("upgrade_type", ""), read("enabled", "default true")],
    ),
    message(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        &[
            read("name", ""),
            read("typed_config", "may be left out where it would be empty"),
            read("disabled", "a route can switch it on"),
            harmless("is_optional", "an unknown filter is an error in any case"),
        ],
    ),
    message(
        "envoy.config.core.v3.HttpProtocolOptions",
        &[
            read("idle_timeout", "default 1 h, 0 = off"),
            read("max_connection_duration", "default: none"),
            read("max_headers_count", "default 100"),
            read("headers_with_underscores_action", ""),
            read("max_requests_per_connection", "default: no limit"),
        ],
    ),
    message(
        "envoy.config.core.v3.Http1ProtocolOptions",
        &[
            read("allow_absolute_url", "default true"),
            read("accept_http_10", ""),
            read("default_host_for_http_10", ""),
            read("enable_trailers", ""),
            harmless("use_balsa_parser", "baton has its own parser"),
        ],
    ),
];

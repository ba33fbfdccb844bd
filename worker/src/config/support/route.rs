//! What is implemented of routes.

use super::{FieldSupport, MessageSupport, harmless, message, no_effect, read, strict};

const REQUEST_ADD: FieldSupport = read("request_headers_to_add", "");
const REQUEST_REMOVE: FieldSupport = read("request_headers_to_remove", "");
const RESPONSE_ADD: FieldSupport = read("response_headers_to_add", "");
const RESPONSE_REMOVE: FieldSupport = read("response_headers_to_remove", "");
const PER_FILTER: FieldSupport =
    read("typed_per_filter_config", "no filter that takes one is implemented yet");
const METADATA: FieldSupport = harmless("metadata", "for control planes only");

pub(super) const TABLE: &[MessageSupport] = &[
    message(
        "envoy.config.route.v3.RouteConfiguration",
        &[
            read("name", ""),
            read("virtual_hosts", ""),
            REQUEST_ADD,
            REQUEST_REMOVE,
            RESPONSE_ADD,
            RESPONSE_REMOVE,
            read("most_specific_header_mutations_wins", ""),
            read("validate_clusters", "default true"),
            read("max_direct_response_body_size_bytes", "default 4096"),
            PER_FILTER,
            METADATA,
        ],
    ),
    message(
        "envoy.config.route.v3.VirtualHost",
        &[
            read("name", ""),
            read("domains", ""),
            read("routes", ""),
            read("require_tls", ""),
            REQUEST_ADD,
            REQUEST_REMOVE,
            RESPONSE_ADD,
            RESPONSE_REMOVE,
            PER_FILTER,
            METADATA,
            no_effect("virtual_clusters", "they are statistics only, and not kept yet"),
        ],
    ),
    strict(
        "envoy.config.route.v3.Route",
        &[
            read("name", ""),
            read("match", ""),
            read("route", ""),
            read("redirect", ""),
            read("direct_response", ""),
            read("non_forwarding_action", ""),
            REQUEST_ADD,
            REQUEST_REMOVE,
            RESPONSE_ADD,
            RESPONSE_REMOVE,
            PER_FILTER,
            METADATA,
            harmless("decorator", "tracing is not implemented yet"),
            no_effect("tracing", "tracing is not implemented yet"),
            no_effect("stat_prefix", "routes have no statistics yet"),
        ],
    ),
    message("envoy.config.route.v3.NonForwardingAction", &[]),
    strict(
        "envoy.config.route.v3.RouteMatch",
        &[
            read("prefix", ""),
            read("path", ""),
            read("safe_regex", ""),
            read("connect_matcher", ""),
            read("path_separated_prefix", ""),
            read("case_sensitive", "default true"),
            read("runtime_fraction", ""),
            read("headers", ""),
            read("query_parameters", ""),
            read("grpc", ""),
        ],
    ),
    message("envoy.config.route.v3.RouteMatch.ConnectMatcher", &[]),
    message("envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions", &[]),
    message(
        "envoy.config.route.v3.RouteAction",
        &[
            read("cluster", ""),
            read("cluster_header", ""),
            read("weighted_clusters", ""),
            read("cluster_not_found_response_code", "default 503"),
            read("prefix_rewrite", ""),
            read("regex_rewrite", ""),
            read("host_rewrite_literal", ""),
            read("auto_host_rewrite", ""),
            read("host_rewrite_header", ""),
            read("host_rewrite_path_regex", ""),
            read("append_x_forwarded_host", ""),
            read("timeout", "default 15 s, 0 = off"),
            read("idle_timeout", "default: `stream_idle_timeout`; 0 = off"),
            read("priority", "without effect until there are circuit breakers"),
            read("upgrade_configs", ""),
        ],
    ),
    message(
        "envoy.config.route.v3.RouteAction.UpgradeConfig",
        &[
            read("upgrade_type", ""),
            read("enabled", "default true"),
            read("connect_config", "for `CONNECT`: the request becomes a TCP connection"),
        ],
    ),
    message("envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig", &[]),
    message(
        "envoy.config.route.v3.WeightedCluster",
        &[
            read("clusters", ""),
            read("total_weight", "deprecated by Envoy: must be the sum of the weights"),
            harmless("runtime_key_prefix", "there are no runtime values"),
        ],
    ),
    message(
        "envoy.config.route.v3.WeightedCluster.ClusterWeight",
        &[
            read("name", ""),
            read("weight", ""),
            REQUEST_ADD,
            REQUEST_REMOVE,
            RESPONSE_ADD,
            RESPONSE_REMOVE,
            PER_FILTER,
            read("host_rewrite_literal", ""),
        ],
    ),
    message(
        "envoy.config.route.v3.RedirectAction",
        &[
            read("https_redirect", ""),
            read("scheme_redirect", ""),
            read("host_redirect", ""),
            read("port_redirect", ""),
            read("path_redirect", ""),
            read("prefix_rewrite", ""),
            read("regex_rewrite", ""),
            read("response_code", "default 301"),
            read("strip_query", ""),
        ],
    ),
    message(
        "envoy.config.route.v3.DirectResponseAction",
        &[read("status", ""), read("body", "default: empty")],
    ),
    message(
        "envoy.config.core.v3.HeaderValueOption",
        &[
            read("header", ""),
            read("append", "deprecated by Envoy: use `append_action`"),
            read("append_action", "default `APPEND_IF_EXISTS_OR_ADD`"),
            read("keep_empty_value", ""),
        ],
    ),
    message(
        "envoy.config.core.v3.HeaderValue",
        &[read("key", ""), read("value", "with `%…%` operators")],
    ),
];

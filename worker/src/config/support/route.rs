//! What is implemented of routes.

use super::{FieldSupport, MessageSupport, harmless, message, no_effect, read, strict};

const REQUEST_ADD: FieldSupport = read("request_headers_to_add", "");
const REQUEST_REMOVE: FieldSupport = read("request_headers_to_remove", "");
const RESPONSE_ADD: FieldSupport = read("response_headers_to_add", "");
const RESPONSE_REMOVE: FieldSupport = read("response_headers_to_remove", "");
const PER_FILTER: FieldSupport =
    read("typed_per_filter_config", "by the name of the filter in `http_filters`");
const MIRRORS: FieldSupport = read(
    "request_mirror_policies",
    "a copy is sent when the request is whole, upgrades have none; copies under way end with their generation",
);
const METADATA: FieldSupport = harmless("metadata", "for control planes only");
const RETRY_POLICY: FieldSupport =
    read("retry_policy", "a route's takes the place of its virtual host's");
const HEDGE_POLICY: FieldSupport =
    read("hedge_policy", "a route's takes the place of its virtual host's");
const BODY_LIMIT: FieldSupport = read(
    "request_body_buffer_limit",
    "bytes of a body that are kept for a retry; default: what the connection may buffer",
);
const OLD_BODY_LIMIT: FieldSupport = read(
    "per_request_buffer_limit_bytes",
    "deprecated by Envoy: `request_body_buffer_limit`, which wins, also that of the virtual host",
);

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
            read("internal_only_headers", "removed from requests that are not internal"),
            read("most_specific_header_mutations_wins", ""),
            read("validate_clusters", "default true"),
            read("max_direct_response_body_size_bytes", "default 4096"),
            PER_FILTER,
            METADATA,
            MIRRORS,
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
            MIRRORS,
            RETRY_POLICY,
            HEDGE_POLICY,
            read("include_request_attempt_count", "`x-envoy-attempt-count` in requests"),
            read("include_attempt_count_in_response", "`x-envoy-attempt-count` in responses"),
            read("include_is_timeout_retry_header", "`x-envoy-is-timeout-retry` in retries"),
            BODY_LIMIT,
            OLD_BODY_LIMIT,
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
            BODY_LIMIT,
            OLD_BODY_LIMIT,
        ],
    ),
    strict(
        "envoy.config.route.v3.FilterConfig",
        &[
            read("config", "`{}` switches the filter on as it is configured"),
            harmless("is_optional", "an unknown filter is an error in any case"),
            read("disabled", "default false"),
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
            MIRRORS,
            RETRY_POLICY,
            HEDGE_POLICY,
        ],
    ),
    message(
        "envoy.config.route.v3.RetryPolicy",
        &[
            read("retry_on", "words that are no condition have no effect, with a warning"),
            read("num_retries", "default 1"),
            read(
                "per_try_timeout",
                "default: none, as with 0 and when it is not less than the route's `timeout`",
            ),
            read("per_try_idle_timeout", "default: none, as with 0"),
            read("retry_host_predicate", "`previous_hosts`"),
            read("host_selection_retry_max_attempts", "default 1, at most 100"),
            read("retriable_status_codes", "with `retriable-status-codes` in `retry_on`"),
            read("retry_back_off", "default: 25 ms, at most 250 ms"),
            read("rate_limited_retry_back_off", ""),
            read("retriable_headers", "with `retriable-headers` in `retry_on`"),
            read("retriable_request_headers", "one of them must hold"),
        ],
    ),
    message(
        "envoy.config.route.v3.RetryPolicy.RetryHostPredicate",
        &[read("name", ""), read("typed_config", "")],
    ),
    message("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", &[]),
    message(
        "envoy.config.route.v3.RetryPolicy.RetryBackOff",
        &[
            read("base_interval", "whole milliseconds, at least one"),
            read("max_interval", "default: ten times `base_interval`"),
        ],
    ),
    message(
        "envoy.config.route.v3.RetryPolicy.RateLimitedRetryBackOff",
        &[read("reset_headers", "the first that counts"), read("max_interval", "default 300 s")],
    ),
    message(
        "envoy.config.route.v3.RetryPolicy.ResetHeader",
        &[read("name", ""), read("format", "default `SECONDS`")],
    ),
    message(
        "envoy.config.route.v3.HedgePolicy",
        &[
            read("hedge_on_per_try_timeout", ""),
            no_effect("initial_requests", "Envoy does not implement it either"),
            no_effect("additional_request_chance", "Envoy does not implement it either"),
        ],
    ),
    message(
        "envoy.config.route.v3.RouteAction.RequestMirrorPolicy",
        &[
            read("cluster", ""),
            read("cluster_header", ""),
            read("runtime_fraction", "only its `default_value`: there are no runtime values"),
            no_effect("trace_sampled", "tracing is not implemented yet"),
            read("disable_shadow_host_suffix_append", ""),
            read("host_rewrite_literal", ""),
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

//! What is implemented of access logs.

use super::{MessageSupport, harmless, message, read};

pub(super) const TABLE: &[MessageSupport] = &[
    message(
        "envoy.config.accesslog.v3.AccessLog",
        &[read("name", ""), read("filter", ""), read("typed_config", "")],
    ),
    message(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        &[
            read("path", ""),
            read("format", "deprecated by Envoy: use `log_format`"),
            read("json_format", "deprecated by Envoy: use `log_format`"),
            read("typed_json_format", "deprecated by Envoy: use `log_format`"),
            read("log_format", "default: Envoy's default format"),
        ],
    ),
    message(
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        &[read("log_format", "default: Envoy's default format")],
    ),
    message(
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        &[read("log_format", "default: Envoy's default format")],
    ),
    message(
        "envoy.config.core.v3.SubstitutionFormatString",
        &[
            read("text_format", "deprecated by Envoy: use `text_format_source`"),
            read("json_format", ""),
            read("text_format_source", ""),
            read("omit_empty_values", ""),
            harmless("content_type", "for local replies only"),
            harmless("json_format_options", "keys keep the order of the file"),
        ],
    ),
    message(
        "envoy.config.accesslog.v3.AccessLogFilter",
        &[
            read("status_code_filter", ""),
            read("duration_filter", "milliseconds"),
            read("not_health_check_filter", ""),
            read("traceable_filter", ""),
            read("runtime_filter", "its `percent_sampled`"),
            read("and_filter", ""),
            read("or_filter", ""),
            read("header_filter", ""),
            read("response_flag_filter", ""),
        ],
    ),
    message("envoy.config.accesslog.v3.StatusCodeFilter", &[read("comparison", "")]),
    message("envoy.config.accesslog.v3.DurationFilter", &[read("comparison", "")]),
    message("envoy.config.accesslog.v3.NotHealthCheckFilter", &[]),
    message("envoy.config.accesslog.v3.TraceableFilter", &[]),
    message(
        "envoy.config.accesslog.v3.RuntimeFilter",
        &[
            harmless("runtime_key", "there are no runtime values: the default is used"),
            read("percent_sampled", ""),
            harmless("use_independent_randomness", "the decision is always independent"),
        ],
    ),
    message("envoy.config.accesslog.v3.AndFilter", &[read("filters", "")]),
    message("envoy.config.accesslog.v3.OrFilter", &[read("filters", "")]),
    message("envoy.config.accesslog.v3.HeaderFilter", &[read("header", "")]),
    message("envoy.config.accesslog.v3.ResponseFlagFilter", &[read("flags", "")]),
    message(
        "envoy.config.accesslog.v3.ComparisonFilter",
        &[read("op", "default `EQ`"), read("value", "")],
    ),
];

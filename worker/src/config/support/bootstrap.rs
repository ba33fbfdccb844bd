//! What is implemented of the bootstrap, the admin interface and messages used everywhere.

use super::{MessageSupport, harmless, message, no_effect, read, strict};

const WATCHES: &str =
    "the supervisor watches the workers, after the times that OPERATIONS.md names";

pub(super) const TABLE: &[MessageSupport] = &[
    message(
        "envoy.config.bootstrap.v3.Bootstrap",
        &[
            read("node", ""),
            read("static_resources", ""),
            read("dynamic_resources", "from files only"),
            read("admin", ""),
            read("layered_runtime", "static and admin layers"),
            no_effect("stats_config", "statistics keep Envoy's default names and tags"),
            no_effect("stats_flush_interval", "statistics are always up to date"),
            no_effect("stats_flush_on_admin", "statistics are always up to date"),
            no_effect("deferred_stat_options", "statistics are always up to date"),
            no_effect("watchdog", WATCHES),
            no_effect("watchdogs", WATCHES),
            no_effect("flags_path", "there are no such files"),
            no_effect("enable_dispatcher_stats", "baton has no dispatchers"),
            no_effect("application_log_config", "use the flags of the command line"),
            no_effect("memory_allocator_manager", "baton has another allocator"),
            harmless("inline_headers", "a hint for speed"),
            harmless("default_regex_engine", "expressions always have RE2's syntax"),
        ],
    ),
    message(
        "envoy.config.bootstrap.v3.Bootstrap.StaticResources",
        &[read("listeners", ""), read("clusters", "")],
    ),
    message(
        "envoy.config.bootstrap.v3.Bootstrap.DynamicResources",
        &[
            read(
                "cds_config",
                "routes may then name clusters that are in no file yet; Envoy refuses that of `static_resources`",
            ),
            read("lds_config", ""),
        ],
    ),
    message(
        "envoy.config.core.v3.ConfigSource",
        &[
            read("path", "deprecated by Envoy; as `path_config_source`"),
            read("path_config_source", ""),
            read("initial_fetch_timeout", "default 15 s, 0 = a start waits for ever"),
            read("resource_api_version", "`V3` and `AUTO`"),
        ],
    ),
    message(
        "envoy.config.core.v3.PathConfigSource",
        &[
            read(
                "path",
                "a file that is not there yet gives a warning (Envoy: an error), a directory that is not there an \
                 error",
            ),
            read("watched_directory", "it must be there"),
        ],
    ),
    message("envoy.config.core.v3.WatchedDirectory", &[read("path", "")]),
    strict(
        "envoy.config.bootstrap.v3.Admin",
        &[
            read("address", "without it there is no admin interface"),
            read("access_log", ""),
            read("access_log_path", "deprecated by Envoy; `/dev/null` means none"),
            harmless("profile_path", "there is no such profiler"),
            harmless("ignore_global_conn_limit", "the admin interface is never limited"),
        ],
    ),
    message(
        "envoy.config.core.v3.Node",
        &[
            read("id", ""),
            read("cluster", ""),
            read("locality", ""),
            harmless("metadata", "for control planes only"),
            harmless("dynamic_parameters", "for control planes only"),
            harmless("user_agent_name", "for control planes only"),
            harmless("user_agent_version", "for control planes only"),
            harmless("user_agent_build_version", "for control planes only"),
            harmless("extensions", "for control planes only"),
            harmless("client_features", "for control planes only"),
        ],
    ),
    message(
        "envoy.config.core.v3.Locality",
        &[harmless("region", "shown only"), read("zone", ""), harmless("sub_zone", "shown only")],
    ),
    message("envoy.config.bootstrap.v3.LayeredRuntime", &[read("layers", "")]),
    message(
        "envoy.config.bootstrap.v3.RuntimeLayer",
        &[
            read("name", ""),
            read(
                "static_layer",
                "`envoy.resource_limits.listener.NAME.connection_limit` and \
                 `overload.global_downstream_max_connections` are read, other keys give a warning",
            ),
            harmless("admin_layer", "runtime values cannot be changed"),
        ],
    ),
    message("envoy.config.core.v3.Address", &[read("socket_address", ""), read("pipe", "")]),
    message(
        "envoy.config.core.v3.SocketAddress",
        &[
            read("protocol", "only TCP"),
            read("address", ""),
            read("port_value", ""),
            read("ipv4_compat", ""),
        ],
    ),
    message("envoy.config.core.v3.Pipe", &[read("path", "`@name` is abstract"), read("mode", "")]),
    message(
        "envoy.config.core.v3.TcpKeepalive",
        &[
            read("keepalive_probes", "default: the kernel's"),
            read("keepalive_time", "seconds; default: the kernel's"),
            read("keepalive_interval", "seconds; default: the kernel's"),
        ],
    ),
    strict(
        "envoy.config.core.v3.DataSource",
        &[
            read("filename", "read when the configuration is loaded"),
            read("inline_bytes", ""),
            read("inline_string", ""),
            read("environment_variable", "read when the configuration is loaded"),
        ],
    ),
    strict(
        "envoy.config.core.v3.TransportSocket",
        &[read("name", ""), read("typed_config", "only `raw_buffer`; TLS is not implemented yet")],
    ),
    strict("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", &[]),
    message(
        "envoy.config.core.v3.TypedExtensionConfig",
        &[read("name", ""), read("typed_config", "")],
    ),
];

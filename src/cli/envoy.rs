//! Flags of the log, and flags of Envoy that baton takes, so that Envoy's launchers start it, and that
//! change nothing here.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::Args;

use super::values;

/// Flags without an effect. Each is named in one line of the log.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub(crate) struct EnvoyArgs {
    /// Accepted as in Envoy, without an effect.
    #[arg(long, value_name = "VERSION", hide = true, value_parser = values::ip_version)]
    pub local_address_ip_version: Option<String>,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, value_name = "NUMBER", hide = true, allow_negative_numbers = true)]
    pub file_flush_interval_msec: Option<u32>,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, value_name = "NUMBER", hide = true, allow_negative_numbers = true)]
    pub file_flush_min_size_kb: Option<u32>,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, value_name = "PATH", hide = true, allow_hyphen_values = true, value_parser = values::path)]
    pub socket_path: Option<String>,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, value_name = "MODE", hide = true, allow_negative_numbers = true, value_parser = values::file_mode)]
    pub socket_mode: Option<u32>,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, value_name = "NAME:VALUE", hide = true, allow_hyphen_values = true, value_parser = values::stats_tag)]
    pub stats_tag: Vec<String>,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, value_name = "LIST", hide = true, allow_hyphen_values = true)]
    pub disable_extensions: Option<OsString>,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub cpuset_threads: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub log_stacktrace_single_entry: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub allow_unknown_fields: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub allow_unknown_static_fields: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub reject_unknown_dynamic_fields: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub ignore_unknown_dynamic_fields: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub skip_deprecated_logs: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub skip_hot_restart_on_no_parent: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub skip_hot_restart_parent_stats: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub enable_core_dump: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true, conflicts_with = "component_log_level")]
    pub enable_fine_grain_logging: bool,
    /// Accepted as in Envoy, without an effect.
    #[arg(long, hide = true)]
    pub enable_mutex_tracing: bool,
}

/// How the log is written, by a supervisor and its workers.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "they are the names of the flags")]
pub(crate) struct LogArgs {
    /// The log goes to this file instead of standard error; USR1 reopens it.
    #[arg(long, value_name = "FILE")]
    pub log_path: Option<PathBuf>,
    /// How a line of the log looks, in spdlog's syntax.
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub log_format: Option<String>,
    /// Escape line ends and unprintable characters in the log.
    #[arg(long)]
    pub log_format_escaped: bool,
}

impl LogArgs {
    /// The file; an empty name is none, as in Envoy.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.log_path.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// The flags for a worker.
    pub(crate) fn for_worker(&self) -> Result<Vec<String>, &'static str> {
        let mut flags = Vec::new();
        if let Some(path) = self.path() {
            let path = path.to_str().ok_or("the path of the log is not UTF-8")?;
            flags.push(format!("--log-path={path}"));
        }
        flags.extend(self.log_format.iter().map(|format| format!("--log-format={format}")));
        if self.log_format_escaped {
            flags.push("--log-format-escaped".to_owned());
        }
        Ok(flags)
    }
}

impl EnvoyArgs {
    /// Those that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--local-address-ip-version", self.local_address_ip_version.is_some()),
            ("--file-flush-interval-msec", self.file_flush_interval_msec.is_some()),
            ("--file-flush-min-size-kb", self.file_flush_min_size_kb.is_some()),
            ("--socket-path", self.socket_path.is_some()),
            ("--socket-mode", self.socket_mode.is_some()),
            ("--stats-tag", !self.stats_tag.is_empty()),
            ("--disable-extensions", self.disable_extensions.is_some()),
            ("--cpuset-threads", self.cpuset_threads),
            ("--log-stacktrace-single-entry", self.log_stacktrace_single_entry),
            ("--allow-unknown-fields", self.allow_unknown_fields),
            ("--allow-unknown-static-fields", self.allow_unknown_static_fields),
            ("--reject-unknown-dynamic-fields", self.reject_unknown_dynamic_fields),
            ("--ignore-unknown-dynamic-fields", self.ignore_unknown_dynamic_fields),
            ("--skip-deprecated-logs", self.skip_deprecated_logs),
            ("--skip-hot-restart-on-no-parent", self.skip_hot_restart_on_no_parent),
            ("--skip-hot-restart-parent-stats", self.skip_hot_restart_parent_stats),
            ("--enable-core-dump", self.enable_core_dump),
            ("--enable-fine-grain-logging", self.enable_fine_grain_logging),
            ("--enable-mutex-tracing", self.enable_mutex_tracing),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Mode};

    fn given(line: &str) -> Vec<&'static str> {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert!(cli.command.is_none());
        cli.run.envoy.given()
    }

    #[test]
    fn the_arguments_of_launchers_are_understood() {
        // Istio's agent.
        let names = given(
            "envoy -c etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate \
             --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart \
             --allow-unknown-static-fields -l warning --component-log-level misc:error \
             --skip-deprecated-logs --log-format %Y-%m-%dT%T.%fZ\\t%l\\tenvoy --concurrency 2",
        );
        assert_eq!(names.len(), 4, "{names:?}");
        // Envoy Gateway.
        let names = given(
            "envoy --service-cluster default/eg --service-node pod-1 --config-yaml {} \
             --log-level warn --cpuset-threads --drain-strategy immediate --drain-time-s 60",
        );
        assert_eq!(names, ["--cpuset-threads"]);
        // func-e.
        let names = given("envoy -c envoy.yaml --admin-address-path /tmp/admin-address.txt");
        assert!(names.is_empty());
    }

    #[test]
    fn every_other_flag_of_envoy_is_understood() {
        let line = "envoy -c a --log-path /x --use-dynamic-base-id --base-id-path /x --service-zone z \
                    --file-flush-min-size-kb 64 --reject-unknown-dynamic-fields \
                    --ignore-unknown-dynamic-fields --skip-hot-restart-on-no-parent \
                    --skip-hot-restart-parent-stats --stats-tag a:b --stats-tag c:d \
                    --socket-path @x --socket-mode 600 --enable-core-dump \
                    --enable-fine-grain-logging --enable-mutex-tracing --disable-extensions a/b \
                    --log-stacktrace-single-entry --log-format-escaped --allow-unknown-fields";
        assert_eq!(given(line).len(), 14);
        let cli = Cli::try_parse_from(["envoy", "-c", "a", "--mode", "init_only"]).unwrap();
        assert_eq!(cli.run.mode, Mode::InitOnly);
    }
}

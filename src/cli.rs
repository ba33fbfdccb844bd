//! What can be typed: commands and flags, with Envoy's names where Envoy has them.
//!
//! Help, completions and the manual page are made from this.

use std::{ffi::OsString, path::PathBuf};

use baton_contract::message::{CrashEscrow, DrainStrategy, OnRemoved};
use clap::{Args, Parser, Subcommand, ValueEnum};

mod envoy;
mod values;

pub(crate) use envoy::{EnvoyArgs, LogArgs};

/// A hot-restarting proxy: a reload, an upgrade or a crash never costs a connection.
///
/// Without a command, the flags are those of `run`, so `baton -c envoy.yaml` works as with Envoy.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 ok, 1 configuration invalid, 2 usage, 3 refused, 4 rolled back, \
                  5 not running, 6 not allowed, 7 timed out, 70 internal error.\n\
                  Signals: HUP reload, TERM and INT stop (twice: at once), QUIT stop with the full \
                  drain time, USR1 reopen logs, USR2 upgrade."
)]
pub(crate) struct Cli {
    /// What to do; `run` when there is none.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a configuration, in the foreground.
    Run(Box<RunArgs>),
    /// Check a configuration and show every mistake.
    Validate(Box<ValidateArgs>),
    /// Start a new generation from the configuration file, and show its progress.
    Reload(ReloadArgs),
    /// Replace the program of the running supervisor and start a new generation from it.
    Upgrade(UpgradeArgs),
    /// Show the generations and what they do.
    Status(StatusArgs),
    /// Show statistics, read from shared memory.
    Stats(StatsArgs),
    /// End a draining generation sooner.
    Drain(DrainArgs),
    /// Stop the proxy, and wait until it has stopped.
    Stop(StopArgs),
    /// Start a proxy with load, reload it several times, and count what clients lost.
    Demo(DemoArgs),
    /// Serve one generation; started by `run`.
    #[command(hide = true)]
    Worker(WorkerArgs),
    /// Check that the state of a running supervisor can be taken over; started by it.
    #[command(hide = true)]
    AdoptCheck(AdoptCheckArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// Flags that find a running supervisor.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControlArgs {
    /// Keeps several proxies of one user apart.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub base_id: u32,
    /// Control socket; by default in `$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR` or /tmp.
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,
}

/// How a configuration is read.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReadArgs {
    /// Fields that are not implemented yet are warnings instead of errors.
    #[arg(long)]
    pub allow_unimplemented: bool,
    /// Replace ${VAR} and ${VAR:-default} in the configuration with environment variables.
    #[arg(long)]
    pub expand_env: bool,
}

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Configuration file, Envoy v3 YAML or JSON.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// Configuration as text, instead of a file or merged over it.
    #[arg(long, value_name = "YAML")]
    pub config_yaml: Option<String>,
    /// Serve, or only validate.
    #[arg(long, value_enum, default_value_t = Mode::Serve, value_name = "MODE")]
    pub mode: Mode,
    /// Worker threads, at most 1024; by default one for each CPU.
    #[arg(long, value_name = "THREADS", value_parser = values::threads)]
    pub concurrency: Option<u32>,
    /// Time over which draining connections are told to close, seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = values::seconds)]
    pub drain_time_s: u64,
    /// Time after which a draining generation is ended, seconds.
    #[arg(long, default_value_t = 900, value_name = "SECONDS", value_parser = values::seconds)]
    pub parent_shutdown_time_s: u64,
    /// What a draining generation does with its connections.
    #[arg(long, value_enum, default_value_t = Strategy::Migrate, value_name = "STRATEGY")]
    pub drain_strategy: Strategy,
    /// What happens to connections whose listener the new configuration does not have.
    #[arg(long, value_enum, default_value_t = Removed::Keep, value_name = "POLICY")]
    pub on_removed: Removed,
    /// Which connections outlive a worker that is killed.
    #[arg(long, value_enum, default_value_t = Escrow::Tunnels, value_name = "WHICH")]
    pub crash_escrow: Escrow,
    /// Log level: trace, debug, info, warning, error, critical, off.
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// Levels of single components, as in http:debug,upstream:trace.
    #[arg(long, default_value = "", value_name = "LIST")]
    pub component_log_level: String,
    /// How the configuration is read.
    #[command(flatten)]
    pub read: ReadArgs,
    /// Where commands find the supervisor.
    #[command(flatten)]
    pub control: ControlArgs,
    /// Accepted for Envoy's sake, without effect; baton counts generations itself.
    #[arg(long, value_name = "NUMBER")]
    pub restart_epoch: Option<u32>,
    /// Accepted for Envoy's sake, without effect; hot restart needs no setup.
    #[arg(long)]
    pub disable_hot_restart: bool,
    /// Print the version of the hot restart protocol.
    #[arg(long)]
    pub hot_restart_version: bool,
    /// Replaces node.id of the configuration.
    #[arg(long, default_value = "", value_name = "ID")]
    pub service_node: String,
    /// Replaces node.cluster of the configuration.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub service_cluster: String,
    /// Replaces node.locality.zone of the configuration.
    #[arg(long, default_value = "", value_name = "ZONE")]
    pub service_zone: String,
    /// Find a base id that nobody uses, instead of `--base-id`.
    #[arg(long)]
    pub use_dynamic_base_id: bool,
    /// Write the base id to this file.
    #[arg(long, value_name = "FILE")]
    pub base_id_path: Option<PathBuf>,
    /// Write the address of the admin interface to this file.
    #[arg(long, default_value = "", value_name = "FILE")]
    pub admin_address_path: String,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
    /// Time a new generation may take to read its configuration, seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = values::seconds)]
    pub start_timeout_s: u64,
    /// Time a new generation may take to resolve names, seconds. A reload whose cluster has no address
    /// by then is refused.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = values::seconds)]
    pub warm_timeout_s: u64,
    /// Time during which a new generation that fails is rolled back, seconds.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = values::seconds)]
    pub probation_s: u64,
    /// Generations that may live at the same time.
    #[arg(long, default_value_t = 8, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(2..=32))]
    pub max_generations: u32,
    /// Time connections have to end after SIGTERM, seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = values::seconds)]
    pub stop_time_s: u64,
    /// The admin interface may change things, by POST.
    #[arg(long)]
    pub admin_allow_mutations: bool,
    /// Stop gracefully when this process, which is the parent, has ended.
    #[arg(long, hide = true, value_name = "PID")]
    pub end_with: Option<u32>,
    /// What only Envoy needs.
    #[command(flatten)]
    pub envoy: EnvoyArgs,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Mode {
    /// Serve the configuration.
    Serve,
    /// Check it and exit.
    Validate,
    /// The same, under the other name that Envoy has for it.
    #[value(name = "init_only", alias = "init-only")]
    InitOnly,
}

/// `--crash-escrow`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Escrow {
    /// None.
    Off,
    /// Tunnels: TCP, WebSocket and CONNECT.
    Tunnels,
    /// Tunnels, and HTTP/1 connections between two requests.
    Idle,
}

impl From<Escrow> for CrashEscrow {
    fn from(escrow: Escrow) -> Self {
        match escrow {
            Escrow::Off => Self::Off,
            Escrow::Tunnels => Self::Tunnels,
            Escrow::Idle => Self::Idle,
        }
    }
}

/// `--drain-strategy`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Strategy {
    /// Move connections that can move, tell the others gradually to close.
    Migrate,
    /// Tell more and more of them to close, over the drain time.
    Gradual,
    /// Tell all of them to close, with their next response.
    Immediate,
}

/// `--on-removed`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Removed {
    /// Those with something in progress move and go on to its end; idle ones are told to close.
    Keep,
    /// They stay with the old generation and are told to close.
    Drain,
    /// They are closed.
    Close,
}

impl From<Removed> for OnRemoved {
    fn from(policy: Removed) -> Self {
        match policy {
            Removed::Keep => Self::Keep,
            Removed::Drain => Self::Drain,
            Removed::Close => Self::Close,
        }
    }
}

impl From<Strategy> for DrainStrategy {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Migrate => Self::Migrate,
            Strategy::Gradual => Self::Gradual,
            Strategy::Immediate => Self::Immediate,
        }
    }
}

/// Flags of `validate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ValidateArgs {
    /// The file; `-` reads standard input.
    #[arg(
        value_name = "FILE",
        required_unless_present_any = ["config_path", "config_yaml"],
        conflicts_with = "config_path"
    )]
    pub file: Option<PathBuf>,
    /// Print the diagnostics as JSON.
    #[arg(long)]
    pub json: bool,
    /// Also check that every listener can be bound.
    #[arg(long)]
    pub check_bind: bool,
    /// The flags a start would have, which are checked as well.
    #[command(flatten, next_help_heading = "Flags of `run`, which are checked as well")]
    pub run: RunArgs,
}

/// Flags of `reload`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReloadArgs {
    /// Ask for the reload and do not wait for its outcome.
    #[arg(long, conflicts_with_all = ["settle", "dry_run"])]
    pub no_wait: bool,
    /// What happens anyway; scripts of older versions say it.
    #[arg(long, hide = true, conflicts_with = "no_wait")]
    pub wait: bool,
    /// Also wait until the connections of older generations have moved or ended.
    #[arg(long, conflicts_with = "dry_run")]
    pub settle: bool,
    /// Longest time to wait, seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = values::seconds)]
    pub timeout: u64,
    /// Show what would happen, change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Take a configuration that was rolled back before, or has clusters without an address.
    #[arg(long)]
    pub force: bool,
    /// Worker threads from now on.
    #[arg(long, value_name = "THREADS", value_parser = values::threads)]
    pub concurrency: Option<u32>,
    /// Where the supervisor is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Flags of `upgrade`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpgradeArgs {
    /// The new program; by default the file the supervisor was started from.
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// Longest time to wait, seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = values::seconds)]
    pub timeout: u64,
    /// Where the supervisor is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What `adopt-check` gets.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdoptCheckArgs {
    /// The command line of the supervisor.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Flags of `status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// Print everything as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print it again every second.
    #[arg(long)]
    pub watch: bool,
    /// Where the supervisor is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Flags of `stats`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatsArgs {
    /// Only names that contain this text.
    #[arg(value_name = "FILTER", default_value = "")]
    pub filter: String,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the supervisor is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Flags of `drain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DrainArgs {
    /// Number of the generation, as `status` shows it.
    #[arg(value_name = "GENERATION")]
    pub generation: u32,
    /// How its connections are told to close.
    #[arg(long, value_enum, default_value_t = Strategy::Immediate, value_name = "STRATEGY")]
    pub strategy: Strategy,
    /// Where the supervisor is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Flags of `stop`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StopArgs {
    /// Cut connections instead of waiting for them.
    #[arg(long)]
    pub now: bool,
    /// Tell the proxy to stop and do not wait until it has.
    #[arg(long)]
    pub no_wait: bool,
    /// Where the supervisor is.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// Flags of `demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// How long the load runs, seconds.
    #[arg(long, default_value_t = 15, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(5..=600))]
    pub seconds: u64,
    /// Show the log of the proxy.
    #[arg(long)]
    pub log: bool,
}

/// Flags of `worker`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WorkerArgs {
    /// Number of the generation.
    #[arg(long, value_name = "NUMBER")]
    pub generation: u32,
    /// As the supervisor writes its log.
    #[command(flatten)]
    pub log: LogArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_envoy_start_the_proxy_without_a_command() {
        let line = "baton -c envoy.yaml --drain-time-s 60 --parent-shutdown-time-s 90 \
                    --drain-strategy immediate --concurrency 2 -l debug --base-id 3 \
                    --restart-epoch 1 --service-node n --service-cluster c --mode validate \
                    --component-log-level http:trace --disable-hot-restart";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.run.config_path.as_deref(), Some("envoy.yaml".as_ref()));
        assert_eq!((cli.run.drain_time_s, cli.run.parent_shutdown_time_s), (60, 90));
        assert_eq!(cli.run.drain_strategy, Strategy::Immediate);
        assert_eq!(cli.run.mode, Mode::Validate);
    }

    #[test]
    fn defaults_are_those_of_envoy() {
        let cli = Cli::try_parse_from(["baton", "run"]).unwrap();
        let Some(Command::Run(run)) = cli.command else { panic!("run") };
        assert_eq!((run.drain_time_s, run.parent_shutdown_time_s), (600, 900));
    }

    /// The page is written by hand, so a flag that is not on it would be forgotten.
    #[test]
    fn the_operations_page_names_every_flag_and_command() {
        let page = include_str!("../docs/OPERATIONS.md");
        let cli = Cli::command();
        let shown = cli.get_arguments().filter(|argument| !argument.is_hide_set());
        for flag in shown.filter_map(clap::Arg::get_long) {
            if !["help", "version"].contains(&flag) {
                assert!(page.contains(&format!("`--{flag}`")), "--{flag}");
            }
        }
        for command in cli.get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(page.contains(&format!("`baton {}", command.get_name())), "{command}");
        }
        for default in ["600", "900", "30", "15", "10", "8"] {
            assert!(page.contains(&format!("| {default} |")), "{default}");
        }
    }
}

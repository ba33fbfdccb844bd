//! What the command line tells the supervisor, with Envoy's defaults, and how a run can fail.

use std::{io, os::fd::OwnedFd, path::PathBuf, time::Duration};

use baton_contract::{
    control::path::SOCKET_PATH_MAX,
    exit::Exit,
    message::{CrashEscrow, DrainStrategy, OnRemoved},
};

/// Settings of a supervisor.
#[derive(Clone, Debug)]
pub struct SupervisorOptions {
    /// `-c`: the configuration file. With `--config-yaml` any name to show in messages.
    pub config_path: PathBuf,
    /// `--config-yaml`: the configuration itself; the file is not read then.
    pub config_inline: Option<Vec<u8>>,
    /// `--concurrency`, threads; `None` = number of CPUs.
    pub concurrency: Option<u32>,
    /// `--base-id`: keeps several supervisors of one user apart.
    pub base_id: u32,
    /// `--control-socket`.
    pub control_socket: Option<PathBuf>,
    /// `--drain-time-s`.
    pub drain_time: Duration,
    /// `--parent-shutdown-time-s`.
    pub parent_shutdown_time: Duration,
    /// `--drain-strategy`.
    pub drain_strategy: DrainStrategy,
    /// `--on-removed`.
    pub on_removed: OnRemoved,
    /// `--crash-escrow`.
    pub crash_escrow: CrashEscrow,
    /// `--start-timeout-s`: from the start of a worker to a good configuration.
    pub start_timeout: Duration,
    /// `--warm-timeout-s`: from there to READY.
    pub warm_timeout: Duration,
    /// `--probation-s`: how long the older generation can come back.
    pub probation: Duration,
    /// `--max-generations` that may live at once.
    pub max_generations: usize,
    /// `--stop-time-s`: for connections to end after SIGTERM.
    pub stop_time: Duration,
    /// `--allow-unimplemented`.
    pub allow_unimplemented: bool,
    /// `--expand-env`.
    pub expand_env: bool,
    /// `--admin-allow-mutations`.
    pub admin_allow_mutations: bool,
    /// `-l`: filter for log lines.
    pub log_level: String,
    /// Configuration text that every worker merges over the file; empty = none.
    pub config_overlay: String,
    /// `--service-node`, empty when not given.
    pub service_node: String,
    /// `--service-cluster`, empty when not given.
    pub service_cluster: String,
    /// `--service-zone`, empty when not given.
    pub service_zone: String,
    /// `--admin-address-path`, empty when not given.
    pub admin_address_path: String,
    /// `--use-dynamic-base-id`: a free base id is found at the start.
    pub dynamic_base_id: bool,
    /// `--base-id-path`: where the base id is written.
    pub base_id_path: Option<PathBuf>,
    /// Opens the log of this program again.
    pub reopen_log: fn(),
    /// Standard error as it was before the log went to a file.
    pub terminal: fn() -> Option<OwnedFd>,
    /// Stop gracefully when this process, which is the parent, has ended.
    pub end_with: Option<u32>,
    /// The program to start workers from; `None` = the file this process was started from.
    pub program: Option<PathBuf>,
    /// Arguments before `--generation N`.
    pub worker_arguments: Vec<String>,
    /// Arguments before those of this process, for a program that is asked whether it could take
    /// over.
    pub check_arguments: Vec<String>,
}

impl Default for SupervisorOptions {
    fn default() -> Self {
        Self {
            config_path: PathBuf::new(),
            config_inline: None,
            concurrency: None,
            base_id: 0,
            control_socket: None,
            drain_time: Duration::from_mins(10),
            parent_shutdown_time: Duration::from_mins(15),
            drain_strategy: DrainStrategy::Migrate,
            on_removed: OnRemoved::Keep,
            crash_escrow: CrashEscrow::Tunnels,
            start_timeout: Duration::from_secs(30),
            warm_timeout: Duration::from_secs(15),
            probation: Duration::from_secs(10),
            max_generations: 8,
            stop_time: Duration::from_secs(30),
            allow_unimplemented: false,
            expand_env: false,
            admin_allow_mutations: false,
            log_level: "info".to_owned(),
            config_overlay: String::new(),
            service_node: String::new(),
            service_cluster: String::new(),
            service_zone: String::new(),
            admin_address_path: String::new(),
            dynamic_base_id: false,
            base_id_path: None,
            reopen_log: || {},
            terminal: || None,
            end_with: None,
            program: None,
            worker_arguments: vec!["worker".to_owned()],
            check_arguments: vec!["adopt-check".to_owned()],
        }
    }
}

/// Why a supervisor could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// The lock is held by another process.
    #[error(
        "another supervisor{} runs with base id {base_id} (lock `{}`)\nhint: use `baton reload` \
         to change its configuration, or another `--base-id`",
        pid.map(|pid| format!(", process {pid},")).unwrap_or_default(), lock.display()
    )]
    AnotherInstance {
        /// The base id.
        base_id: u32,
        /// The lock file.
        lock: PathBuf,
        /// Its process, if it wrote it down.
        pid: Option<u32>,
    },
    /// The control socket or its directory cannot be used.
    #[error("cannot open the control socket `{}`", path.display())]
    ControlSocket {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No socket can have the path of the control socket.
    #[error(
        "the path of the control socket has {} bytes, at most {SOCKET_PATH_MAX} are possible: `{}`\n\
         hint: name a shorter one with `--control-socket`",
        path.as_os_str().len(), path.display()
    )]
    ControlSocketPath {
        /// The control socket.
        path: PathBuf,
    },
    /// A file that a flag names could not be written.
    #[error("cannot write `{}` for `{flag}`: {why}\nhint: make the directory, or name another file", path.display())]
    Unwritable {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// Names and paths that do not fit into the message to a worker.
    #[error(
        "`--service-node`, `--service-cluster`, `--service-zone`, `--admin-address-path` and the levels \
         of the log have more than {} bytes together\nhint: shorten them",
        crate::precheck::WORDS_BYTES_MAX
    )]
    Words,
    /// The configuration file cannot be read.
    #[error("{text}")]
    ConfigFile {
        /// Path and cause.
        text: String,
    },
    /// The configuration is invalid.
    #[error("the configuration is invalid: {text}")]
    Config {
        /// One line.
        text: String,
        /// Rendered diagnostics.
        diagnostics: Vec<String>,
    },
    /// A listener could not be bound.
    #[error("{text}")]
    Bind {
        /// Which one and why.
        text: String,
    },
    /// The first generation did not start.
    #[error("the first worker did not start: {text}")]
    FirstGeneration {
        /// Why.
        text: String,
    },
    /// Another supervisor commands the workers now.
    #[error("another supervisor took over the workers of this one\nhint: `baton status` shows it")]
    Superseded,
    /// The state of another supervisor cannot be taken over.
    #[error("cannot take over the state of the running supervisor")]
    State {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system refused something the supervisor cannot work without.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SupervisorError {
    /// How the program ends after this error.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::ConfigFile { .. } | Self::Config { .. } => Exit::Config,
            Self::AnotherInstance { .. } | Self::Bind { .. } | Self::Superseded => Exit::Refused,
            Self::ControlSocket { .. } => Exit::Permission,
            Self::ControlSocketPath { .. } | Self::Unwritable { .. } | Self::Words => Exit::Usage,
            Self::FirstGeneration { .. } | Self::System { .. } | Self::State { .. } => {
                Exit::Internal
            }
        }
    }
}

//! What the user asked for.

use std::path::PathBuf;

/// Which proxies to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Which {
    /// This project.
    Baton,
    /// nginx, reloaded by SIGHUP.
    Nginx,
    /// `HAProxy` in master-worker mode, reloaded by SIGUSR2.
    Haproxy,
    /// Envoy with real hot restarts.
    Envoy,
    /// All four, one after the other.
    All,
}

/// How a reload of baton is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum ReloadBy {
    /// SIGHUP to the supervisor.
    Signal,
    /// `baton reload`.
    Command,
}

impl Options {
    /// baton's limit for what is left of an older generation, in seconds.
    pub(crate) fn baton_drain_s(&self) -> u64 {
        self.baton_drain_s.unwrap_or(self.drain_s)
    }
}

/// Puts a proxy under load, reloads it, and prints one table of what its clients saw.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "torture", version)]
pub(crate) struct Options {
    /// The proxy to run.
    #[arg(long, value_enum, default_value = "baton")]
    pub(crate) proxy: Which,
    /// Path of the baton program.
    #[arg(long, default_value = "target/release/baton")]
    pub(crate) baton: PathBuf,
    /// Number of reloads.
    #[arg(long, default_value_t = 4)]
    pub(crate) reloads: u32,
    /// Time between two reloads, in milliseconds.
    #[arg(long, default_value_t = 7000)]
    pub(crate) interval_ms: u64,
    /// Drain limit given to the peers, in seconds: the old process must be gone after it.
    #[arg(long, default_value_t = 5)]
    pub(crate) drain_s: u64,
    /// baton's `--parent-shutdown-time-s`, in seconds; without it, the drain limit of the peers.
    #[arg(long)]
    pub(crate) baton_drain_s: Option<u64>,
    /// baton's `--probation-s`, in seconds: older generations let go of their connections after it.
    #[arg(long, default_value_t = 1)]
    pub(crate) probation_s: u64,
    /// Length of one upload, download, WebSocket, tunnel or half-closed exchange, in seconds.
    #[arg(long, default_value_t = 12)]
    pub(crate) long_s: u64,
    /// Worker threads or processes of the proxy.
    #[arg(long, default_value_t = 2)]
    pub(crate) concurrency: u32,
    /// Multiplies the number of clients of every workload.
    #[arg(long, default_value_t = 1)]
    pub(crate) scale: u32,
    /// Clients of seldom kinds, too: uploads of 10 B/s, uploads that are refused before their body has
    /// come, responses that end early, `x-forwarded-for` on two lines.
    #[arg(long)]
    pub(crate) edges: bool,
    /// Change the routes on every second reload.
    #[arg(long)]
    pub(crate) change_routes: bool,
    /// Send a broken configuration before every good one (baton only).
    #[arg(long)]
    pub(crate) bad_first: bool,
    /// Clusters, endpoints, listeners and routes come from files, each of which changes once in so many
    /// milliseconds: by rename, in place, by symbolic link (baton and Envoy only).
    #[arg(long, value_name = "MS", conflicts_with_all = ["change_routes", "bad_first"])]
    pub(crate) flip_files: Option<u64>,
    /// How baton is reloaded.
    #[arg(long, value_enum, default_value = "command")]
    pub(crate) reload_by: ReloadBy,
    /// baton's `--max-generations`.
    #[arg(long, default_value_t = 32)]
    pub(crate) max_generations: u32,
    /// Instead of the workloads: hold so many idle keep-alive connections over one reload of baton
    /// and tell how long it takes until all of them have moved.
    #[arg(long, value_name = "CONNECTIONS")]
    pub(crate) idle: Option<usize>,
    /// Print every failure a client saw, not only the first twenty.
    #[arg(long)]
    pub(crate) verbose: bool,
}

//! Clients that know every byte they must receive, and a program that puts them on a proxy while it
//! is reloaded.
//!
//! The verdict never depends on what a proxy says about itself. The same workloads run against
//! baton, nginx, HAProxy and Envoy (`scripts/torture`), and in the end-to-end tests ([`load`]).
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program: a broken set-up must stop it, and its report is its output"
)]

mod counters;
pub mod files;
mod flip;
mod held;
mod http;
mod idle;
mod latency;
pub mod load;
mod moves;
mod options;
mod owners;
mod pattern;
mod proxy;
mod report;
mod run;
mod tally;
mod upstream;
mod workload;

pub use counters::Counters;
pub use flip::{Flipper, Flips};
pub use proxy::dynamic::{DynamicConfig, Part, Version};
pub use proxy::envoy_config::EnvoyConfig;
pub use tally::{Class, Workload};
pub use upstream::{Upstreams, start as start_upstreams};

use clap::Parser as _;
use std::process::ExitCode;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let options = options::Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A program may ask to be ended with the thread that started it (Envoy's launcher does),
        // so the thread that starts proxies must outlive them.
        .max_blocking_threads(1)
        .thread_keep_alive(std::time::Duration::from_hours(24))
        .build()
        .expect("a runtime for the clients");
    runtime.block_on(run::all(&options))
}

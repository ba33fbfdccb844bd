//! Puts a proxy under load, reloads it, and tells what its clients saw.
//!
//! The clients of this program know every byte they must receive, so the verdict never depends on
//! what a proxy says about itself. The same workloads run against baton, nginx, HAProxy and Envoy;
//! `scripts/torture` builds and starts it.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program: a broken set-up must stop it, and its report is its output"
)]

mod counters;
mod http;
mod options;
mod pattern;
mod proxy;
mod report;
mod run;
mod tally;
mod upstream;
mod workload;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
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

//! A load generator and a backend for `scripts/compare-speed`: one thread, one epoll, one read and
//! one write for each request, so that the proxy between them is what a measurement measures.
//!
//! Not a test of correctness: that is `tests/torture`, whose clients know every byte. Still every
//! answer is checked for its status and its length, and errors are counted, so that a proxy cannot
//! be fast by being wrong. Each command prints one line of JSON.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test program: a broken set-up must stop it, and its report is its output"
)]

mod backend;
mod bulk;
mod clock;
mod connection;
mod engine;
mod exchange;
mod head;
mod idle;
mod options;
mod outcome;
mod pattern;
mod poll;
mod relay;

use clap::Parser as _;
use options::{Command, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    let report = match Options::parse().command {
        Command::Backend(options) => return backend::run(&options),
        Command::Relay(options) => return relay::run(&options),
        Command::Http(options) => engine::run(&options.plan()),
        Command::Ws(options) => engine::run(&options.plan()),
        Command::TcpConnect(options) => engine::run(&options.plan()),
        Command::TcpBulk(options) => bulk::run(&options),
        Command::Idle(options) => idle::run(&options),
    };
    println!("{}", report.json());
    if report.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

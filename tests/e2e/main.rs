//! The program as its users meet it: real processes, real sockets, clients that count every byte.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_docs_in_private_items,
    unreachable_pub,
    reason = "tests: a broken set-up must stop them, and what they print explains a failure"
)]

mod access_log;
mod admin;
mod commands;
mod crash;
mod drain_listeners;
mod escrow;
mod files;
mod harness;
mod kept_resources;
mod launchers;
mod leaks;
mod ledger;
mod limits;
mod listeners;
mod log;
mod matrix;
mod migrate;
mod names;
mod owner;
mod queue;
mod reload;
mod signals;
mod skew;
mod statistics;
mod stuck;
mod supervisor_crash;
mod upgrade;

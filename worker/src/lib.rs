//! One generation of the proxy: it reads the configuration, receives listening sockets from the
//! supervisor, serves connections, and drains when a newer generation has taken over.

pub mod access_log;
pub mod activity;
pub mod admin;
pub mod buffer;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod deadline;
pub mod drain;
pub mod escrow;
pub mod extension;
pub mod file_watch;
pub mod filter;
pub mod format;
pub mod handoff;
pub mod http;
pub mod listener;
mod log_control;
pub mod migrate;
pub mod outbox;
pub mod progress;
pub mod route;
pub mod seldom;
pub mod server;
pub mod stats;
pub mod sys;
pub mod thread;
pub mod transport;
pub mod tunnel;
pub mod upstream;

pub use log_control::LogControl;
pub use server::{WorkerOptions, run};

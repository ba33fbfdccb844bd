//! The main thread of a worker: it talks to the supervisor, starts the threads, drains and ends.
//!
//! One `current_thread` runtime runs the handoff channel, DNS, the admin interface and the timers.
//! It never touches a downstream connection; those belong to the threads.
//!
//! ```text
//! HELLO → WELCOME, CONFIG → NEED_LISTENERS → LISTENERS → warm → READY          startup
//! READY ─TAKE→ serving ─PAUSE→ paused ─DRAIN→ draining ─→ DRAINED, exit 0       lifecycle
//!                  ↑───RESUME────┴──────────────┘     any ─STOP→ stopping → exit
//! ```
//! When the supervisor is gone the worker is an orphan: it keeps doing what it does, looks for a new
//! supervisor, and ends when it was draining and nothing is left.

mod active_listener;
mod admin;
mod adopt;
mod awaited;
mod books;
mod crew;
mod drain_listeners;
mod escrow;
mod export;
mod import;
mod inherit;
mod lifecycle;
mod limits;
mod orphan;
mod publish;
mod resources;
mod running;
mod service;
mod signals;
mod startup;
mod threads;
mod watch;

use std::sync::Arc;

use baton_contract::{channel::Channel, exit::Exit, generation::Generation};
use tokio::task::LocalSet;

use crate::log_control::LogControl;

/// What a worker is started with; everything else comes over the channel.
#[derive(Debug)]
pub struct WorkerOptions {
    /// Its number.
    pub generation: Generation,
    /// The inherited end of the handoff channel.
    pub channel: Channel,
    /// The program's log.
    pub log: Arc<dyn LogControl>,
}

/// Runs one generation until it has ended.
pub fn run(options: WorkerOptions) -> Exit {
    limits::raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime of the main thread");
            return Exit::Internal;
        }
    };
    let exit = LocalSet::new().block_on(&runtime, async {
        let signals = signals::Signals::install();
        match startup::start(options).await {
            Ok(running) => running.run(signals).await,
            Err(exit) => exit,
        }
    });
    // A name that is being resolved must not keep the process alive.
    runtime.shutdown_background();
    exit
}

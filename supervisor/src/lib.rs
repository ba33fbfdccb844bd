//! Owns the listening sockets and starts worker generations.
//!
//! One thread, one `poll(2)` loop. It knows no configuration, no HTTP, no names; it never waits for
//! a worker. What to do is decided by the pure core in [`state`]; the rest only carries it out.

mod clock;
mod config_file;
mod control_socket;
mod door;
mod escrow;
mod estate;
mod fd_store;
mod options;
mod perform;
mod preflight;
mod reexec;
mod run;
mod segment;
mod signals;
mod spawn;
pub mod state;
mod sys;
mod systemd;
mod upgrade;
mod worker;

pub use options::{SupervisorError, SupervisorOptions};
pub use run::run;
pub use upgrade::check_state;

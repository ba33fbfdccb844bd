//! Owns the listening sockets and starts worker generations.
//!
//! One thread, one `poll(2)` loop. It knows no configuration, no HTTP, no names; it never waits for
//! a worker. What to do is decided by the pure core in [`state`]; the rest only carries it out.

mod addresses;
mod base_id;
mod clock;
pub mod config_file;
mod control_socket;
mod door;
mod escrow;
mod estate;
mod fd_store;
mod options;
mod perform;
mod precheck;
mod preflight;
mod proof;
mod reexec;
mod resources;
mod run;
mod segment;
mod signals;
mod silence;
mod sockets;
mod spawn;
pub mod state;
mod sys;
mod systemd;
mod upgrade;
mod worker;

pub use options::{SupervisorError, SupervisorOptions};
pub use precheck::check;
pub use proof::Proof;
pub use run::run;
pub use signals::{hold as hold_signals, let_through as let_signals_through};
pub use spawn::TERMINAL_VARIABLE;
pub use upgrade::check_state;

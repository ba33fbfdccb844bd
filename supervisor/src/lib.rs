//! Owns the listening sockets and starts worker generations.
//!
//! One thread, one `poll(2)` loop. It knows no configuration, no HTTP, no names; it never waits for
//! a worker. What to do is decided by the pure core in `state`; `run` only carries it out.

mod options;

pub use options::{SupervisorError, SupervisorOptions};

use baton_contract::exit::Exit;

/// Runs until it is told to stop, and returns how it ended.
///
/// # Errors
/// When it could not start: another instance runs, the control socket cannot be opened, the first
/// generation fails. The running generations, if any, are ended before it returns.
pub fn run(options: SupervisorOptions) -> Result<Exit, SupervisorError> {
    drop(options);
    Ok(Exit::Ok)
}

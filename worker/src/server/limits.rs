//! How many descriptors the process may have, and how many connections that allows.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Share of the descriptors kept for upstream connections, files and the handoff: 1 in this many.
const RESERVE: u64 = 20;

/// Raises the soft limit of descriptors to the hard one. Nothing here uses `select`.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}

/// Downstream connections the process can have: what is left of its descriptors after a reserve.
pub(super) fn max_connections() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(soft.saturating_sub(soft / RESERVE))
}

//! How many descriptors the process may have, and how many connections that allows.
//!
//! What is needed to be operated comes first: the admin interface, the handoff, logs. A part is for pipes,
//! without which tunnels copy and do not outlive a crash. The rest is for connections, each with one to its
//! endpoint.

use baton_contract::message::{CrashEscrow, WorkerSettings};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    config::model::Bootstrap,
    escrow,
    stats::{ThreadStats, descriptors},
    tunnel::{self, splice},
};

/// Descriptors for DNS, log files that are opened again, and messages of the handoff.
const RESERVE: u64 = 32;
/// Descriptors of a worker thread.
const PER_THREAD: u64 = 5;
/// Sockets of a connection: the client's, and the one to its endpoint.
const SOCKETS: u64 = 2;
/// Largest share of the limit that pipes may take: 1 in this many.
const PIPES: u64 = 4;
/// Share of the limit for admin connections: 1 in this many.
const ADMIN: u64 = 16;
/// Admin connections at the same time, least and most. More than a few scrapers and people is a mistake
/// somewhere, and must not take descriptors from the traffic.
const ADMIN_CONNECTIONS: (u64, u64) = (8, 100);
/// Share of the limit for copies that are on their way into escrow: 1 in this many.
const COPIES: u64 = 32;
/// Descriptors for such copies, least and most.
const COPIES_BOUNDS: (u64, u64) = (2 * tunnel::DESCRIPTORS as u64, 6144);
/// Fewer connections than this are warned of in any case.
const FEW: u64 = 32;
/// Assumed when the system does not say it.
const DEFAULT_LIMIT: u64 = 1024;

/// What does not depend on the limit.
#[derive(Clone, Copy, Debug)]
struct Needs {
    /// Open before any thread runs.
    open: u64,
    /// Listening sockets.
    polled: u64,
    threads: u64,
    /// Tunnels that may be in escrow.
    tunnels_in_escrow: u64,
}

/// What the limit of descriptors allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    needs: Needs,
    /// The limit, descriptors.
    limit: u64,
}

impl Room {
    /// Of this process, whose threads do not run yet and which is going to poll so many listening sockets.
    pub(super) fn of_this_process(polled: usize, settings: &WorkerSettings) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(DEFAULT_LIMIT, |(soft, _)| soft);
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        let tunnels_in_escrow = match settings.crash_escrow {
            CrashEscrow::Off => 0,
            CrashEscrow::Tunnels | CrashEscrow::Idle => settings.escrow_limit.into(),
        };
        let (polled, threads) = (polled as u64, settings.concurrency.max(1).into());
        Self { needs: Needs { open, polled, threads, tunnels_in_escrow }, limit }
    }

    /// Admin connections at the same time.
    pub(super) fn admin_connections(self) -> u64 {
        let (least, most) = ADMIN_CONNECTIONS;
        (self.limit / ADMIN).clamp(least, most)
    }

    /// Copies of descriptors that may be on their way into escrow.
    fn copies(self) -> u64 {
        let (least, most) = COPIES_BOUNDS;
        let copies = (self.limit / COPIES).clamp(least, most);
        if self.needs.tunnels_in_escrow == 0 { 0 } else { copies }
    }

    /// Descriptors of pipes: as many as there is use for, as far as they fit.
    fn pipe_ends(self) -> u64 {
        let pooled = self.needs.threads.saturating_mul(2 * splice::MOST_OPEN as u64);
        let kept = self.needs.tunnels_in_escrow.saturating_mul(4);
        pooled.saturating_add(kept).min(self.limit / PIPES)
    }

    /// Without these the process cannot even poll, descriptors.
    fn least(self) -> u64 {
        self.needs.open + self.needs.polled + self.needs.threads * PER_THREAD
    }

    /// What is not for connections, descriptors.
    fn others(self) -> u64 {
        // Beside the copy that is polled there is a spare one (`listener::acceptor`).
        let base = self.least() + self.needs.polled + RESERVE;
        base + self.admin_connections() + self.copies() + self.pipe_ends()
    }

    /// Downstream connections the process can serve at a time. There is always one.
    pub(super) fn connections(self) -> u64 {
        (self.limit.saturating_sub(self.others()) / SOCKETS).max(1)
    }

    /// The least limit that allows so many connections.
    fn limit_for(self, connections: u64) -> u64 {
        let allows = |limit: u64| Self { limit, ..self }.connections() >= connections;
        let (mut below, mut enough) = (0, connections.saturating_mul(8).saturating_add(1 << 20));
        while enough - below > 1 {
            let middle = below + (enough - below) / 2;
            if allows(middle) { enough = middle } else { below = middle }
        }
        enough
    }

    /// Whether the process can run at all.
    ///
    /// # Errors
    /// What is wrong with the limit.
    pub(super) fn check(self) -> Result<(), String> {
        let (limit, least) = (self.limit, self.least() + SOCKETS);
        if least <= limit {
            return Ok(());
        }
        let enough = self.limit_for(FEW);
        Err(format!(
            "the limit of open files, {limit}, is too low: this configuration needs {least} without any \
             traffic; raise it to {enough} at least (`ulimit -n`, `LimitNOFILE=`)"
        ))
    }

    /// Keeps to it, and says it.
    pub(super) fn apply(self, stats: &ThreadStats) {
        let (limit, connections) = (self.limit, self.connections());
        splice::limit_pipes(usize::try_from(self.pipe_ends() / 2).unwrap_or(usize::MAX));
        escrow::limit_copies(usize::try_from(self.copies()).unwrap_or(usize::MAX));
        descriptors::set_limits(stats, limit, connections);
        tracing::info!(limit, connections, "open files");
    }

    /// What to warn of when the configuration allows more connections.
    pub(super) fn warning(self, bootstrap: &Bootstrap) -> Option<String> {
        let (limit, connections) = (self.limit, self.connections());
        let (what, wanted) = match wanted(bootstrap) {
            Some((what, wanted)) => (format!("{what}, {wanted}"), wanted),
            None => ("a proxy".to_owned(), FEW),
        };
        if wanted <= connections {
            return None;
        }
        let enough = self.limit_for(wanted);
        Some(format!(
            "the limit of open files, {limit}, is low for {what}: connections that fit: {connections}; \
             raise it to {enough} (`ulimit -n`, `LimitNOFILE=`)"
        ))
    }
}

/// The connections that the configuration allows, and what says so. Listeners without a limit say
/// nothing.
fn wanted(bootstrap: &Bootstrap) -> Option<(&'static str, u64)> {
    let limits = bootstrap.listeners.iter().filter_map(|listener| listener.socket.max_connections);
    let of_listeners = limits.fold(0_u64, u64::saturating_add);
    match bootstrap.max_connections {
        Some(global) => Some(("`overload.global_downstream_max_connections`", global)),
        None if of_listeners > 0 => Some(("the `connection_limit` of the listeners", of_listeners)),
        None => None,
    }
}

/// Raises the soft limit of descriptors to the hard one. Nothing here uses `select`.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(limit: u64, threads: u64, tunnels_in_escrow: u64) -> Room {
        Room { needs: Needs { open: 30, polled: 5, threads, tunnels_in_escrow }, limit }
    }

    #[test]
    fn all_that_is_let_in_fits_into_the_limit() {
        for limit in [64, 256, 1024, 20_000, 1 << 20] {
            for tunnels in [0, limit / 8] {
                let room = room(limit, 2, tunnels);
                let needed = room.connections() * SOCKETS + room.others();
                assert!(needed <= limit || room.connections() == 1, "{limit}");
            }
        }
        assert!(room(256, 2, 32).connections() >= 32);
        // A tunnel needs two sockets; pipes are shared or missing when there are more of them.
        assert!(room(20_000, 2, 2500).connections() >= 5000);
    }

    #[test]
    fn a_limit_below_what_polling_needs_is_refused() {
        assert!(room(46, 2, 0).check().unwrap_err().contains("needs 47 without any traffic"));
        assert_eq!(room(47, 2, 0).check(), Ok(()));
    }

    #[test]
    fn the_limit_that_is_recommended_is_the_least_that_is_enough() {
        for connections in [2, 100, 5_000, 77_777, 1_000_000] {
            let limit = room(0, 2, 2500).limit_for(connections);
            assert!(room(limit, 2, 2500).connections() >= connections, "{connections}");
            assert!(room(limit - 1, 2, 2500).connections() < connections, "{connections}");
        }
    }
}

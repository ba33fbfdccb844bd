//! The supervisor's own numbers in the shared-memory segment.

use baton_contract::shm::{Cell, MetricName, SegmentOwner};

/// Reloads and respawns, as counters anybody who reads the segment can see.
#[derive(Debug)]
pub(crate) struct Counters {
    reloads: Cell,
    failed_reloads: Cell,
    respawns: Cell,
    generations: Cell,
    escrow: Cell,
}

impl Counters {
    pub(crate) fn new(segment: &mut SegmentOwner) -> Self {
        let mut counter = |name: &str| segment.counter(&MetricName::plain(name));
        let reloads = counter("supervisor.reload_success");
        let failed_reloads = counter("supervisor.reload_failure");
        let respawns = counter("supervisor.worker_respawn");
        let generations = segment.gauge(&MetricName::plain("supervisor.generations"));
        let escrow = segment.gauge(&MetricName::plain("supervisor.connections_in_escrow"));
        Self { reloads, failed_reloads, respawns, generations, escrow }
    }

    /// Shows how many connections can outlive their worker.
    pub(crate) fn in_escrow(&self, connections: usize) {
        self.escrow.set(u64::try_from(connections).unwrap_or(u64::MAX));
    }

    /// Reloads that ended well and badly, and respawns, as they are shown.
    pub(crate) fn shown(&self) -> (u64, u64, u64) {
        (self.reloads.get(), self.failed_reloads.get(), self.respawns.get())
    }

    /// Shows the numbers of the core.
    pub(crate) fn show(&self, (reloads, failed, respawns): (u64, u64, u64), living: usize) {
        self.reloads.set(reloads);
        self.failed_reloads.set(failed);
        self.respawns.set(respawns);
        self.generations.set(u64::try_from(living).unwrap_or(u64::MAX));
    }
}

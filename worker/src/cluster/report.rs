//! Turns what the DNS refresh did into `cluster.<name>.membership_*` and `update_*`. Belongs to
//! the main thread, which calls [`Reporter::report`] about once a second.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::manager::{ClusterManager, ClusterState};
use crate::stats::{Counter, MembershipStats, ThreadStats};

/// The statistics that the main thread keeps of all clusters.
#[derive(Debug)]
pub struct Reporter {
    stats: ThreadStats,
    /// Without statistics as long as no thread uses the cluster.
    clusters: Vec<(Arc<ClusterState>, Option<MembershipStats>)>,
}

impl Reporter {
    /// Statistics of these clusters in the slab of the calling thread.
    pub fn new(manager: &ClusterManager, stats: &ThreadStats) -> Self {
        let clusters = manager.clusters().iter().map(|state| {
            let has_stats = state.is_counted();
            let made = has_stats.then(|| MembershipStats::new(stats, &state.config.stat_name));
            (Arc::clone(state), made)
        });
        Self { stats: stats.clone(), clusters: clusters.collect() }
    }

    /// Adds what happened since the last call.
    pub fn report(&mut self) {
        for (state, stats) in self.clusters.iter_mut().filter(|(state, _)| state.is_counted()) {
            let stats = stats
                .get_or_insert_with(|| MembershipStats::new(&self.stats, &state.config.stat_name));
            let updates = &state.updates;
            move_to(&stats.update_attempt, &updates.attempt);
            move_to(&stats.update_success, &updates.success);
            move_to(&stats.update_failure, &updates.failure);
            move_to(&stats.update_empty, &updates.empty);
            move_to(&stats.update_no_rebuild, &updates.no_rebuild);
            move_to(&stats.membership_change, &updates.membership_change);
            let members = state.endpoints.load().endpoints.len() as u64;
            stats.membership_total.set(members);
            stats.membership_healthy.set(members);
        }
    }
}

/// Adds what was counted and starts counting at zero again.
fn move_to(counter: &Counter, counted: &AtomicU64) {
    // Most of the time there is nothing, and looking costs less than swapping.
    if counted.load(Relaxed) > 0 {
        counter.add(counted.swap(0, Relaxed));
    }
}

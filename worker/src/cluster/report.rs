//! Turns what the DNS refresh did into `cluster.<name>.membership_*` and `update_*`. Belongs to
//! the main thread, which calls [`Reporter::report`] about once a second.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::manager::ClusterManager;
use crate::stats::{Counter, MembershipStats, ThreadStats};

/// The statistics that the main thread keeps of all clusters.
#[derive(Debug)]
pub struct Reporter {
    stats: ThreadStats,
    manager: Arc<ClusterManager>,
    /// Those that are used, by name.
    clusters: HashMap<String, MembershipStats>,
}

impl Reporter {
    /// Statistics of these clusters in the slab of the calling thread.
    pub fn new(manager: &Arc<ClusterManager>, stats: &ThreadStats) -> Self {
        let (stats, manager) = (stats.clone(), Arc::clone(manager));
        Self { stats, manager, clusters: HashMap::new() }
    }

    /// Adds what happened since the last call.
    pub fn report(&mut self) {
        let table = self.manager.table();
        for state in table.iter().filter(|state| state.is_counted()) {
            let name = &state.config.stat_name;
            if !self.clusters.contains_key(name) {
                self.clusters.insert(name.clone(), MembershipStats::new(&self.stats, name));
            }
            let Some(stats) = self.clusters.get(name) else { continue };
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
        if self.clusters.len() > table.len() {
            self.clusters.retain(|name, stats| {
                let is_there = table.iter().any(|state| state.config.stat_name == *name);
                if !is_there {
                    stats.membership_total.set(0);
                    stats.membership_healthy.set(0);
                }
                is_there
            });
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

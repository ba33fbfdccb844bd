//! `baton.descriptors.*`: what the limit of open files allows, and what it prevented.

use super::{Counter, MetricName, ThreadStats};

/// The numbers of one thread.
#[derive(Clone, Debug)]
pub struct DescriptorStats {
    /// Connections of clients that were closed at once, because there were no descriptors for them.
    pub refused: Counter,
    /// Connections to endpoints that were not begun, because there was no descriptor, port or memory.
    pub connect_failed: Counter,
}

impl DescriptorStats {
    /// The statistics in this thread's slab.
    pub fn new(stats: &ThreadStats) -> Self {
        Self {
            refused: stats.counter(&name("refused")),
            connect_failed: stats.counter(&name("connect_failed")),
        }
    }
}

/// Says the limit of the process, and how many connections of clients that allows.
pub fn set_limits(stats: &ThreadStats, limit: u64, connections: u64) {
    stats.local_gauge(&name("limit")).set(limit);
    stats.local_gauge(&name("connections_max")).set(connections);
}

fn name(name: &str) -> MetricName {
    MetricName::tagged(
        format!("baton.descriptors.{name}"),
        format!("baton.descriptors_{name}"),
        &[],
    )
}

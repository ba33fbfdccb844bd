//! `baton.escrow.*`: connections that were put into escrow, and those that could not be.

use super::{Counter, MetricName, ThreadStats};

/// The numbers of one thread.
#[derive(Clone, Debug)]
pub struct EscrowStats {
    /// Connections put into escrow.
    pub deposited: Counter,
    /// Connections that were not, because there were as many as there may be.
    pub full: Counter,
    /// Connections that were not, because there were no descriptors or no pipes left.
    pub failed: Counter,
}

impl EscrowStats {
    /// The statistics in this thread's slab.
    pub fn new(stats: &ThreadStats) -> Self {
        let counter = |name: &str| {
            let (name, family) = (format!("baton.escrow.{name}"), format!("baton.escrow_{name}"));
            stats.counter(&MetricName::tagged(name, family, &[]))
        };
        Self { deposited: counter("deposited"), full: counter("full"), failed: counter("failed") }
    }
}

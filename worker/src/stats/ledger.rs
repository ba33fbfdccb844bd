//! The loss ledger of one thread: every downstream connection is opened once and ends once, with
//! a reason. opened = open + Σ reasons, always.

pub use baton_contract::shm::{ConnectionKind, EndReason};

use super::{Counter, Gauge, MetricName, ThreadStats};

/// The ledger of one thread.
#[derive(Clone, Debug)]
pub struct Ledger {
    opened: Counter,
    ended: [Counter; 7],
    open: [Gauge; 3],
    stuck: Counter,
}

impl Ledger {
    /// The ledger in this thread's slab.
    pub fn new(stats: &ThreadStats) -> Self {
        Self {
            opened: stats.counter(&baton_contract::shm::opened_metric()),
            ended: EndReason::ALL.map(|reason| stats.counter(&reason.metric())),
            open: ConnectionKind::ALL.map(|kind| stats.gauge(&kind.metric())),
            stuck: stats.counter(&stuck_metric()),
        }
    }

    /// A connection was accepted.
    #[inline]
    pub fn opened(&self) {
        self.opened.inc();
    }

    /// A connection ended.
    #[inline]
    pub fn closed(&self, reason: EndReason) {
        if let Some(counter) = self.ended.get(reason as usize) {
            counter.inc();
        }
    }

    /// A connection did not get further and is cut; how it ended is for [`Self::closed`].
    pub fn stuck(&self) {
        self.stuck.inc();
    }

    /// Connections that did not get further.
    pub fn stuck_connections(&self) -> u64 {
        self.stuck.value()
    }

    /// The gauge of open connections of a kind: `inc` when a connection becomes one, `dec` when it
    /// stops being one.
    pub fn open(&self, kind: ConnectionKind) -> &Gauge {
        match kind {
            ConnectionKind::Http1 => &self.open[0],
            ConnectionKind::Upgraded => &self.open[1],
            ConnectionKind::Tcp => &self.open[2],
        }
    }

    /// Connections opened, and ended by reason in the order of [`EndReason::ALL`].
    pub fn totals(&self) -> (u64, [u64; 7]) {
        (self.opened.value(), self.ended.each_ref().map(Counter::value))
    }

    /// Connections opened and not ended on this thread.
    pub fn open_now(&self) -> u64 {
        let ended = self.ended.iter().map(Counter::value).sum();
        self.opened.value().saturating_sub(ended)
    }
}

/// Name of the counter of connections that were cut because they did not get further.
fn stuck_metric() -> MetricName {
    MetricName::tagged("baton.connections.stuck", "baton.connections_stuck", &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance() {
        let ledger = Ledger::new(&ThreadStats::detached());
        for reason in EndReason::ALL {
            ledger.opened();
            ledger.opened();
            ledger.closed(reason);
        }
        assert_eq!(ledger.open_now(), 7);
    }
}

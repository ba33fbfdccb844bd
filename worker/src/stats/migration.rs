//! `baton.migration.*`: what became of connections when their generation gave them away.

use baton_contract::{peer::Stay, shm::ConnectionKind};

use super::{Counter, Histogram, MetricName, ThreadStats};

/// The numbers of one thread.
#[derive(Clone, Debug)]
pub struct MigrationStats {
    /// By [`ConnectionKind`], idle upstream connections last.
    moved: [Counter; ConnectionKind::ALL.len() + 1],
    /// Connections taken over from another generation.
    pub imported: Counter,
    /// Offers that were refused or not answered in time; the connection went on where it was.
    pub thawed: Counter,
    /// By [`Stay`].
    stayed: [Counter; Stay::ALL.len()],
    /// How long connections were frozen, µs.
    pub freeze_us: Histogram,
}

impl MigrationStats {
    /// The statistics in this thread's slab.
    pub fn new(stats: &ThreadStats) -> Self {
        let counter = |name: &MetricName| stats.counter(name);
        let [http1, upgraded, tcp] = ConnectionKind::ALL.map(|kind| counter(&kind.moved_metric()));
        let plain =
            |name: &str| MetricName::tagged(format!("baton.migration.{name}"), family(name), &[]);
        Self {
            moved: [http1, upgraded, tcp, counter(&pooled_metric())],
            imported: counter(&plain("imported")),
            thawed: counter(&plain("thawed")),
            stayed: Stay::ALL.map(|why| counter(&stayed_metric(why))),
            freeze_us: stats.histogram(&plain("freeze_us")),
        }
    }

    /// Connections of a kind that were given away; `None` = idle upstream connections.
    pub fn moved(&self, kind: Option<ConnectionKind>) -> &Counter {
        match kind {
            Some(ConnectionKind::Http1) => &self.moved[0],
            Some(ConnectionKind::Upgraded) => &self.moved[1],
            Some(ConnectionKind::Tcp) => &self.moved[2],
            None => &self.moved[3],
        }
    }

    /// Connections that ended while others moved and had not moved for this reason.
    pub fn stayed(&self, why: Stay) -> &Counter {
        match why {
            Stay::NoListener => &self.stayed[0],
            Stay::Version => &self.stayed[1],
            Stay::Malformed => &self.stayed[2],
            Stay::Overload => &self.stayed[3],
            Stay::Config => &self.stayed[4],
            Stay::Timeout => &self.stayed[5],
            Stay::Busy => &self.stayed[6],
            Stay::NoPeer => &self.stayed[7],
        }
    }

    /// Moved by kind, idle upstream connections last, and stayed by reason.
    pub fn totals(&self) -> ([u64; 4], [u64; Stay::ALL.len()]) {
        (self.moved.each_ref().map(Counter::value), self.stayed.each_ref().map(Counter::value))
    }
}

fn family(name: &str) -> String {
    format!("baton.migration_{name}")
}

/// Of what moves besides downstream connections.
fn pooled_metric() -> MetricName {
    let kind = ("kind", "pooled");
    MetricName::tagged("baton.migration.moved.pooled", family("moved"), &[kind])
}

fn stayed_metric(why: Stay) -> MetricName {
    let reason = why.as_str();
    let name = format!("baton.migration.stayed.{reason}");
    MetricName::tagged(name, family("stayed"), &[("reason", reason)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let stats = MigrationStats::new(&ThreadStats::detached());
        for why in Stay::ALL {
            stats.stayed(why).inc();
        }
        assert_eq!(stats.totals().1, [1; Stay::ALL.len()]);
    }
}

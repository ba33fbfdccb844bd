//! `baton.log.lost`: lines that did not get into a log.

use super::{Counter, MetricName, ThreadStats};

/// The numbers of a generation, kept by its main thread.
#[derive(Clone, Debug)]
pub struct LogStats {
    access: Counter,
    program: Counter,
}

impl LogStats {
    /// The statistics in this thread's slab.
    pub fn new(stats: &ThreadStats) -> Self {
        Self { access: stats.counter(&name("access")), program: stats.counter(&name("program")) }
    }

    /// So many lines of access logs and of the program's log were lost since the process began.
    pub fn lost(&self, before: &mut [u64; 2], now: [u64; 2]) {
        let counters = [&self.access, &self.program];
        for ((counter, before), now) in counters.into_iter().zip(before.iter_mut()).zip(now) {
            counter.add(now.saturating_sub(*before));
            *before = now;
        }
    }
}

fn name(log: &str) -> MetricName {
    MetricName::tagged(
        format!("baton.log.lost.{log}"),
        "baton.log_lost".to_owned(),
        &[("log", log)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_once() {
        let stats = LogStats::new(&ThreadStats::detached());
        let mut before = [0, 0];
        stats.lost(&mut before, [2, 1]);
        stats.lost(&mut before, [2, 4]);
        assert_eq!(before, [2, 4]);
    }
}

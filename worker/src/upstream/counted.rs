//! An upstream connection in the books of its cluster: open from the moment it is begun, and ended once,
//! by somebody, with or without a request on it.

use std::{rc::Rc, time::Instant};

use crate::{clock, stats::ClusterStats};

/// Counts a connection as open with its cluster until it is dropped, and then as ended.
#[derive(Debug)]
pub struct Counted {
    stats: Rc<ClusterStats>,
    begun: Instant,
    /// The endpoint ended it, not we.
    by_endpoint: bool,
    /// A request is on it.
    serving: bool,
    /// Its end is nothing to count: it goes on in another process, or is not taken over from one yet.
    elsewhere: bool,
}

impl Counted {
    /// A connection for HTTP/1 that is begun now.
    pub fn begin_http1(stats: &Rc<ClusterStats>, now: Instant) -> Self {
        stats.upstream_cx_http1_total.inc();
        Self::begin(stats, now)
    }

    /// A connection that is begun now.
    pub fn begin(stats: &Rc<ClusterStats>, now: Instant) -> Self {
        stats.upstream_cx_total.inc();
        let mut counted = Self::resume(stats, now);
        counted.arrive();
        counted
    }

    /// A connection that was begun elsewhere, at this time. Its end counts from [`Self::arrive`] on.
    pub fn resume(stats: &Rc<ClusterStats>, begun: Instant) -> Self {
        stats.upstream_cx_active.inc();
        let stats = Rc::clone(stats);
        Self { stats, begun, by_endpoint: false, serving: false, elsewhere: true }
    }

    /// It is here for good.
    pub fn arrive(&mut self) {
        self.elsewhere = false;
    }

    /// When it was begun.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// It was made at this time.
    pub fn connected(&self, now: Instant) {
        self.stats.upstream_cx_connect_ms.record(millis(now, self.begun));
    }

    /// Whether a request is on it from now on.
    pub fn set_serving(&mut self, serving: bool) {
        self.serving = serving;
    }

    /// The endpoint ended it.
    pub fn ended_by_endpoint(&mut self) {
        self.by_endpoint = true;
    }

    /// It is closed because it was idle for as long as it may be.
    pub fn idle_for_too_long(&self) {
        self.stats.upstream_cx_idle_timeout.inc();
    }

    /// It goes on in another process: it is not open here any more, and has not ended.
    pub fn leave(&mut self) {
        self.elsewhere = true;
    }

    /// It belongs to another cluster from now on.
    #[must_use]
    pub fn under(mut self, stats: &Rc<ClusterStats>) -> Self {
        self.leave();
        let mut counted = Self::resume(stats, self.begun);
        counted.arrive();
        counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = &self.stats;
        stats.upstream_cx_active.dec();
        if self.elsewhere {
            return;
        }
        stats.upstream_cx_destroy.inc();
        stats.upstream_cx_length_ms.record(millis(clock::now(), self.begun));
        let (by, with_request) = if self.by_endpoint {
            (&stats.upstream_cx_destroy_remote, &stats.upstream_cx_destroy_remote_with_active_rq)
        } else {
            (&stats.upstream_cx_destroy_local, &stats.upstream_cx_destroy_local_with_active_rq)
        };
        by.inc();
        if self.serving {
            stats.upstream_cx_destroy_with_active_rq.inc();
            with_request.inc();
        }
    }
}

fn millis(now: Instant, since: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ThreadStats;

    #[test]
    fn a_connection_ends_once_by_somebody_and_one_that_moves_does_not_end() {
        let stats = Rc::new(ClusterStats::new(&ThreadStats::detached(), "c"));
        let ended = || {
            let of = [
                &stats.upstream_cx_destroy,
                &stats.upstream_cx_destroy_local,
                &stats.upstream_cx_destroy_remote,
                &stats.upstream_cx_destroy_with_active_rq,
                &stats.upstream_cx_destroy_local_with_active_rq,
                &stats.upstream_cx_destroy_remote_with_active_rq,
            ];
            of.map(crate::stats::Counter::value)
        };
        let now = clock::now();
        drop(Counted::begin_http1(&stats, now));
        assert_eq!(ended(), [1, 1, 0, 0, 0, 0]);
        let mut busy = Counted::begin(&stats, now);
        busy.set_serving(true);
        drop(busy);
        assert_eq!(ended(), [2, 2, 0, 1, 1, 0]);
        drop(Counted::resume(&stats, now));
        assert_eq!(ended()[0], 2, "it was not taken over");
        let mut busy = Counted::resume(&stats, now);
        busy.arrive();
        busy.set_serving(true);
        busy.ended_by_endpoint();
        drop(busy);
        assert_eq!(ended(), [3, 2, 1, 2, 1, 1]);
        let mut moved = Counted::begin(&stats, now);
        assert_eq!(stats.upstream_cx_active.value(), 1);
        moved.leave();
        drop(moved);
        assert_eq!(ended(), [3, 2, 1, 2, 1, 1]);
        assert_eq!((stats.upstream_cx_active.value(), stats.upstream_cx_total.value()), (0, 3));
        assert_eq!(stats.upstream_cx_length_ms.count(), 3);
    }
}

//! One try to get an answer to a request from an endpoint.
//!
//! ```text
//! link:  None ── endpoint chosen ──→ Opening ──→ Active ── answered, or given up ──→ None
//!                       └── a kept connection ────↑
//! ```
//! The head is written when there is a connection, as only then it is sure who gets it. The body may wait
//! before.

use std::{sync::Arc, sync::atomic::Ordering, time::Instant};

use super::bulk::Bulk;
use crate::{
    buffer::{BufferPool, Inbound, Outbound},
    cluster::{Endpoint, endpoint::ActiveRequest},
    thread::ThreadCluster,
    upstream::{
        connect::Connecting,
        counted::Counted,
        pool::{ActiveGauge, PooledConnection},
    },
};

/// A try, and what waits on either side of it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) link: Link,
    /// The endpoint that is being connected to.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// Waits to be written, also while there is no connection yet.
    pub(super) out: Outbound,
    /// Of the request's body what waits behind `out`, when it goes through a pipe.
    pub(super) bulk: Bulk,
    /// Read and not yet used.
    pub(super) inbound: Inbound,
    /// Interim responses so far.
    pub(super) interim: u32,
    /// Counts as a request of its endpoint until dropped.
    pub(super) active_request: Option<ActiveRequest>,
}

/// The way to the endpoint.
#[derive(Debug)]
pub(super) enum Link {
    /// Not there yet, or over.
    None,
    /// `connect` is under way until the deadline.
    Opening(Box<Opening>, Instant),
    /// There is a connection.
    Active(Active),
}

/// A connection that is being made, while the request waits for it.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) connecting: Connecting,
    pub(super) counted: Counted,
    /// Counts as a request that waits until dropped.
    #[expect(dead_code, reason = "it counts by being there")]
    pub(super) pending: ActiveGauge,
}

/// A connection that carries the request.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) connection: PooledConnection,
    /// It came from the pool, so it may have been closed before it got the request.
    pub(super) reused: bool,
    /// At least one byte was written.
    pub(super) wrote: bool,
    /// Bytes in the queue that came back after they were posted, and are counted as sent already.
    /// The connection's task writes them itself and waits for room.
    pub(super) returned: usize,
    /// Writing failed; the response may still be readable.
    pub(super) write_failed: bool,
    /// The upstream may serve another request on it.
    pub(super) keep_alive: bool,
}

impl Attempt {
    /// Nothing was done yet.
    pub(super) fn new(pool: &BufferPool) -> Self {
        Self {
            link: Link::None,
            endpoint: None,
            out: Outbound::new(pool),
            bulk: Bulk::default(),
            inbound: Inbound::new(pool),
            interim: 0,
            active_request: None,
        }
    }

    /// At least one byte was written to the endpoint.
    pub(super) fn wrote(&self) -> bool {
        matches!(&self.link, Link::Active(active) if active.wrote)
    }

    /// Nothing waits to be written.
    pub(super) fn is_written(&self) -> bool {
        self.out.is_empty() && self.bulk.waiting() == 0
    }

    /// Forgets what waits to be written.
    pub(super) fn clear_request(&mut self) {
        self.out.clear();
        self.bulk = Bulk::default();
    }

    /// A connection carries it from now on.
    pub(super) fn carry(&mut self, mut connection: PooledConnection, reused: bool) {
        connection.requests += 1;
        connection.counted.set_serving(true);
        self.active_request = Some(connection.endpoint.endpoint().begin_request());
        self.link = Link::Active(Active {
            connection,
            reused,
            wrote: false,
            returned: 0,
            write_failed: false,
            keep_alive: false,
        });
    }

    /// Puts the head before what waits of the body.
    pub(super) fn put_head(&mut self, head: &[u8]) {
        if self.out.is_empty() {
            self.out.extend(head);
            return;
        }
        let waiting = self.out.take();
        self.out.extend(head);
        let head = std::mem::replace(&mut self.out, waiting);
        self.out.put_first(head);
    }

    /// Takes the head away from what waits: it names an endpoint that did not get it. The body that waits
    /// behind it stays.
    pub(super) fn take_head(&mut self) {
        let waiting = self.out.take_all();
        // It was written here, so its first empty line is its end.
        let end = memchr::memmem::find(&waiting, b"\r\n\r\n").map_or(waiting.len(), |at| at + 4);
        self.out.extend(waiting.get(end..).unwrap_or_default());
    }

    /// The answer came whole: the connection, if it can carry another request. `early` when the request did
    /// not go whole before.
    pub(super) fn finish(
        &mut self,
        cluster: &ThreadCluster,
        early: bool,
    ) -> Option<PooledConnection> {
        let Link::Active(mut active) = std::mem::replace(&mut self.link, Link::None) else {
            return None;
        };
        active.connection.counted.set_serving(early);
        let stats = &cluster.stats;
        let max = cluster.state.config.max_requests_per_connection;
        let worn = max.is_some_and(|max| active.connection.requests >= max);
        if !active.keep_alive {
            stats.upstream_cx_close_notify.inc();
        } else if worn {
            stats.upstream_cx_max_requests.inc();
        }
        if !self.inbound.is_empty() {
            stats.upstream_cx_protocol_error.inc();
        }
        let clean = self.inbound.is_empty() && !active.write_failed;
        (active.keep_alive && clean && !early && !worn).then_some(active.connection)
    }

    /// The endpoint answered with this status.
    pub(super) fn count_response(&self, status: u16) {
        if let Some(active) = &self.active_request {
            let stats = &active.endpoint().stats;
            let of_class = if status < 500 { &stats.rq_success } else { &stats.rq_error };
            of_class.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The endpoint did not answer.
    pub(super) fn count_error(&self) {
        if let Some(active) = &self.active_request {
            active.endpoint().stats.rq_error.fetch_add(1, Ordering::Relaxed);
        }
    }
}

//! The client's side of a connection: its socket, what came and what is to leave, and how it will end.
//!
//! An exchange gets it lent for as long as it does something. Nothing here knows of the exchange.

use std::{
    ops::ControlFlow,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use super::{Hcm, bulk::Bulk, connection::Flow, idle::Idle, migrate::Belongs};
use crate::{
    buffer::{BUFFER_BYTES, Inbound, Outbound},
    filter::network::life,
    http::stream_info::ConnectionInfo,
    outbox::Ticket,
    stats::EndReason,
    upstream::Stream,
};

/// Bytes that may wait to be written on either side before reading on the other side stops, at
/// most; the configuration may say less. Four reads' worth keeps both sockets busy.
const HIGH_WATERMARK: usize = 256 * 1024;

/// The watermark for a configured limit; 0 is no limit, as in Envoy.
pub(super) fn high_watermark(limit_bytes: usize) -> usize {
    if limit_bytes == 0 { HIGH_WATERMARK } else { limit_bytes.min(HIGH_WATERMARK) }
}

/// The client's side of a connection.
#[derive(Debug)]
pub(super) struct Downstream {
    pub(super) hcm: Rc<Hcm>,
    pub(super) info: Rc<ConnectionInfo>,
    pub(super) socket: Stream,
    pub(super) inbound: Inbound,
    pub(super) out: Outbound,
    /// Of the response's body what waits behind `out`, when it goes through a pipe.
    pub(super) bulk: Bulk,
    /// When something was posted last, on either side.
    pub(super) posted: Ticket,
    /// Bytes in `out` that came back after they were posted, and are counted as sent already.
    pub(super) returned: usize,
    /// The clock at the start of this turn.
    pub(super) now: Instant,
    pub(super) opened: Instant,
    /// The client sent its end.
    pub(super) read_closed: bool,
    /// No further request is served; why.
    pub(super) closing: Option<EndReason>,
    /// The response was cut.
    pub(super) cut_short: bool,
    /// And only a reset tells the client so, once it has what came.
    pub(super) ends_with_reset: bool,
    /// Bytes of the client that nobody looked at.
    pub(super) discarded: u64,
    /// The newest configuration has no place for the connection any more, since then.
    pub(super) dismissed: Option<Instant>,
    /// The response to an upgrade is on its way; after it the connection is a tunnel.
    pub(super) upgrading: bool,
    /// The listener's `per_connection_buffer_limit_bytes`, bytes.
    pub(super) buffer_limit_bytes: usize,
    /// Bytes that may wait for the client before reading from the upstream stops.
    pub(super) high_watermark: usize,
    /// Requests so far.
    pub(super) requests: u32,
    pub(super) active: ActiveConnection,
    pub(super) belongs: Belongs,
    pub(super) idle: Idle,
}

impl Downstream {
    /// Nothing came, and nothing waits to leave.
    pub(super) fn new(
        hcm: Rc<Hcm>,
        info: ConnectionInfo,
        socket: Stream,
        active: ActiveConnection,
        belongs: Belongs,
    ) -> Self {
        Self {
            info: Rc::new(info),
            socket,
            inbound: Inbound::new(&hcm.thread.buffers),
            out: Outbound::new(&hcm.thread.buffers),
            bulk: Bulk::default(),
            posted: Ticket::default(),
            returned: 0,
            now: crate::clock::now(),
            opened: active.opened,
            read_closed: false,
            closing: None,
            cut_short: false,
            ends_with_reset: false,
            discarded: 0,
            dismissed: None,
            upgrading: false,
            buffer_limit_bytes: 0,
            high_watermark: 0,
            requests: 0,
            active,
            belongs,
            idle: Idle::default(),
            hcm,
        }
    }

    /// How much may wait, as the listener says, bytes.
    pub(super) fn limit_buffers(&mut self, limit_bytes: usize) {
        self.buffer_limit_bytes = limit_bytes;
        self.high_watermark = high_watermark(limit_bytes);
    }

    /// What the log calls the request that is served.
    pub(super) fn stream_id(&self) -> life::StreamId {
        life::StreamId { connection: self.info.id, request: self.requests }
    }

    /// Nothing of a request or of a response is here, nor in the kernel.
    pub(super) fn is_quiet(&self) -> bool {
        self.inbound.is_empty() && self.out.is_empty() && !self.socket.has_unread()
    }

    /// Reads once from the client.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> Flow {
        if self.poll_wake(cx).is_pending() {
            return ControlFlow::Continue(false);
        }
        let limit = self.hcm.limits.max_head_bytes.max(BUFFER_BYTES) + 1;
        match self.inbound.poll_fill(cx, &mut self.socket, limit) {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(0)) => {
                self.read_closed = true;
                self.active.client_ended();
                ControlFlow::Continue(true)
            }
            Poll::Ready(Ok(count)) => {
                self.hcm.stats.downstream_cx_rx_bytes_total.add(count as u64);
                ControlFlow::Continue(true)
            }
            Poll::Ready(Err(_)) => ControlFlow::Break(EndReason::Client),
        }
    }
}

/// Counts the connection as open until dropped.
#[derive(Debug)]
pub(super) struct ActiveConnection {
    hcm: Rc<Hcm>,
    opened: Instant,
    counted: bool,
    by_client: bool,
    with_request: bool,
}

impl ActiveConnection {
    /// Counts from now on.
    pub(super) fn begin(hcm: &Rc<Hcm>, opened: Instant) -> Self {
        let mut active = Self::uncounted(hcm, opened);
        active.count();
        active
    }

    /// Does not count yet.
    pub(super) fn uncounted(hcm: &Rc<Hcm>, opened: Instant) -> Self {
        Self { hcm: Rc::clone(hcm), opened, counted: false, by_client: false, with_request: false }
    }

    /// Counts from now on.
    pub(super) fn count(&mut self) {
        self.counted = true;
        self.hcm.stats.downstream_cx_active.inc();
        self.hcm.stats.downstream_cx_http1_active.inc();
    }

    /// The client ended its side, or its socket failed: if it ends now, the client did that.
    pub(super) fn client_ended(&mut self) {
        self.by_client = true;
    }

    /// It ends with a request in flight.
    pub(super) fn with_request(&mut self) {
        self.with_request = true;
    }

    /// It goes on elsewhere: it is not open here any more, and has not ended.
    pub(super) fn leave(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.hcm.stats.downstream_cx_active.dec();
            self.hcm.stats.downstream_cx_http1_active.dec();
        }
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        self.leave();
        let stats = &self.hcm.stats;
        stats.downstream_cx_destroy.inc();
        let (by, with_request) = if self.by_client {
            (&stats.downstream_cx_destroy_remote, &stats.downstream_cx_destroy_remote_active_rq)
        } else {
            (&stats.downstream_cx_destroy_local, &stats.downstream_cx_destroy_local_active_rq)
        };
        by.inc();
        if self.with_request {
            stats.downstream_cx_destroy_active_rq.inc();
            with_request.inc();
        }
        let age = crate::clock::now().saturating_duration_since(self.opened).as_millis();
        stats.downstream_cx_length_ms.record(u64::try_from(age).unwrap_or(u64::MAX));
    }
}

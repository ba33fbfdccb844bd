//! A downstream HTTP/1 connection: the loop that reads, answers, and decides when it is over.
//!
//! ```text
//! Reading ──head──→ Exchange ──done──→ Reading
//!    │                  ├── 101 / CONNECT ──→ a tunnel (`super::tunnel`)
//!    └──bad head──→ Lingering ←──close─┘
//! ```

use std::{
    future::poll_fn,
    ops::ControlFlow,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    Hcm, exchange::Exchange, idle::Idle, migrate::Belongs, posting, request::high_watermark,
};
use crate::{
    buffer::{BUFFER_BYTES, Inbound, Outbound},
    deadline::Deadline,
    filter::network::NewConnection,
    http::{
        h1,
        head::{RequestHead, ResponseHead},
        local_reply::LocalReply,
        stream_info::ConnectionInfo,
    },
    migrate::{Ended, Wish},
    outbox::Ticket,
    stats::EndReason,
    upstream::Stream,
};

/// Whether something moved, or why the connection is over.
pub(super) type Flow = ControlFlow<EndReason, bool>;

/// A connection and all of its state.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) hcm: Rc<Hcm>,
    pub(super) info: Rc<ConnectionInfo>,
    pub(super) socket: Stream,
    pub(super) inbound: Inbound,
    pub(super) out: Outbound,
    pub(super) phase: Phase,
    pub(super) deadline: Deadline,
    /// When something was posted last, on either side.
    pub(super) posted: Ticket,
    /// Bytes in `out` that came back after they were posted, and are counted as sent already.
    pub(super) returned: usize,
    /// The earliest limit, as of when the connection last waited.
    pub(super) next_limit: Option<Instant>,
    /// The clock at the start of this turn.
    pub(super) now: Instant,
    pub(super) opened: Instant,
    /// When the connection became idle.
    pub(super) idle_since: Instant,
    /// When the first byte of the head that is being read came.
    pub(super) head_started: Option<Instant>,
    /// Bytes of an incomplete head that were looked at already.
    pub(super) head_seen: usize,
    /// The client sent its end.
    pub(super) read_closed: bool,
    /// No further request is served; why.
    pub(super) closing: Option<EndReason>,
    /// The client said that its last request was the last one, and sent all of it.
    pub(super) client_is_done: bool,
    /// The response was cut: closing must look like an error to the client.
    pub(super) cut_short: bool,
    /// The response to an upgrade is on its way; after it the connection is a tunnel.
    pub(super) upgrading: bool,
    /// Bytes that may wait for the client before reading from the upstream stops.
    pub(super) high_watermark: usize,
    /// Requests so far.
    pub(super) requests: u32,
    pub(super) active: ActiveConnection,
    pub(super) belongs: Belongs,
    pub(super) idle: Idle,
}

/// Why polling came to an end.
#[derive(Debug)]
enum Outcome {
    /// The connection is over.
    End(EndReason),
    /// It has become a tunnel.
    Tunnel,
    /// It waits, and shall move to another generation.
    Leave,
}

/// What the connection is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// Waiting for a request head.
    Reading,
    /// A request is being served.
    Exchange(Box<Exchange>),
    /// Our end was sent; the rest of what the client sends is read and thrown away since then.
    Lingering(Instant),
}

impl Connection {
    pub(super) fn new(hcm: Rc<Hcm>, connection: NewConnection) -> Box<Self> {
        let now = crate::clock::now();
        let thread = &hcm.thread;
        let info = ConnectionInfo {
            id: thread.connection_id(),
            peer: connection.peer,
            local: connection.local,
            listener: connection.listener,
            filter_chain: connection.filter_chain,
        };
        hcm.stats.downstream_cx_total.inc();
        hcm.stats.downstream_cx_http1_total.inc();
        Box::new(Self {
            info: Rc::new(info),
            socket: connection.stream,
            inbound: Inbound::new(&thread.buffers),
            out: Outbound::new(&thread.buffers),
            phase: Phase::Reading,
            deadline: thread.deadlines.entry(),
            posted: Ticket::default(),
            returned: 0,
            next_limit: None,
            now,
            opened: now,
            idle_since: now,
            head_started: None,
            head_seen: 0,
            read_closed: false,
            closing: None,
            client_is_done: false,
            cut_short: false,
            upgrading: false,
            high_watermark: high_watermark(connection.buffer_limit_bytes),
            requests: 0,
            active: ActiveConnection::begin(&hcm, now),
            belongs: Belongs {
                origin: connection.origin,
                opened: connection.opened,
                successor: None,
                homeless: false,
                wish: Wish::default(),
            },
            idle: Idle::default(),
            hcm,
        })
    }

    /// Serves the connection to its end here. In a box, so that the state of the task is small
    /// whatever the connection becomes.
    pub(super) async fn run(mut self: Box<Self>) -> Ended {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Outcome::End(reason) => {
                    self.end_idle();
                    self.hcm.thread.mover.stayed(&self.belongs.wish);
                    return reason.into();
                }
                Outcome::Tunnel => {
                    self.forget_idle();
                    return Box::pin(super::tunnel::run(*self)).await;
                }
                Outcome::Leave => {
                    // On the heap: a connection that never moves pays nothing for it.
                    if let Some(moved) = Box::pin(self.offer()).await {
                        return self.leave(moved);
                    }
                }
            }
        }
    }

    /// Does everything that can be done now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.now = crate::clock::now();
        if let ControlFlow::Break(reason) = self.take_back() {
            return Poll::Ready(Outcome::End(self.abandon(reason)));
        }
        if self.next_limit.is_some_and(|at| at <= self.now)
            && let ControlFlow::Break(reason) = self.check_limits()
        {
            return Poll::Ready(Outcome::End(self.abandon(reason)));
        }
        loop {
            match self.turn(cx) {
                ControlFlow::Break(reason) => {
                    return Poll::Ready(Outcome::End(self.abandon(reason)));
                }
                ControlFlow::Continue(_) if self.upgrading && self.out.is_empty() => {
                    return Poll::Ready(Outcome::Tunnel);
                }
                ControlFlow::Continue(true) => {}
                ControlFlow::Continue(false) => break,
            }
        }
        if self.may_leave() {
            return Poll::Ready(Outcome::Leave);
        }
        let keep = self.keep_idle();
        self.next_limit = self.earliest_limit();
        let next = match (self.next_limit, keep) {
            (Some(limit), Some(keep)) => Some(limit.min(keep)),
            (limit, keep) => limit.or(keep),
        };
        self.deadline.set(next, cx.waker());
        Poll::Pending
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Flow {
        let moved = match &self.phase {
            Phase::Reading => self.read_request(cx)?,
            Phase::Exchange(_) => self.drive_exchange(cx)?,
            Phase::Lingering(_) => self.linger(cx)?,
        };
        let flushed = self.flush(cx)?;
        ControlFlow::Continue(moved || flushed)
    }

    /// Reads and parses until there is a whole head.
    fn read_request(&mut self, cx: &mut Context<'_>) -> Flow {
        if let (Some(reason), true) = (self.closing, self.out.is_empty()) {
            return self.begin_linger(reason);
        }
        if self.closing.is_some() {
            return ControlFlow::Continue(false);
        }
        if self.is_not_waited_for() {
            return self.begin_linger(EndReason::Drained);
        }
        let limits = &self.hcm.limits;
        if !self.inbound.is_empty()
            && (self.head_seen == 0
                || h1::worth_parsing(self.inbound.data(), self.head_seen, limits))
        {
            self.head_started.get_or_insert(self.now);
            let (mut request, response) = self.hcm.thread.take_heads();
            match h1::request::parse(self.inbound.data(), limits, &mut request) {
                Ok(Some(parsed)) => return self.begin_exchange(parsed, request, response),
                Ok(None) => self.hcm.thread.return_heads(request, response),
                Err(reject) => return self.refuse(&reject, request, response),
            }
        }
        self.head_seen = self.inbound.data().len();
        if self.read_closed {
            self.take_back()?;
            if !self.out.is_empty() {
                return ControlFlow::Continue(false);
            }
            return ControlFlow::Break(EndReason::Client);
        }
        self.fill(cx)
    }

    /// Nothing is under way, and the whole service is being stopped.
    fn is_not_waited_for(&self) -> bool {
        /// A new connection is given this long for its first request.
        const PATIENCE: Duration = Duration::from_secs(1);
        self.hcm.thread.drain.is_stopping()
            && self.inbound.is_empty()
            && self.out.is_empty()
            && (self.requests > 0 || self.now.saturating_duration_since(self.opened) > PATIENCE)
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
                ControlFlow::Continue(true)
            }
            Poll::Ready(Ok(count)) => {
                self.hcm.stats.downstream_cx_rx_bytes_total.add(count as u64);
                ControlFlow::Continue(true)
            }
            Poll::Ready(Err(_)) => ControlFlow::Break(EndReason::Client),
        }
    }

    /// Writes what waits for the client.
    fn flush(&mut self, cx: &mut Context<'_>) -> Flow {
        if self.out.is_empty() {
            return self.flush_pipe(cx);
        }
        self.take_back()?;
        let flushed = if let Some(count) = self.post(cx) {
            Poll::Ready(Ok(count))
        } else if self.ends_after_flush() || self.waits_in_pipe() > 0 {
            self.out.poll_flush_by(|bufs| self.socket.poll_write_more(cx, bufs))
        } else {
            self.out.poll_flush(cx, &mut self.socket)
        };
        match flushed {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(count)) => {
                let uncounted = posting::uncounted(count, &mut self.returned);
                self.hcm.stats.downstream_cx_tx_bytes_total.add(uncounted);
                if let Phase::Exchange(exchange) = &mut self.phase {
                    exchange.last_activity = self.now;
                }
                self.after_flush(true)
            }
            Poll::Ready(Err(_)) => ControlFlow::Break(EndReason::Client),
        }
    }

    /// What waits is all that the client gets; after it the connection is closed.
    fn ends_after_flush(&self) -> bool {
        self.closing.is_some()
            && !self.upgrading
            && matches!(&self.phase, Phase::Exchange(exchange) if exchange.response_done())
    }

    /// An exchange is over when its response has left.
    pub(super) fn after_flush(&mut self, moved: bool) -> Flow {
        if self.cut_short {
            return ControlFlow::Break(self.closing.unwrap_or(EndReason::Upstream));
        }
        if self.nothing_waits()
            && !self.upgrading
            && matches!(&self.phase, Phase::Exchange(exchange) if exchange.response_done())
        {
            self.finish_exchange();
            return ControlFlow::Continue(true);
        }
        ControlFlow::Continue(moved)
    }

    /// Sends our end and waits for the client's, so that the last response is not cut by a reset: the
    /// kernel sends one when a socket is closed that has unread bytes, or gets some later.
    fn begin_linger(&mut self, reason: EndReason) -> Flow {
        let nothing_comes =
            self.client_is_done && self.inbound.is_empty() && self.socket.is_quiet();
        if self.read_closed || nothing_comes || self.socket.shutdown_write().is_err() {
            return ControlFlow::Break(reason);
        }
        self.forget_idle();
        self.phase = Phase::Lingering(self.now);
        ControlFlow::Continue(true)
    }

    fn linger(&mut self, cx: &mut Context<'_>) -> Flow {
        let reason = self.closing.unwrap_or(EndReason::Client);
        match self.socket.poll_read_into(cx, &mut [0; 4096]) {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(count)) if count > 0 => ControlFlow::Continue(true),
            Poll::Ready(_) => ControlFlow::Break(reason),
        }
    }

    /// A bad head: answer and close.
    fn refuse(
        &mut self,
        reject: &h1::request::Reject,
        request: RequestHead,
        response: ResponseHead,
    ) -> Flow {
        self.hcm.stats.downstream_cx_protocol_error.inc();
        if reject.close {
            // The rest of what came cannot be told apart from another message.
            self.inbound = Inbound::new(&self.hcm.thread.buffers);
        } else {
            self.inbound.consume(reject.head_len);
        }
        let reply = LocalReply::rejected(reject.status, reject.details);
        let reply = if reject.close { reply.closing() } else { reply };
        self.begin_answer(&reply, request, response);
        ControlFlow::Continue(true)
    }
}

/// Counts the connection as open until dropped.
#[derive(Debug)]
pub(super) struct ActiveConnection {
    hcm: Rc<Hcm>,
    opened: Instant,
    counted: bool,
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
        Self { hcm: Rc::clone(hcm), opened, counted: false }
    }

    /// Counts from now on.
    pub(super) fn count(&mut self) {
        self.counted = true;
        self.hcm.stats.downstream_cx_active.inc();
        self.hcm.stats.downstream_cx_http1_active.inc();
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
        let age = crate::clock::now().saturating_duration_since(self.opened).as_millis();
        stats.downstream_cx_length_ms.record(u64::try_from(age).unwrap_or(u64::MAX));
    }
}

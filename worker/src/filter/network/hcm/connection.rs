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
    time::Instant,
};

use super::{
    Hcm,
    downstream::{ActiveConnection, Downstream},
    exchange::Exchange,
    linger::Linger,
    migrate::Belongs,
    posting,
};
use crate::{
    activity::Work,
    buffer::Inbound,
    deadline::Deadline,
    filter::network::{NewConnection, life},
    http::{
        h1,
        head::{RequestHead, ResponseHead},
        local_reply::LocalReply,
        stream_info::ConnectionInfo,
    },
    migrate::Ended,
    progress,
    stats::EndReason,
};

/// Whether something moved, or why the connection is over.
pub(super) type Flow = ControlFlow<EndReason, bool>;

/// A connection and all of its state.
#[derive(Debug)]
pub(super) struct Connection {
    /// The client's side of it.
    pub(super) down: Downstream,
    pub(super) phase: Phase,
    pub(super) deadline: Deadline,
    /// The earliest limit, as of when the connection last waited.
    pub(super) next_limit: Option<Instant>,
    /// When the connection became idle.
    pub(super) idle_since: Instant,
    /// When the first byte of the head that is being read came.
    pub(super) head_started: Option<Instant>,
    /// Bytes of an incomplete head that were looked at already.
    pub(super) head_seen: usize,
    /// The client said that its last request was the last one, and sent all of it.
    pub(super) client_is_done: bool,
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
    /// The last response has left; the client's end is waited for.
    Lingering(Linger),
}

impl Phase {
    /// What is being served.
    pub(super) fn exchange(&self) -> Option<&Exchange> {
        match self {
            Self::Exchange(exchange) => Some(exchange),
            Self::Reading | Self::Lingering(_) => None,
        }
    }

    /// There is an exchange, and all of its response is in the queue.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self, Self::Exchange(exchange) if exchange.response_done())
    }

    /// Bytes of the exchange moved, if there is one.
    pub(super) fn moved(&mut self, now: Instant) {
        if let Self::Exchange(exchange) = self {
            exchange.last_activity = now;
        }
    }

    const fn work(&self) -> Work {
        match self {
            Self::Reading => Work::RequestHead,
            Self::Exchange(_) => Work::Exchange,
            Self::Lingering(_) => Work::Close,
        }
    }
}

impl Connection {
    /// A connection that was just accepted.
    pub(super) fn new(hcm: Rc<Hcm>, connection: NewConnection) -> Box<Self> {
        let now = crate::clock::now();
        let info = ConnectionInfo {
            id: hcm.thread.connection_id(),
            peer: connection.peer,
            local: connection.local,
            path: connection.origin.path.clone(),
            listener: connection.listener,
            filter_chain: connection.filter_chain,
        };
        if life::told() {
            life::accepted(&info);
        }
        hcm.stats.downstream_cx_total.inc();
        hcm.stats.downstream_cx_http1_total.inc();
        let belongs = Belongs::at_home(connection.origin, connection.opened);
        let active = ActiveConnection::begin(&hcm, now);
        let mut down = Downstream::new(hcm, info, connection.stream, active, belongs);
        down.limit_buffers(connection.buffer_limit_bytes);
        Self::around(down)
    }

    /// An idle connection.
    pub(super) fn around(down: Downstream) -> Box<Self> {
        Box::new(Self {
            deadline: down.hcm.thread.deadlines.entry(),
            phase: Phase::Reading,
            next_limit: None,
            idle_since: down.now,
            head_started: None,
            head_seen: 0,
            client_is_done: false,
            down,
        })
    }

    /// Serves the connection to its end here. In a box, so that the state of the task is small
    /// whatever the connection becomes.
    pub(super) async fn run(self: Box<Self>) -> Ended {
        let id = self.down.info.id;
        let ended = self.serve().await;
        if life::told() {
            life::closed(id, ended.reason);
        }
        ended
    }

    async fn serve(mut self: Box<Self>) -> Ended {
        loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Outcome::End(reason) => {
                    if reason == EndReason::Client && self.down.closing.is_none() {
                        self.down.active.client_ended();
                    }
                    self.end_idle();
                    self.down.hcm.thread.mover.stayed(&self.down.belongs.wish);
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
        self.down.now = crate::clock::now();
        self.down.hcm.thread.activity.begin_for(self.phase.work(), self.down.info.id);
        if let ControlFlow::Break(reason) = self.take_back() {
            return Poll::Ready(Outcome::End(self.abandon(reason)));
        }
        if self.next_limit.is_some_and(|at| at <= self.down.now)
            && let ControlFlow::Break(reason) = self.check_limits()
        {
            return Poll::Ready(Outcome::End(self.abandon(reason)));
        }
        let turned = progress::drive(|| match self.turn(cx) {
            ControlFlow::Break(reason) => ControlFlow::Break(Outcome::End(self.abandon(reason))),
            ControlFlow::Continue(_) if self.down.upgrading && self.down.out.is_empty() => {
                ControlFlow::Break(Outcome::Tunnel)
            }
            ControlFlow::Continue(moved) => ControlFlow::Continue(moved),
        });
        match turned {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(outcome)) => return Poll::Ready(outcome),
            Err(stuck) => return Poll::Ready(Outcome::End(self.give_up(stuck))),
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
        let moved = match &mut self.phase {
            Phase::Reading => self.read_request(cx)?,
            Phase::Exchange(exchange) => exchange.drive(&mut self.down, cx)?,
            Phase::Lingering(_) => self.linger(cx)?,
        };
        let flushed = self.flush(cx)?;
        ControlFlow::Continue(moved || flushed)
    }

    /// Reads and parses until there is a whole head.
    fn read_request(&mut self, cx: &mut Context<'_>) -> Flow {
        if let (Some(reason), true) = (self.down.closing, self.down.out.is_empty()) {
            return self.begin_linger(reason);
        }
        if self.down.closing.is_some() {
            return ControlFlow::Continue(false);
        }
        let limits = &self.down.hcm.limits;
        if !self.down.inbound.is_empty()
            && (self.head_seen == 0
                || h1::worth_parsing(self.down.inbound.data(), self.head_seen, limits))
        {
            self.head_started.get_or_insert(self.down.now);
            let (mut request, response) = self.down.hcm.thread.take_heads();
            match h1::request::parse(self.down.inbound.data(), limits, &mut request) {
                Ok(Some(parsed)) => return self.begin_exchange(parsed, request, response),
                Ok(None) => self.down.hcm.thread.return_heads(request, response),
                Err(reject) => return self.refuse(&reject, request, response),
            }
        }
        self.head_seen = self.down.inbound.data().len();
        if self.down.read_closed {
            self.take_back()?;
            if !self.down.out.is_empty() {
                return ControlFlow::Continue(false);
            }
            return ControlFlow::Break(EndReason::Client);
        }
        let filled = self.down.fill(cx)?;
        match self.last_call() {
            Some((at, reason)) if !filled && at <= self.down.now && self.down.is_quiet() => {
                self.begin_linger(reason)
            }
            Some(_) | None => ControlFlow::Continue(filled),
        }
    }

    /// Writes what waits for the client.
    fn flush(&mut self, cx: &mut Context<'_>) -> Flow {
        if self.down.out.is_empty() {
            return self.flush_pipe(cx);
        }
        self.take_back()?;
        let flushed = if let Some(count) = self.down.post(self.phase.is_answered(), cx) {
            Poll::Ready(Ok(count))
        } else if self.ends_after_flush() || self.down.waits_in_pipe() > 0 {
            self.down.out.poll_flush_by(|bufs| self.down.socket.poll_write_more(cx, bufs))
        } else {
            self.down.out.poll_flush(cx, &mut self.down.socket)
        };
        match flushed {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(count)) => {
                let uncounted = posting::uncounted(count, &mut self.down.returned);
                self.down.hcm.stats.downstream_cx_tx_bytes_total.add(uncounted);
                self.phase.moved(self.down.now);
                self.after_flush(true)
            }
            Poll::Ready(Err(_)) => {
                self.down.active.client_ended();
                ControlFlow::Break(EndReason::Client)
            }
        }
    }

    /// What waits is all that the client gets; after it the connection is closed.
    fn ends_after_flush(&self) -> bool {
        self.down.closing.is_some()
            && !self.down.upgrading
            && !self.down.ends_with_reset
            && self.phase.is_answered()
    }

    /// An exchange is over when its response has left.
    pub(super) fn after_flush(&mut self, moved: bool) -> Flow {
        if self.down.nothing_waits() && !self.down.upgrading && self.phase.is_answered() {
            self.finish_exchange();
            return ControlFlow::Continue(true);
        }
        ControlFlow::Continue(moved)
    }

    /// A bad head: answer and close.
    fn refuse(
        &mut self,
        reject: &h1::request::Reject,
        request: RequestHead,
        response: ResponseHead,
    ) -> Flow {
        self.down.hcm.stats.downstream_cx_protocol_error.inc();
        if reject.close {
            self.down.hcm.stats.downstream_rq_response_before_rq_complete.inc();
            // The rest of what came cannot be told apart from another message.
            self.down.inbound = Inbound::new(&self.down.hcm.thread.buffers);
        } else {
            self.down.inbound.consume(reject.head_len);
        }
        let reply = LocalReply::rejected(reject.status, reject.details);
        let reply = if reject.close { reply.closing() } else { reply };
        self.begin_answer(&reply, request, response);
        ControlFlow::Continue(true)
    }
}

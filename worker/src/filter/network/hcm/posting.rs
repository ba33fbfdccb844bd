//! Which requests and responses are posted, to be sent with those of other connections
//! ([`crate::outbox`]), and what happens to those that come back.

use std::{
    io,
    ops::ControlFlow,
    task::{Context, Poll},
};

use super::{
    attempt::{Attempt, Link},
    connection::{Connection, Flow, Phase},
    downstream::Downstream,
};
use crate::{outbox::Ticket, stats::EndReason};

impl Connection {
    /// Before anything is decided: what was posted has been sent, or is in the queues again.
    pub(super) fn take_back(&mut self) -> Flow {
        if !self.down.posted.is_open() {
            return ControlFlow::Continue(false);
        }
        if let Phase::Exchange(exchange) = &mut self.phase {
            exchange.attempt.take_back();
        }
        let Some(returned) = self.down.socket.recall() else {
            return ControlFlow::Continue(false);
        };
        self.down.returned = returned.unsent.len();
        self.down.out.put_first(returned.unsent);
        match returned.error {
            None => ControlFlow::Continue(true),
            Some(_) => ControlFlow::Break(EndReason::Client),
        }
    }
}

impl Downstream {
    /// Posts the end of a response, or all of it: bytes.
    pub(super) fn post(&mut self, is_done: bool, cx: &Context<'_>) -> Option<usize> {
        let thread = &self.hcm.thread;
        let may = is_done
            && self.closing.is_none()
            && !self.upgrading
            && !self.cut_short
            && self.waits_in_pipe() == 0
            && !self.read_closed
            // More requests are here already: their answers would have to wait for this one.
            && self.inbound.is_empty()
            // The process may end as soon as nothing is under way.
            && !thread.drain.is_draining()
            && !thread.drain.is_stopping()
            // The mark in shared memory says that the kernel has the response.
            && !thread.escrow.holds_idle();
        let count = self.out.len();
        self.posted = may.then(|| self.socket.post(&mut self.out, cx.waker()))??;
        Some(count)
    }
}

impl Attempt {
    /// Writes what waits, or posts it when that `is_all` of the request; bytes.
    pub(super) fn poll_write(
        &mut self,
        is_all: bool,
        posted: &mut Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Link::Active(active) = &mut self.link else { return Poll::Pending };
        let stream = &mut active.connection.stream;
        // Then nothing else is written to this connection before there is an answer.
        let more = self.bulk.waiting() > 0;
        let is_whole = is_all && !active.wrote && !more;
        let length = self.out.len();
        if is_whole
            && active.returned == 0
            && let Some(ticket) = stream.post(&mut self.out, cx.waker())
        {
            *posted = ticket;
            return Poll::Ready(Ok(length));
        }
        if self.out.is_empty() {
            return self.bulk.poll_drain(cx, stream);
        }
        if more {
            return self.out.poll_flush_by(|bufs| stream.poll_write_more(cx, bufs));
        }
        self.out.poll_flush(cx, stream)
    }

    /// A request that was posted has been sent, or is in the queue again.
    pub(super) fn take_back(&mut self) {
        let Link::Active(active) = &mut self.link else { return };
        let Some(returned) = active.connection.stream.recall() else { return };
        active.wrote = returned.sent > 0;
        active.returned = returned.unsent.len();
        // An answer may have come before the upstream closed; reading will tell.
        active.write_failed = returned.error.is_some();
        self.out.put_first(returned.unsent);
    }
}

/// Of so many bytes that were sent those that were not counted when they were posted.
pub(super) fn uncounted(sent: usize, returned: &mut usize) -> u64 {
    let counted = sent.min(*returned);
    *returned -= counted;
    (sent - counted) as u64
}

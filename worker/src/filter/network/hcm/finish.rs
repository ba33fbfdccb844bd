//! The end of an exchange: statistics, the access log, and what the connection does next.

use std::time::Instant;

use super::{
    Hcm,
    attempt::Link,
    bulk::Bulk,
    connection::{Connection, Phase},
    downstream::Downstream,
    exchange::Exchange,
};
use crate::{
    filter::network::life,
    http::stream_info::{LogContext, ResponseFlags},
    progress::Stuck,
    stats::EndReason,
};

impl Connection {
    /// The response has left: the connection is free for the next request.
    pub(super) fn finish_exchange(&mut self) {
        let Phase::Exchange(exchange) = std::mem::replace(&mut self.phase, Phase::Reading) else {
            return;
        };
        if exchange.request_body.is_some() {
            self.down.close_after(EndReason::Client);
        }
        self.client_is_done = !exchange.keep_alive && exchange.request_body.is_none();
        self.down.bulk = Bulk::default();
        self.idle_since = self.down.now;
        self.head_started = None;
        if life::told() {
            life::ended(self.down.stream_id(), &exchange.info);
        }
        exchange.end(&self.down.hcm, self.down.now);
        self.go_home();
    }

    /// The connection ends now, whatever it was doing; the reason for the ledger.
    pub(super) fn abandon(&mut self, reason: EndReason) -> EndReason {
        let Phase::Exchange(mut exchange) = std::mem::replace(&mut self.phase, Phase::Reading)
        else {
            return reason;
        };
        exchange.cancel_attempt();
        self.down.active.with_request();
        if reason == EndReason::Client && !self.down.cut_short {
            exchange.info.flags.set(ResponseFlags::DOWNSTREAM_TERMINATION);
            if matches!(&*exchange.info.details, "" | "via_upstream") {
                exchange.info.details = "downstream_remote_disconnect".into();
            }
            self.down.hcm.stats.downstream_rq_rx_reset.inc();
        }
        if life::told() {
            life::ended(self.down.stream_id(), &exchange.info);
        }
        exchange.end(&self.down.hcm, self.down.now);
        reason
    }

    /// It does not get further.
    #[cold]
    pub(super) fn give_up(&mut self, stuck: Stuck) -> EndReason {
        let reason = match &mut self.phase {
            Phase::Exchange(exchange) => exchange.give_up(&mut self.down, stuck),
            Phase::Reading | Phase::Lingering(_) => self.down.give_up(stuck),
        };
        self.abandon(reason)
    }
}

impl Downstream {
    /// It does not get further, whatever it was doing; the reason for the ledger.
    #[cold]
    fn give_up(&mut self, stuck: Stuck) -> EndReason {
        self.hcm.thread.ledger.stuck();
        tracing::error!(
            %stuck,
            listener = &*self.info.listener,
            peer = self.info.peer.map(tracing::field::display),
            inbound_bytes = self.inbound.data().len(),
            outbound_bytes = self.out.len(),
            read_closed = self.read_closed,
            closing = self.closing.is_some(),
            upgrading = self.upgrading,
            "a connection is cut, because it does not get further: please report this fault of baton"
        );
        // Nothing else of it will be sent.
        self.socket.reset_on_close();
        self.close_after(EndReason::CutByDeadline);
        self.cut_short = true;
        EndReason::CutByDeadline
    }
}

impl Exchange {
    /// It does not get further. The client sees that what it has is not all.
    #[cold]
    pub(super) fn give_up(&mut self, down: &mut Downstream, stuck: Stuck) -> EndReason {
        self.info.details = "no_progress".into();
        self.cut(down, EndReason::CutByDeadline);
        down.give_up(stuck)
    }

    /// It goes on in another process: it is neither counted as ended nor logged here.
    pub(super) fn leave(mut self: Box<Self>, hcm: &Hcm) {
        if let Link::Active(active) = &mut self.attempt.link {
            active.connection.counted.leave();
        }
        hcm.stats.downstream_rq_active.dec();
        let active = &hcm.thread.active_requests;
        active.set(active.get().saturating_sub(1));
        let Self { request, response, .. } = *self;
        hcm.thread.return_heads(request, response);
    }

    /// Counts and logs the exchange.
    pub(super) fn end(mut self: Box<Self>, hcm: &Hcm, now: Instant) {
        self.info.ended = Some(now);
        let millis = now.saturating_duration_since(self.info.started).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        let stats = &hcm.stats;
        stats.downstream_rq_active.dec();
        let active = &hcm.thread.active_requests;
        active.set(active.get().saturating_sub(1));
        stats.downstream_rq_time.record(millis);
        if self.info.status != 0 {
            stats.response(self.info.status);
        }
        if let Some(target) = &self.target
            && let Some(sent) = self.info.upstream_first_sent
        {
            let end = self.info.upstream_last_received.unwrap_or(now);
            let time = end.saturating_duration_since(sent).as_millis();
            target.cluster.stats.upstream_rq_time.record(u64::try_from(time).unwrap_or(u64::MAX));
        }
        self.attempt.link = Link::None;
        hcm.access_log.log(&LogContext {
            info: &self.info,
            request: Some(&self.request),
            response: Some(&self.response).filter(|_| self.info.status != 0),
            trailers: Some(&self.trailers),
            now,
            node: &hcm.thread.bootstrap.node,
        });
        let Self { request, response, .. } = *self;
        hcm.thread.return_heads(request, response);
    }
}

#[cfg(test)]
mod tests;

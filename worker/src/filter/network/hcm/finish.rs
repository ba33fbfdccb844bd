//! The end of an exchange: statistics, the access log, and what the connection does next.

use std::time::Instant;

use super::{
    Hcm,
    connection::{Connection, Phase},
    exchange::{Exchange, Upstream},
};
use crate::{
    http::stream_info::{LogContext, ResponseFlags},
    stats::EndReason,
};

impl Connection {
    /// The response has left: the connection is free for the next request.
    pub(super) fn finish_exchange(&mut self) {
        let Phase::Exchange(exchange) = std::mem::replace(&mut self.phase, Phase::Reading) else {
            return;
        };
        if exchange.request_body.is_some() {
            self.close_after(EndReason::Client);
        }
        self.client_is_done = !exchange.keep_alive && exchange.request_body.is_none();
        self.idle_since = self.now;
        self.head_started = None;
        exchange.end(&self.hcm, self.now);
        self.go_home();
    }

    /// The connection ends now, whatever it was doing; the reason for the ledger.
    pub(super) fn abandon(&mut self, reason: EndReason) -> EndReason {
        let Phase::Exchange(mut exchange) = std::mem::replace(&mut self.phase, Phase::Reading)
        else {
            return reason;
        };
        if reason == EndReason::Client && !self.cut_short {
            exchange.info.flags.set(ResponseFlags::DOWNSTREAM_TERMINATION);
            if exchange.info.details.is_empty() {
                exchange.info.details = "downstream_remote_disconnect".into();
            }
            self.hcm.stats.downstream_rq_rx_reset.inc();
        }
        exchange.end(&self.hcm, self.now);
        reason
    }
}

impl Exchange {
    /// It goes on in another process: it is neither counted as ended nor logged here.
    pub(super) fn leave(self: Box<Self>, hcm: &Hcm) {
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
        self.upstream = Upstream::None;
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

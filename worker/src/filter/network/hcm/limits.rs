//! Time limits of a connection: which is next, and what happens when one is reached.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use super::{
    connection::{Connection, Flow, Phase},
    exchange::{Exchange, Upstream},
};
use crate::{
    http::local_reply::{LocalReply, ResetReason},
    stats::EndReason,
};

/// How long the client's end is waited for after ours. Envoy's `delayed_close_timeout`.
const LINGER: Duration = Duration::from_secs(1);

/// A request body slower than this is cut, in bytes per second. A person on a bad mobile network
/// sends more.
const MIN_BODY_RATE: u64 = 240;

/// The body's rate is looked at after this long.
const BODY_GRACE: Duration = Duration::from_secs(10);

/// A limit of an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Limit {
    Connect,
    Route,
    Request,
    Idle,
    BodyRate,
}

impl Connection {
    /// The earliest moment at which a limit will be reached.
    pub(super) fn earliest_limit(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Reading => self.reading_limit(),
            Phase::Lingering(since) => Some(*since + LINGER),
            Phase::Exchange(exchange) => self.exchange_limit(exchange).map(|(at, _)| at),
        }
    }

    fn reading_limit(&self) -> Option<Instant> {
        let config = &self.hcm.config;
        if !self.out.is_empty() {
            // The last response still waits for a slow reader.
            return config.stream_idle_timeout.map(|limit| self.idle_since + limit);
        }
        match self.head_started {
            Some(started) => config.request_headers_timeout.map(|limit| started + limit),
            None => {
                let idle = config.idle_timeout.map(|limit| self.idle_since + limit);
                let age = config.max_connection_duration.map(|limit| self.opened + limit);
                match (idle, age) {
                    (Some(idle), Some(age)) => Some(idle.min(age)),
                    (idle, age) => idle.or(age),
                }
            }
        }
    }

    fn exchange_limit(&self, exchange: &Exchange) -> Option<(Instant, Limit)> {
        let target = exchange.target.as_ref();
        let stream_idle =
            target.map_or(self.hcm.config.stream_idle_timeout, |target| target.idle_timeout);
        let idle = stream_idle.map(|limit| (exchange.last_activity + limit, Limit::Idle));
        if exchange.response_done() {
            // All that is left is to send it.
            return idle;
        }
        let connect = match &exchange.upstream {
            Upstream::Connecting(_, until) => Some((*until, Limit::Connect)),
            Upstream::None | Upstream::Active(_) => None,
        };
        let request = self.hcm.config.request_timeout.filter(|_| exchange.request_body.is_some());
        let request = request.map(|limit| (exchange.info.started + limit, Limit::Request));
        let route = target.and_then(|target| target.timeout).zip(exchange.info.request_received);
        let route = route.map(|(limit, received)| (received + limit, Limit::Route));
        let rate = Self::body_rate_limit(exchange).map(|at| (at, Limit::BodyRate));
        [idle, connect, request, route, rate].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When the request body will have been too slow, unless more of it comes.
    ///
    /// Only while we are ready to take more: a body that waits for a slow upstream is not slow.
    fn body_rate_limit(exchange: &Exchange) -> Option<Instant> {
        exchange.request_body.as_ref()?;
        if !exchange.request_is_written() {
            return None;
        }
        let covered = Duration::from_secs(exchange.info.bytes_received / MIN_BODY_RATE);
        Some(exchange.body_started + BODY_GRACE + covered)
    }

    /// Acts on a limit that was reached.
    pub(super) fn check_limits(&mut self) -> Flow {
        if self.earliest_limit().is_none_or(|at| at > self.now) {
            return ControlFlow::Continue(false);
        }
        let limit = match &self.phase {
            Phase::Reading if self.head_started.is_some() && self.out.is_empty() => {
                return self.header_timeout();
            }
            Phase::Reading => {
                self.hcm.stats.downstream_cx_idle_timeout.inc();
                return ControlFlow::Break(EndReason::Timeout);
            }
            Phase::Lingering(_) => {
                return ControlFlow::Break(self.closing.unwrap_or(EndReason::Timeout));
            }
            Phase::Exchange(exchange) => self.exchange_limit(exchange).map(|(_, limit)| limit),
        };
        match limit {
            None => {}
            Some(Limit::Connect) => self.connect_failed(ResetReason::ConnectionTimeout),
            Some(Limit::Route) => self.route_timeout(),
            Some(Limit::Request) => {
                self.timed_out(&LocalReply::request_timeout("request_overall_timeout"));
            }
            Some(Limit::BodyRate) => {
                self.timed_out(&LocalReply::request_timeout("request_body_too_slow"));
            }
            Some(Limit::Idle) => {
                self.hcm.stats.downstream_rq_idle_timeout.inc();
                if matches!(&self.phase, Phase::Exchange(exchange) if exchange.response_done()) {
                    // The client does not read what waits for it.
                    return ControlFlow::Break(EndReason::Timeout);
                }
                self.timed_out(&LocalReply::stream_idle());
            }
        }
        ControlFlow::Continue(true)
    }

    /// The head took too long.
    fn header_timeout(&mut self) -> Flow {
        self.hcm.stats.downstream_rq_header_timeout.inc();
        self.closing = Some(EndReason::Timeout);
        let (request, response) = self.hcm.thread.take_heads();
        let reply = LocalReply::request_timeout("request_header_timeout");
        self.inbound = crate::buffer::Inbound::new(&self.hcm.thread.buffers);
        self.begin_answer(&reply, request, response);
        ControlFlow::Continue(true)
    }

    fn timed_out(&mut self, reply: &LocalReply) {
        self.hcm.stats.downstream_rq_timeout.inc();
        self.closing = Some(EndReason::Timeout);
        self.reply(reply);
    }

    fn route_timeout(&mut self) {
        if let Phase::Exchange(exchange) = &self.phase
            && let Some(target) = &exchange.target
        {
            target.cluster.stats.upstream_rq_timeout.inc();
        }
        self.reply(&LocalReply::upstream_timeout());
    }
}

//! Time limits of a connection: which is next, and what happens when one is reached.

use std::{ops::ControlFlow, time::Instant};

use super::{
    attempt::Link,
    connection::{Connection, Flow, Phase},
    downstream::Downstream,
    exchange::Exchange,
    retry::TryLimit,
};
use crate::{
    filter::network::life,
    http::local_reply::{LocalReply, ResetReason},
    stats::EndReason,
};

/// A limit of an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Limit {
    Head,
    Connect,
    Try(TryLimit),
    Route,
    Request,
    Idle,
    /// A filter wants to be asked again.
    Filter,
}

impl Connection {
    /// The earliest moment at which a limit will be reached.
    pub(super) fn earliest_limit(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Reading => self.reading_limit(),
            Phase::Lingering(linger) => Some(self.linger_limit(linger)),
            Phase::Exchange(exchange) => exchange.limit(&self.down).map(|(at, _)| at),
        }
    }

    fn reading_limit(&self) -> Option<Instant> {
        let config = &self.down.hcm.config;
        if !self.down.out.is_empty() {
            // The last response still waits for a slow reader.
            return config.stream_idle_timeout.map(|limit| self.idle_since + limit);
        }
        match self.head_started {
            Some(started) => self.head_limit(started).map(|(at, _)| at),
            None => {
                let idle = config.idle_timeout.map(|limit| self.idle_since + limit);
                let last_call = match self.last_call() {
                    Some((at, _)) => Some(at),
                    None => config.max_connection_duration.map(|limit| self.down.opened + limit),
                };
                match (idle, last_call) {
                    (Some(idle), Some(last_call)) => Some(idle.min(last_call)),
                    (idle, last_call) => idle.or(last_call),
                }
            }
        }
    }

    /// When the head that began to come must be there.
    fn head_limit(&self, started: Instant) -> Option<(Instant, Limit)> {
        let config = &self.down.hcm.config;
        let head = config.request_headers_timeout.map(|limit| (started + limit, Limit::Head));
        let whole = config.request_timeout.map(|limit| (started + limit, Limit::Request));
        head.into_iter().chain(whole).min_by_key(|(at, _)| *at)
    }

    /// Acts on a limit that was reached.
    pub(super) fn check_limits(&mut self) -> Flow {
        if self.earliest_limit().is_none_or(|at| at > self.down.now) {
            return ControlFlow::Continue(false);
        }
        match &mut self.phase {
            Phase::Exchange(exchange) => exchange.check_limits(&mut self.down),
            Phase::Lingering(_) => self.linger_is_over(),
            Phase::Reading => self.check_reading_limits(),
        }
    }

    fn check_reading_limits(&mut self) -> Flow {
        if self.down.out.is_empty() {
            if let Some(started) = self.head_started {
                return self.head_timeout(started);
            }
            // Whether the client uses its last call is found out when reading.
            if !self.was_idle_for_long() || self.down.socket.has_unread() {
                return ControlFlow::Continue(true);
            }
        }
        self.down.hcm.stats.downstream_cx_idle_timeout.inc();
        ControlFlow::Break(EndReason::Timeout)
    }

    fn was_idle_for_long(&self) -> bool {
        let limit = self.down.hcm.config.idle_timeout;
        limit.is_some_and(|limit| self.idle_since + limit <= self.down.now)
    }

    /// The head took too long.
    fn head_timeout(&mut self, started: Instant) -> Flow {
        let stats = &self.down.hcm.stats;
        let reply = if let Some((_, Limit::Request)) = self.head_limit(started) {
            stats.downstream_rq_timeout.inc();
            LocalReply::request_timeout("request_overall_timeout")
        } else {
            stats.downstream_rq_header_timeout.inc();
            LocalReply::header_timeout()
        };
        self.down.hcm.stats.downstream_rq_response_before_rq_complete.inc();
        self.down.closing = Some(EndReason::Timeout);
        let (request, response) = self.down.hcm.thread.take_heads();
        self.down.inbound = crate::buffer::Inbound::new(&self.down.hcm.thread.buffers);
        self.begin_answer(&reply, request, response);
        ControlFlow::Continue(true)
    }
}

type Due = Option<(Instant, Limit)>;

/// The one that comes first; of two at one time the first.
fn earlier(one: Due, other: Due) -> Due {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.0 < one.0 { other } else { one }),
        (one, other) => one.or(other),
    }
}

impl Exchange {
    fn limit(&self, down: &Downstream) -> Option<(Instant, Limit)> {
        let target = self.target.as_ref();
        let stream_idle =
            target.map_or(down.hcm.config.stream_idle_timeout, |target| target.idle_timeout);
        let idle = stream_idle.map(|limit| (self.last_activity + limit, Limit::Idle));
        if self.response_done() {
            // All that is left is to send it.
            return idle;
        }
        let connect = match &self.attempt.link {
            Link::Opening(_, until) => Some((*until, Limit::Connect)),
            Link::None | Link::Active(_) => None,
        };
        let request = down.hcm.config.request_timeout.filter(|_| self.request_body.is_some());
        let request = request.map(|limit| (self.info.started + limit, Limit::Request));
        let route = target.and_then(|target| target.timeout).zip(self.info.request_received);
        let route = route.map(|(limit, received)| (received + limit, Limit::Route));
        let usual = earlier(earlier(idle, connect), earlier(request, route));
        // Nearly no request has these.
        let filter = self.passage.wake_at().map(|at| (at, Limit::Filter));
        let tries = self.try_limit().map(|(at, limit)| (at, Limit::Try(limit)));
        earlier(usual, earlier(tries, filter))
    }

    /// Acts on a limit that was reached.
    fn check_limits(&mut self, down: &mut Downstream) -> Flow {
        match self.limit(down).map(|(_, limit)| limit) {
            None | Some(Limit::Head | Limit::Filter) => {}
            Some(Limit::Connect) => {
                if life::told() {
                    life::upstream(down.stream_id(), None, "the time to connect is over");
                }
                self.connect_failed(down, ResetReason::ConnectionTimeout, None);
            }
            Some(Limit::Try(limit)) => return self.try_limit_reached(down, limit),
            Some(Limit::Route) => self.route_timeout(down),
            Some(Limit::Request) => {
                down.hcm.stats.downstream_rq_timeout.inc();
                down.closing = Some(EndReason::Timeout);
                self.reply(down, &LocalReply::request_timeout("request_overall_timeout"));
            }
            Some(Limit::Idle) => {
                down.hcm.stats.downstream_rq_idle_timeout.inc();
                if self.response_done() {
                    // The client does not read what waits for it.
                    return ControlFlow::Break(EndReason::Timeout);
                }
                self.stream_idle(down);
            }
        }
        ControlFlow::Continue(true)
    }

    /// Nothing moved for too long: who is late decides about the answer.
    fn stream_idle(&mut self, down: &mut Downstream) {
        if self.request_body.is_none() {
            self.reply(down, &LocalReply::upstream_idle());
        } else {
            down.closing = Some(EndReason::Timeout);
            self.reply(down, &LocalReply::stream_idle());
        }
    }

    fn route_timeout(&mut self, down: &mut Downstream) {
        if let Some(target) = &self.target {
            target.cluster.stats.upstream_rq_timeout.inc();
        }
        self.reply(down, &LocalReply::upstream_timeout());
    }
}

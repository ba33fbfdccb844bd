//! The request side of an exchange: from a parsed head to a decision, then the body upstream.

use std::{ops::ControlFlow, rc::Rc, task::Context};

use super::{
    connection::{Connection, Flow, Phase},
    downstream::Downstream,
    exchange::{Exchange, Reached, Upgrading},
    filtering::Passed,
};
use crate::{
    config::{hcm::StripHostPort, route::Upgrade},
    filter::{
        http::{
            chain::Hold,
            router::{Router, Target},
        },
        network::life,
    },
    http::{
        forwarded,
        h1::{Framing, body::Decoder, request::ParsedRequest},
        head::{RequestHead, ResponseHead},
        headers::Headers,
        local_reply::LocalReply,
        path::{self, Normalized},
        stream_info::StreamInfo,
    },
    stats::EndReason,
    sys::fault,
};

/// The interim answer to `Expect: 100-continue` (RFC 9110 §15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Connection {
    /// A whole head was read.
    pub(super) fn begin_exchange(
        &mut self,
        parsed: ParsedRequest,
        request: RequestHead,
        response: ResponseHead,
    ) -> Flow {
        self.down.inbound.consume(parsed.head_len);
        fault::point("request");
        let mut exchange = self.new_exchange(request, response);
        exchange.reached = Reached::Manager;
        exchange.keep_alive = parsed.keep_alive;
        exchange.expects_continue = parsed.expect_continue;
        exchange.head_only = exchange.request.method == b"HEAD";
        exchange.upgrade = match parsed.upgrade {
            _ if parsed.connect => Some(Upgrading::Connect),
            Some(token) => Some(Upgrading::Token(token.as_bytes().to_vec())),
            None => None,
        };
        exchange.framing = parsed.framing;
        exchange.request_chunked = parsed.framing == Framing::Chunked;
        if parsed.framing.is_empty() {
            exchange.info.request_received = Some(self.down.now);
        } else {
            exchange.request_body = Some(Decoder::new(parsed.framing));
        }
        if life::told() {
            life::request(self.down.stream_id(), &exchange.request);
        }
        match exchange.decide(&self.down) {
            Ok(passed) => exchange.forward(&mut self.down, passed),
            Err(reply) => exchange.reply(&mut self.down, &reply),
        }
        self.phase = Phase::Exchange(exchange);
        ControlFlow::Continue(true)
    }

    /// Answers what cannot be served.
    pub(super) fn begin_answer(
        &mut self,
        reply: &LocalReply,
        request: RequestHead,
        response: ResponseHead,
    ) {
        let mut exchange = self.new_exchange(request, response);
        exchange.info.request_received = Some(self.down.now);
        // Nobody knows what else the client is about to send.
        exchange.keep_alive = true;
        self.down.close_after(EndReason::Client);
        exchange.reply(&mut self.down, reply);
        self.phase = Phase::Exchange(exchange);
    }

    fn new_exchange(&mut self, request: RequestHead, response: ResponseHead) -> Box<Exchange> {
        self.down.requests += 1;
        self.head_seen = 0;
        let stats = &self.down.hcm.stats;
        stats.downstream_rq_total.inc();
        stats.downstream_rq_http1_total.inc();
        stats.downstream_rq_active.inc();
        let active = &self.down.hcm.thread.active_requests;
        active.set(active.get() + 1);
        let started = self.head_started.take().unwrap_or(self.down.now);
        let begin = (crate::clock::wall(), started);
        let mut info = StreamInfo::new(Rc::clone(&self.down.info), begin, &self.down.hcm.no_name);
        info.protocol = Some(request.version);
        let mut exchange =
            Box::new(Exchange::new(request, response, info, &self.down.hcm.thread.buffers));
        exchange.last_activity = self.down.now;
        exchange
    }
}

impl Exchange {
    /// Policy, filters and routing: `Ok` with a target, or the answer.
    fn decide(&mut self, down: &Downstream) -> Result<Passed, LocalReply> {
        let hcm = &down.hcm;
        self.normalize(down)?;
        let is_connect = self.upgrade == Some(Upgrading::Connect);
        if !is_connect && !self.request.path.starts_with(b"/") {
            hcm.stats.downstream_rq_non_relative_path.inc();
            return Err(LocalReply::new(404, "", "absolute_path_rejected"));
        }
        let random = hcm.thread.random.borrow_mut().u128(..);
        let node = &hcm.thread.bootstrap.node;
        let table = hcm.router.table();
        let (config, peer) = (&hcm.config, down.info.peer);
        let own = &table.configuration().internal_only_headers;
        self.info.remote = forwarded::mutate(config, node, peer, random, own, &mut self.request);
        self.reached = Reached::Filters;
        #[expect(clippy::cast_possible_truncation, reason = "any 64 of the 128 bits will do")]
        let random = random as u64;
        self.choice = Router::find(table, &self.request, random, &mut self.info);
        let passed = self.pass_filters(down)?;
        self.route_onwards(down, passed)
    }

    /// What the router does with a request that came through the filters.
    pub(super) fn route_onwards(
        &mut self,
        down: &Downstream,
        passed: Passed,
    ) -> Result<Passed, LocalReply> {
        if passed == Passed::Held {
            return Ok(passed);
        }
        let hcm = &down.hcm;
        let Self { request, info, choice, .. } = self;
        let target = hcm.router.route(&hcm.thread, &hcm.stats, choice, request, info);
        let target = match &self.upgrade {
            // Where CONNECT leads nowhere there is nothing to allow.
            Some(Upgrading::Connect) => Ok(target?),
            Some(Upgrading::Token(_)) | None => target,
        };
        let allowed = self.check_upgrade(down, target.as_ref().ok());
        self.terminate_connect = allowed.inspect_err(|_| self.info.upstream = None)?;
        let target = target?;
        if life::told() {
            life::routed(down.stream_id(), &self.info.route_name, &target.cluster.name);
        }
        self.target = Some(target);
        Ok(passed)
    }

    fn normalize(&mut self, down: &Downstream) -> Result<(), LocalReply> {
        let config = &down.hcm.config;
        if self.upgrade != Some(Upgrading::Connect) {
            match path::normalize(&mut self.request.path, &down.hcm.path_policy) {
                Ok(Normalized::Unchanged | Normalized::Changed) => {}
                Err(error) => {
                    down.hcm.stats.downstream_rq_failed_path_normalization.inc();
                    return Err(LocalReply::new(400, "", error.details()));
                }
                Ok(Normalized::Redirect) => {
                    down.hcm.stats.downstream_rq_redirected_with_normalized_path.inc();
                    let location = self.request.path.clone();
                    return Err(LocalReply::new(307, "", "path_normalization_redirect")
                        .header(b"location", location));
                }
            }
        }
        let port = down.info.local.map(|local| local.port());
        strip_host_port(config.strip_host_port, port, &mut self.request.authority);
        Ok(())
    }

    /// Refuses a change of protocol that the configuration does not allow; true when a CONNECT
    /// ends here.
    fn check_upgrade(
        &self,
        down: &Downstream,
        target: Option<&Target>,
    ) -> Result<bool, LocalReply> {
        let name: &[u8] = match &self.upgrade {
            None => return Ok(false),
            Some(Upgrading::Connect) => b"connect",
            Some(Upgrading::Token(token)) => token,
        };
        let of_route = target.map_or(&[][..], Target::upgrades);
        let configured = of_route.iter().chain(&down.hcm.config.upgrades);
        let named = |u: &&Upgrade| u.upgrade_type.as_bytes().eq_ignore_ascii_case(name);
        let mut configured = configured.filter(named);
        match configured.next() {
            Some(upgrade) if upgrade.enabled => Ok(upgrade.terminate),
            Some(_) | None => {
                down.hcm.stats.downstream_rq_ws_on_non_ws_route.inc();
                Err(LocalReply::new(403, "", "upgrade_failed"))
            }
        }
    }

    /// Sends the request on its way, if it comes to that already.
    pub(super) fn forward(&mut self, down: &mut Downstream, passed: Passed) {
        let continue_now = self.expects_continue && !down.hcm.config.proxy_100_continue;
        if continue_now {
            // Nobody waits for a "100" whose body is here already.
            if self.request_body.is_some() && down.inbound.is_empty() {
                down.out.extend(CONTINUE);
            }
            self.expects_continue = false;
        } else if self.expects_continue && passed == Passed::Through {
            self.request.headers.append(b"expect", b"100-continue");
        }
        if passed == Passed::Held {
            return;
        }
        self.begin_tries(down);
        self.begin_mirrors(down);
        if self.retained.is_some() && !self.attempt.out.is_empty() {
            // What a filter held back is needed as well.
            self.retain(&self.attempt.out.to_vec());
        }
        if self.request_body.is_none() {
            self.send_mirrors(down);
        }
        self.begin_upstream(down);
    }

    /// Reads the request body (or, after it, watches for the client's end).
    pub(super) fn drive_request(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        if self.response_done() {
            // A client that is still writing may read nothing before it is rid of it.
            let waits = down.closing.is_some() && !down.upgrading && !down.nothing_waits();
            return if waits { down.discard(cx) } else { ControlFlow::Continue(false) };
        }
        let receiving = self.request_body.is_some();
        let is_full = self.attempt.out.len() >= self.high_watermark();
        let paused = receiving && (is_full || self.attempt.bulk.waiting() > 0);
        if paused != self.request_paused {
            self.request_paused(down, paused);
        }
        if paused {
            return ControlFlow::Continue(false);
        }
        if !receiving {
            let watches = down.inbound.is_empty() && !down.read_closed;
            return if watches { down.fill(cx) } else { ControlFlow::Continue(false) };
        }
        match self.receive_body(down, cx) {
            Ok(flow) => flow,
            Err(reply) => {
                self.reply(down, &reply);
                ControlFlow::Continue(true)
            }
        }
    }

    /// Bytes of the body that may wait here before reading from the client stops.
    fn most_waiting(&self) -> usize {
        match self.passage.held() {
            // One more tells that it is too large.
            Some(Hold::Body(limit)) => limit.saturating_add(1),
            Some(Hold::Filter) | None => self.high_watermark(),
        }
    }

    /// Reading from the client stops because the upstream is slow, or goes on.
    fn request_paused(&mut self, down: &mut Downstream, paused: bool) {
        let stats = &down.hcm.stats;
        if paused {
            stats.downstream_flow_control_paused_reading_total.inc();
        } else {
            stats.downstream_flow_control_resumed_reading_total.inc();
        }
        self.request_paused = paused;
    }

    /// Uses what is here of the request body, and reads more when that does not get further.
    fn receive_body(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
    ) -> Result<Flow, LocalReply> {
        if self.pump_request_body(down)? {
            return Ok(ControlFlow::Continue(true));
        }
        if down.read_closed {
            // The client left in the middle of its request.
            return Ok(ControlFlow::Break(EndReason::Client));
        }
        let bulk = if down.inbound.is_empty() { self.request_bulk(&down.socket) } else { None };
        let filled = match bulk {
            Some(left) => self.read_request_bulk(down, cx, left),
            None => down.fill(cx),
        };
        if let ControlFlow::Continue(true) = filled {
            self.last_activity = down.now;
            self.pump_request_body(down)?;
        }
        Ok(filled)
    }

    /// Moves body bytes from the client's buffer to the upstream's; whether there were any that could be
    /// used.
    pub(super) fn pump_request_body(&mut self, down: &mut Downstream) -> Result<bool, LocalReply> {
        let mut moved = false;
        let holds = self.passage.held().is_some();
        let high_watermark = self.most_waiting();
        while let Some(decoder) = &mut self.request_body {
            if down.inbound.is_empty() || self.attempt.out.len() >= high_watermark {
                break;
            }
            let step = decoder
                .decode(down.inbound.data())
                .map_err(|error| LocalReply::rejected(400, error.details()).closing())?;
            if step.consumed == 0 && !step.done {
                break;
            }
            let trailers = step.done.then(|| decoder.take_trailers());
            moved = true;
            self.last_activity = down.now;
            self.info.bytes_received += step.data.len() as u64;
            if self.retained.is_some() {
                self.retain(down.inbound.data().get(step.data.clone()).unwrap_or_default());
            }
            let sink = Some(&mut self.attempt.out).filter(|_| self.target.is_some() || holds);
            let chunked = self.request_chunked && !holds;
            super::response::transfer(&mut down.inbound, &step, chunked, sink);
            if let Some(trailers) = trailers {
                self.request_ended(down, trailers);
            }
        }
        Ok(moved)
    }

    /// All of the body came.
    fn request_ended(&mut self, down: &Downstream, trailers: Headers) {
        let keep = down.hcm.config.enable_trailers;
        let mut trailers = if keep { trailers } else { Headers::default() };
        self.filter_request_trailers(down, &mut trailers);
        if self.request_chunked && self.target.is_some() {
            super::response::finish_chunks(&mut self.attempt.out, &trailers);
        }
        self.request_body = None;
        self.info.request_received = Some(down.now);
        if let Some(retained) = &mut self.retained {
            retained.end(trailers);
            self.send_mirrors(down);
        }
    }
}

/// Envoy's `strip_matching_host_port` and `strip_any_host_port`.
fn strip_host_port(mode: StripHostPort, own: Option<u16>, authority: &mut Vec<u8>) {
    if mode == StripHostPort::No {
        return;
    }
    let Some(colon) = memchr::memrchr(b':', authority) else { return };
    // An IPv6 literal without a port ends with its bracket.
    let port = authority.get(colon + 1..).and_then(|port| std::str::from_utf8(port).ok());
    let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) else { return };
    if mode == StripHostPort::Any || Some(port) == own {
        authority.truncate(colon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_port_is_stripped_only_when_asked_for() {
        let check = |mode, host: &str, expected: &str| {
            let mut authority = host.as_bytes().to_vec();
            strip_host_port(mode, Some(8080), &mut authority);
            assert_eq!(String::from_utf8(authority).unwrap(), expected);
        };
        check(StripHostPort::No, "a:8080", "a:8080");
        check(StripHostPort::Matching, "a:8080", "a");
        check(StripHostPort::Matching, "a:80", "a:80");
        check(StripHostPort::Any, "a:80", "a");
        check(StripHostPort::Any, "[::1]", "[::1]");
        check(StripHostPort::Any, "[::1]:9", "[::1]");
    }
}

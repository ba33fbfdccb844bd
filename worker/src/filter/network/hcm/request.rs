//! The request side of an exchange: from a parsed head to a decision, then the body upstream.

use std::{ops::ControlFlow, rc::Rc, task::Context};

use super::{
    connection::{Connection, Flow, Phase},
    exchange::{Exchange, Upgrading},
};
use crate::{
    config::hcm::StripHostPort,
    filter::http::{Verdict, router::Target},
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
};

/// Bytes that may wait to be written on either side before reading on the other side stops, at
/// most; the configuration may say less. Four reads' worth keeps both sockets busy.
const HIGH_WATERMARK: usize = 256 * 1024;

/// The watermark for a configured limit; 0 is no limit, as in Envoy.
pub(super) fn high_watermark(limit_bytes: usize) -> usize {
    if limit_bytes == 0 { HIGH_WATERMARK } else { limit_bytes.min(HIGH_WATERMARK) }
}

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
        self.inbound.consume(parsed.head_len);
        let mut exchange = self.new_exchange(request, response);
        exchange.keep_alive = parsed.keep_alive;
        exchange.expects_continue = parsed.expect_continue;
        exchange.head_only = exchange.request.method == b"HEAD";
        exchange.upgrade = match parsed.upgrade {
            _ if parsed.connect => Some(Upgrading::Connect),
            Some(token) if token.as_bytes() != b"h2c" => {
                Some(Upgrading::Token(token.as_bytes().to_vec()))
            }
            Some(_) | None => None,
        };
        exchange.framing = parsed.framing;
        exchange.request_chunked = parsed.framing == Framing::Chunked;
        if parsed.framing.is_empty() {
            exchange.info.request_received = Some(self.now);
        } else {
            exchange.request_body = Some(Decoder::new(parsed.framing));
        }
        match self.decide(&mut exchange) {
            Ok(()) => self.forward(exchange),
            Err(reply) => {
                self.phase = Phase::Exchange(exchange);
                self.reply(&reply);
            }
        }
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
        exchange.info.request_received = Some(self.now);
        self.phase = Phase::Exchange(exchange);
        self.reply(reply);
    }

    fn new_exchange(&mut self, request: RequestHead, response: ResponseHead) -> Box<Exchange> {
        self.requests += 1;
        self.head_seen = 0;
        let stats = &self.hcm.stats;
        stats.downstream_rq_total.inc();
        stats.downstream_rq_http1_total.inc();
        stats.downstream_rq_active.inc();
        let active = &self.hcm.thread.active_requests;
        active.set(active.get() + 1);
        let started = self.head_started.take().unwrap_or(self.now);
        let begin = (crate::clock::wall(), started);
        let mut info = StreamInfo::new(Rc::clone(&self.info), begin, &self.hcm.no_name);
        info.protocol = Some(request.version);
        let mut exchange =
            Box::new(Exchange::new(request, response, info, &self.hcm.thread.buffers));
        exchange.last_activity = self.now;
        exchange.body_started = self.now;
        exchange
    }

    /// Policy, filters and routing: `Ok` with a target, or the answer.
    fn decide(&self, exchange: &mut Exchange) -> Result<(), LocalReply> {
        let hcm = &self.hcm;
        self.normalize(exchange)?;
        let random = hcm.thread.random.borrow_mut().u128(..);
        let cluster = &hcm.thread.bootstrap.node.cluster;
        exchange.info.remote =
            forwarded::mutate(&hcm.config, cluster, self.info.peer, random, &mut exchange.request);
        let Exchange { request, info, .. } = exchange;
        if let Verdict::Reply(reply) = hcm.chain.on_request(request, info) {
            return Err(reply);
        }
        #[expect(clippy::cast_possible_truncation, reason = "any 64 of the 128 bits will do")]
        let random = random as u64;
        let (route, target) = hcm.router.route(&hcm.thread, &hcm.stats, random, request, info);
        exchange.route = route;
        let target = target?;
        exchange.terminate_connect = self.check_upgrade(exchange, &target)?;
        exchange.target = Some(target);
        Ok(())
    }

    fn normalize(&self, exchange: &mut Exchange) -> Result<(), LocalReply> {
        let config = &self.hcm.config;
        if exchange.upgrade != Some(Upgrading::Connect) {
            match path::normalize(&mut exchange.request.path, &self.hcm.path_policy) {
                Ok(Normalized::Unchanged | Normalized::Changed) => {}
                Err(error) => {
                    self.hcm.stats.downstream_rq_failed_path_normalization.inc();
                    return Err(LocalReply::new(400, "", error.details()));
                }
                Ok(Normalized::Redirect) => {
                    self.hcm.stats.downstream_rq_redirected_with_normalized_path.inc();
                    let location = exchange.request.path.clone();
                    return Err(LocalReply::new(307, "", "path_normalization_redirect")
                        .header(b"location", location));
                }
            }
        }
        let port = self.info.local.map(|local| local.port());
        strip_host_port(config.strip_host_port, port, &mut exchange.request.authority);
        Ok(())
    }

    /// Refuses a change of protocol that the configuration does not allow; true when a CONNECT
    /// ends here.
    fn check_upgrade(&self, exchange: &Exchange, target: &Target) -> Result<bool, LocalReply> {
        let name: &[u8] = match &exchange.upgrade {
            None => return Ok(false),
            Some(Upgrading::Connect) => b"connect",
            Some(Upgrading::Token(token)) => token,
        };
        let configured = target.upgrades().iter().chain(&self.hcm.config.upgrades);
        let mut configured = configured.filter(|u| u.upgrade_type.as_bytes() == name);
        match configured.next() {
            Some(upgrade) if upgrade.enabled => Ok(upgrade.terminate),
            Some(_) | None => {
                self.hcm.stats.downstream_rq_ws_on_non_ws_route.inc();
                Err(LocalReply::new(403, "", "upgrade_failed"))
            }
        }
    }

    /// Sends the request on its way.
    fn forward(&mut self, mut exchange: Box<Exchange>) {
        let continue_now = exchange.expects_continue && !self.hcm.config.proxy_100_continue;
        if continue_now {
            // Nobody waits for a "100" whose body is here already.
            if exchange.request_body.is_some() && self.inbound.is_empty() {
                self.out.extend(CONTINUE);
            }
            exchange.expects_continue = false;
        } else if exchange.expects_continue {
            exchange.request.headers.append(b"expect", b"100-continue");
        }
        self.phase = Phase::Exchange(exchange);
        self.begin_upstream();
    }

    /// Reads the request body (or, after it, watches for the client's end).
    pub(super) fn drive_request(&mut self, cx: &mut Context<'_>) -> Flow {
        let Phase::Exchange(exchange) = &self.phase else { return ControlFlow::Continue(false) };
        if exchange.response_done() {
            // Whatever the client still sends is for the lingering close.
            return ControlFlow::Continue(false);
        }
        let receiving = exchange.request_body.is_some();
        let is_full = exchange.up_out.len() >= exchange.high_watermark();
        if receiving && (is_full || exchange.up_bulk.waiting() > 0) {
            return ControlFlow::Continue(false);
        }
        let mut moved = false;
        if self.inbound.is_empty() && !self.read_closed {
            moved = match exchange.request_bulk(&self.socket) {
                Some(left) => self.read_request_bulk(cx, left)?,
                None => self.fill(cx)?,
            };
        }
        if !receiving {
            return ControlFlow::Continue(moved);
        }
        if self.inbound.is_empty() && self.read_closed {
            // The client left in the middle of its request.
            return ControlFlow::Break(EndReason::Client);
        }
        match self.pump_request_body() {
            Ok(pumped) => ControlFlow::Continue(moved || pumped),
            Err(reply) => {
                self.reply(&reply);
                ControlFlow::Continue(true)
            }
        }
    }

    /// Moves body bytes from the client's buffer to the upstream's.
    pub(super) fn pump_request_body(&mut self) -> Result<bool, LocalReply> {
        let Phase::Exchange(exchange) = &mut self.phase else { return Ok(false) };
        let exchange = &mut **exchange;
        let mut moved = false;
        let high_watermark = exchange.high_watermark();
        while let Some(decoder) = &mut exchange.request_body {
            if self.inbound.is_empty() || exchange.up_out.len() >= high_watermark {
                break;
            }
            moved = true;
            exchange.last_activity = self.now;
            let step = decoder
                .decode(self.inbound.data())
                .map_err(|error| LocalReply::rejected(400, error.details()).closing())?;
            if step.consumed == 0 && !step.done {
                break;
            }
            let data = step.data.len();
            exchange.info.bytes_received += data as u64;
            let sink = Some(&mut exchange.up_out).filter(|_| exchange.target.is_some());
            super::response::transfer(&mut self.inbound, &step, exchange.request_chunked, sink);
            if step.done {
                let keep = self.hcm.config.enable_trailers;
                let trailers = if keep { decoder.take_trailers() } else { Headers::default() };
                if exchange.request_chunked && exchange.target.is_some() {
                    super::response::finish_chunks(&mut exchange.up_out, &trailers);
                }
                exchange.request_body = None;
                exchange.info.request_received = Some(self.now);
            }
        }
        Ok(moved)
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

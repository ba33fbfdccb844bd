//! The upstream side of an exchange: a connection, the request on it, the response from it.

use std::{
    io,
    ops::ControlFlow,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    attempt::{Attempt, Link},
    connecting::Source,
    connection::Flow,
    downstream::Downstream,
    exchange::{Exchange, ResponseState},
    posting,
    response::{finish_chunks, transfer},
};
use crate::{
    buffer::BUFFER_BYTES,
    filter::network::life,
    http::{
        h1::{
            self, Framing,
            body::Decoder,
            response::{Follows, ParsedResponse},
        },
        head::Version,
        headers::Headers,
        local_reply::{LocalReply, ResetReason},
        stream_info::UpstreamInfo,
    },
    progress,
    route::retry::ResetKind,
    stats::EndReason,
};

/// Interim responses that are swallowed before the upstream is taken for hostile.
const INTERIM_MAX: u32 = 10;

impl Exchange {
    /// Everything it can do now.
    pub(super) fn drive(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        if self.passage.held().is_some() {
            return self.drive_held(down, cx);
        }
        let request = self.drive_request(down, cx)?;
        let upstream = self.drive_attempt(down, cx)?;
        let hedge = self.drive_hedge(down, cx)?;
        ControlFlow::Continue(request || upstream || hedge)
    }

    /// Chooses the endpoint and gets a connection to it.
    pub(super) fn begin_upstream(&mut self, down: &mut Downstream) {
        if !self.choose_endpoint(down) {
            return;
        }
        // A small body rides in the same write as the head.
        match self.pump_request_body(down) {
            Ok(_) => self.connect_upstream(down, Source::Pool),
            Err(reply) => {
                // It got no further than its route.
                self.info.upstream = None;
                self.reply(down, &reply);
            }
        }
    }

    /// Begins a further try.
    pub(super) fn begin_attempt(&mut self, down: &mut Downstream, source: Source) {
        if self.choose_endpoint(down) {
            self.connect_upstream(down, source);
        }
    }

    /// Chooses the endpoint and makes the request one for it; false when there is none.
    fn choose_endpoint(&mut self, down: &mut Downstream) -> bool {
        let Some(target) = &self.target else { return false };
        let cluster = Rc::clone(&target.cluster);
        let Some(endpoint) = self.pick(&cluster) else {
            if self.leaves_it_to_others() {
                return false;
            }
            cluster.stats.upstream_cx_none_healthy.inc();
            let upstream = &mut self.info.upstream;
            upstream.get_or_insert_with(|| UpstreamInfo::new(&cluster.name)).attempt(None);
            self.reply(down, &LocalReply::no_healthy_upstream());
            return false;
        };
        let Some(target) = &self.target else { return false };
        let name = endpoint.info.hostname.as_bytes();
        down.hcm.router.finalize_for_endpoint(&mut self.request, target, name);
        self.attempt.endpoint = Some(endpoint);
        self.count_attempt(down);
        true
    }

    /// Does what the try in place can do now.
    pub(super) fn drive_attempt(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        match &mut self.attempt.link {
            Link::None => ControlFlow::Continue(false),
            Link::Opening(opening, _) => {
                let Poll::Ready(result) = opening.connecting.poll(cx) else {
                    return ControlFlow::Continue(false);
                };
                self.connect_ended(down, result);
                ControlFlow::Continue(true)
            }
            Link::Active(_) => {
                let wrote = self.write_upstream(down, cx);
                let read = self.read_upstream(down, cx)?;
                ControlFlow::Continue(wrote || read)
            }
        }
    }

    fn write_upstream(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> bool {
        let Link::Active(active) = &self.attempt.link else { return false };
        if self.attempt.is_written() || active.write_failed {
            return false;
        }
        let is_all = self.request_body.is_none() && self.upgrade.is_none();
        let written = self.attempt.poll_write(is_all, &mut down.posted, cx);
        let Link::Active(active) = &mut self.attempt.link else { return false };
        match written {
            Poll::Pending => false,
            Poll::Ready(Ok(count)) => {
                active.wrote = true;
                let uncounted = posting::uncounted(count, &mut active.returned);
                self.info.upstream_first_sent.get_or_insert(down.now);
                self.endpoint_moved(down.now);
                if let Some(target) = &self.target {
                    target.cluster.stats.upstream_cx_tx_bytes_total.add(uncounted);
                }
                // Otherwise there is nothing more to write, and nothing waited for the room.
                self.request_body.is_some() || !self.attempt.is_written()
            }
            Poll::Ready(Err(_)) => {
                // An answer may have come before the upstream closed; reading will tell.
                active.write_failed = true;
                true
            }
        }
    }

    fn read_upstream(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        let paused = down.out.len() >= down.high_watermark || down.waits_in_pipe() > 0;
        if paused != self.response_paused {
            self.count_response_paused(paused);
        }
        // What follows the answer to an upgrade is for the tunnel.
        if paused || down.upgrading {
            return ControlFlow::Continue(false);
        }
        if let Some(flow) = self.read_paced(down) {
            return flow;
        }
        if let Some(left) = self.response_bulk(down) {
            return self.read_bulk(down, cx, left);
        }
        let Link::Active(active) = &mut self.attempt.link else {
            return ControlFlow::Continue(false);
        };
        let limit = down.hcm.upstream_limits.max_head_bytes.max(BUFFER_BYTES) + 1;
        match self.attempt.inbound.poll_fill(cx, &mut active.connection.stream, limit) {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(count)) if count > 0 => {
                self.info.upstream_first_received.get_or_insert(down.now);
                self.endpoint_moved(down.now);
                if let Some(target) = &self.target {
                    target.cluster.stats.upstream_cx_rx_bytes_total.add(count as u64);
                }
                self.use_response_bytes(down)?;
                self.read_more_bulk(down, cx)
            }
            Poll::Ready(result) => {
                self.upstream_ended(down, result.err().as_ref());
                ControlFlow::Continue(true)
            }
        }
    }

    /// The upstream closed or reset the connection.
    pub(super) fn upstream_ended(&mut self, down: &mut Downstream, error: Option<&io::Error>) {
        if let Link::Active(active) = &mut self.attempt.link {
            active.connection.counted.ended_by_endpoint();
        }
        if let ResponseState::Streaming { decoder, chunked } = &mut self.response_state {
            if error.is_none() && decoder.end_of_input().is_ok() {
                if *chunked {
                    finish_chunks(&mut down.out, &Headers::default());
                }
                self.response_received(down);
                return;
            }
            self.count_protocol_error();
            self.cut_response(down);
            return;
        }
        let kind = if self.attempt.wrote() { ResetKind::Reset } else { ResetKind::BeforeRequest };
        if self.may_retry() && !self.retries(kind) {
            self.retry_stale(down);
            return;
        }
        self.attempt.count_error();
        let reason = if self.attempt.inbound.is_empty() {
            ResetReason::ConnectionTermination
        } else {
            self.count_protocol_error();
            ResetReason::ProtocolError
        };
        self.attempt_failed(down, kind, &LocalReply::upstream_reset(reason));
    }

    /// Sends the request again on a new connection: the pooled one was closed before it came.
    fn retry_stale(&mut self, down: &mut Downstream) {
        if life::told() {
            life::upstream(down.stream_id(), None, "the kept connection was closed, sent again");
        }
        self.retried = true;
        if let Some(upstream) = &mut self.info.upstream {
            upstream.attempts += 1;
        }
        let next = Attempt::new(&down.hcm.thread.buffers);
        let mut stale = std::mem::replace(&mut self.attempt, next);
        if !stale.wrote() {
            stale.take_head();
            self.attempt.out = stale.out;
        }
        drop(stale.link);
        if let Some(target) = &self.target {
            target.cluster.stats.upstream_rq_retry.inc();
        }
        self.begin_attempt(down, Source::New);
    }

    /// Parses the head(s) and moves body bytes to the client.
    pub(super) fn use_response_bytes(&mut self, down: &mut Downstream) -> Flow {
        let turned = progress::drive(|| {
            let goes_on = !self.response_done() && !self.attempt.inbound.is_empty();
            ControlFlow::<EndReason, _>::Continue(if !goes_on {
                false
            } else if self.response_waiting() {
                self.read_response_head(down)
            } else {
                self.read_response_body(down)
            })
        });
        match turned {
            Ok(ControlFlow::Continue(())) => ControlFlow::Continue(true),
            Ok(ControlFlow::Break(reason)) => ControlFlow::Break(reason),
            Err(stuck) => ControlFlow::Break(self.give_up(down, stuck)),
        }
    }

    fn read_response_head(&mut self, down: &mut Downstream) -> bool {
        self.response.clear();
        let parsed = h1::response::parse(
            self.attempt.inbound.data(),
            &down.hcm.upstream_limits,
            self.answers(),
            &mut self.response,
        );
        let parsed = match parsed {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return false,
            Err(error) => {
                tracing::debug!(%error, "bad response from upstream");
                self.attempt.count_error();
                self.count_protocol_error();
                self.protocol_error(down);
                return false;
            }
        };
        self.attempt.inbound.consume(parsed.head_len);
        if parsed.follows == Follows::Tunnel && !self.switches_to(parsed.upgrade) {
            tracing::debug!("the upstream switches to another protocol than it was asked for");
            self.attempt.count_error();
            self.protocol_error(down);
            return false;
        }
        match parsed.follows {
            Follows::Tunnel => self.begin_tunnel(down),
            Follows::AnotherHead => self.interim_response(down),
            Follows::Body => self.begin_response(down, &parsed),
        }
    }

    /// The answer is none of HTTP.
    fn protocol_error(&mut self, down: &mut Downstream) {
        let reply = LocalReply::upstream_reset(ResetReason::ProtocolError);
        self.attempt_failed(down, ResetKind::Reset, &reply);
    }

    /// A 1xx response: passed on when asked for, else swallowed.
    fn interim_response(&mut self, down: &mut Downstream) -> bool {
        self.attempt.interim += 1;
        if self.attempt.interim > INTERIM_MAX {
            self.count_protocol_error();
            self.protocol_error(down);
            return false;
        }
        if self.expects_continue && self.response.status == 100 {
            self.expects_continue = false;
            down.out.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        true
    }

    fn begin_response(&mut self, down: &mut Downstream, parsed: &ParsedResponse) -> bool {
        if let Link::Active(active) = &mut self.attempt.link {
            active.keep_alive = parsed.keep_alive;
        }
        if self.refuses_answer(down) {
            return false;
        }
        self.end_tries();
        self.info.details = "via_upstream".into();
        self.count_response();
        let http10 = self.request.version == Version::Http10;
        let chunked = !http10 && matches!(parsed.framing, Framing::Chunked | Framing::UntilClose);
        let decoder = Decoder::new(parsed.framing);
        let has_body = !parsed.framing.is_empty();
        self.length = parsed.content_length;
        let framing = match parsed.framing {
            Framing::UntilClose if chunked => Framing::Chunked,
            framing @ (Framing::None
            | Framing::Length(_)
            | Framing::Chunked
            | Framing::UntilClose) => framing,
        };
        self.response_state = ResponseState::Streaming { decoder, chunked };
        self.send_head(down, framing);
        if !has_body {
            self.response_received(down);
        }
        true
    }

    fn read_response_body(&mut self, down: &mut Downstream) -> bool {
        let pace = self.response_pace(down);
        if pace == Some(0) {
            return false;
        }
        let ResponseState::Streaming { decoder, chunked } = &mut self.response_state else {
            return false;
        };
        let chunked = *chunked;
        let data = self.attempt.inbound.data();
        let data = pace.and_then(|most| data.get(..most)).unwrap_or(data);
        let Ok(step) = decoder.decode(data) else {
            self.count_protocol_error();
            self.cut_response(down);
            return false;
        };
        self.info.bytes_sent += step.data.len() as u64;
        if pace.is_some() {
            self.passage.passed(step.consumed);
        }
        let done = step.done;
        transfer(&mut self.attempt.inbound, &step, chunked, Some(&mut down.out));
        if done {
            if chunked {
                if down.hcm.config.enable_trailers {
                    self.trailers = decoder.take_trailers();
                    self.filter_response_trailers(down);
                }
                finish_chunks(&mut down.out, &self.trailers);
            }
            self.response_received(down);
        }
        step.consumed > 0
    }

    /// The whole response is in the queue: the upstream connection is free, if it can be.
    pub(super) fn response_received(&mut self, down: &mut Downstream) {
        self.response_state = ResponseState::Done;
        self.info.upstream_last_received = Some(down.now);
        // Of a request that has not come whole the client was told that it is the last one.
        let early = self.request_body.is_some() || !self.attempt.is_written();
        let Some(target) = &self.target else { return };
        let Some(connection) = self.attempt.finish(&target.cluster, early) else { return };
        match down.belongs.successor.as_ref().and_then(|s| Rc::clone(&s.filter).as_hcm()) {
            // The cluster of an older configuration has no use for it.
            Some(home) => drop(home.thread.keep(&target.cluster.name, connection, down.now)),
            None => target.cluster.pool.borrow_mut().put(connection, down.now),
        }
    }

    /// The protocol changes: from here on bytes flow both ways.
    pub(super) fn begin_tunnel(&mut self, down: &mut Downstream) -> bool {
        self.info.details = "via_upstream".into();
        self.count_response();
        down.upgrading = true;
        self.send_head(down, Framing::None);
        self.response_state = ResponseState::Done;
        false
    }
}

//! The upstream side of an exchange: a connection, the request on it, the response from it.

use std::{
    io,
    ops::ControlFlow,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    connection::{Connection, Flow, Phase},
    exchange::{ResponseState, Upstream},
    posting,
    response::{finish_chunks, transfer},
};
use crate::{
    buffer::BUFFER_BYTES,
    http::{
        h1::{
            self, Framing,
            body::Decoder,
            response::{Follows, ParsedResponse},
        },
        head::Version,
        headers::Headers,
        local_reply::{LocalReply, ResetReason},
        stream_info::ResponseFlags,
    },
    route,
    stats::EndReason,
    upstream::{connect::Connecting, pool::ActiveGauge},
};

/// Interim responses that are swallowed before the upstream is taken for hostile.
const INTERIM_MAX: u32 = 10;

/// Where an upstream connection comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    /// The pool, if it has one.
    Pool,
    /// A new one, because a pooled one turned out to be stale.
    New,
}

impl Connection {
    /// Everything an exchange can do now.
    pub(super) fn drive_exchange(&mut self, cx: &mut Context<'_>) -> Flow {
        let request = self.drive_request(cx)?;
        let upstream = self.drive_upstream(cx)?;
        ControlFlow::Continue(request || upstream)
    }

    /// Chooses the endpoint, writes the head for it, and gets a connection.
    pub(super) fn begin_upstream(&mut self) {
        if !self.choose_endpoint() {
            return;
        }
        // A small body rides in the same write as the head.
        match self.pump_request_body() {
            Ok(_) => self.connect_upstream(Source::Pool),
            Err(reply) => self.reply(&reply),
        }
    }

    /// Chooses the endpoint and writes the request head for it; false when there is none.
    fn choose_endpoint(&mut self) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        let exchange = &mut **exchange;
        let Some(target) = &exchange.target else { return false };
        let stats = &target.cluster.stats;
        let Some(endpoint) = target.cluster.pick() else {
            stats.upstream_cx_none_healthy.inc();
            self.reply(&LocalReply::no_healthy_upstream());
            return false;
        };
        stats.upstream_rq_total.inc();
        if exchange.active_gauge.is_none() {
            exchange.active_gauge = Some(ActiveGauge::new(&stats.upstream_rq_active));
        }
        if let Some(action) = target.action() {
            route::auto_host(&mut exchange.request, action, endpoint.info.hostname.as_bytes());
        }
        exchange.endpoint = Some(endpoint);
        if exchange.up_out.is_empty() && !exchange.terminate_connect {
            exchange.write_request_head(&self.hcm.thread);
        }
        true
    }

    /// Takes a connection from the pool or starts a new one.
    fn connect_upstream(&mut self, source: Source) {
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        let (Some(target), Some(endpoint)) = (&exchange.target, &exchange.endpoint) else { return };
        let cluster = &target.cluster;
        let from_pool = source == Source::Pool && !exchange.terminate_connect;
        let pooled = if from_pool { cluster.pool.borrow_mut().take(endpoint) } else { None };
        if let Some(connection) = pooled {
            exchange.use_connection(connection, true);
            return;
        }
        match Connecting::start(endpoint, &cluster.state.config) {
            Ok(connecting) => {
                let until = self.now + cluster.state.config.connect_timeout;
                exchange.upstream = Upstream::Connecting(Box::new(connecting), until);
            }
            Err(error) => {
                tracing::debug!(cluster = &*cluster.name, %error, "cannot connect");
                self.connect_failed(ResetReason::ConnectionFailure);
            }
        }
    }

    pub(super) fn connect_failed(&mut self, reason: ResetReason) {
        if let Phase::Exchange(exchange) = &self.phase
            && let Some(target) = &exchange.target
        {
            target.cluster.stats.upstream_cx_connect_fail.inc();
            if reason == ResetReason::ConnectionTimeout {
                target.cluster.stats.upstream_cx_connect_timeout.inc();
            }
        }
        self.reply(&LocalReply::upstream_reset(reason));
    }

    fn drive_upstream(&mut self, cx: &mut Context<'_>) -> Flow {
        let Phase::Exchange(exchange) = &mut self.phase else {
            return ControlFlow::Continue(false);
        };
        match &mut exchange.upstream {
            Upstream::None => ControlFlow::Continue(false),
            Upstream::Connecting(connecting, _) => {
                let Poll::Ready(result) = connecting.poll(cx) else {
                    return ControlFlow::Continue(false);
                };
                match result {
                    Ok(stream) if exchange.terminate_connect => {
                        exchange.connected(stream, self.now);
                        exchange.response.status = 200;
                        self.begin_tunnel();
                    }
                    Ok(stream) => exchange.connected(stream, self.now),
                    Err(_) => self.connect_failed(ResetReason::ConnectionFailure),
                }
                ControlFlow::Continue(true)
            }
            Upstream::Active(_) => {
                let wrote = self.write_upstream(cx);
                let read = self.read_upstream(cx)?;
                ControlFlow::Continue(wrote || read)
            }
        }
    }

    fn write_upstream(&mut self, cx: &mut Context<'_>) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        let exchange = &mut **exchange;
        let Upstream::Active(active) = &exchange.upstream else { return false };
        if exchange.request_is_written() || active.write_failed {
            return false;
        }
        let written = exchange.poll_write(&mut self.posted, cx);
        let Upstream::Active(active) = &mut exchange.upstream else { return false };
        match written {
            Poll::Pending => false,
            Poll::Ready(Ok(count)) => {
                active.wrote = true;
                let uncounted = posting::uncounted(count, &mut active.returned);
                exchange.info.upstream_first_sent.get_or_insert(self.now);
                exchange.last_activity = self.now;
                if let Some(target) = &exchange.target {
                    target.cluster.stats.upstream_cx_tx_bytes_total.add(uncounted);
                }
                // Otherwise there is nothing more to write, and nothing waited for the room.
                exchange.request_body.is_some() || !exchange.request_is_written()
            }
            Poll::Ready(Err(_)) => {
                // An answer may have come before the upstream closed; reading will tell.
                active.write_failed = true;
                true
            }
        }
    }

    fn read_upstream(&mut self, cx: &mut Context<'_>) -> Flow {
        let Phase::Exchange(exchange) = &mut self.phase else {
            return ControlFlow::Continue(false);
        };
        let exchange = &mut **exchange;
        if self.out.len() >= self.high_watermark || exchange.bulk.waiting() > 0 {
            return ControlFlow::Continue(false);
        }
        if let Some(left) = exchange.response_bulk(&self.socket) {
            return self.read_bulk(cx, left);
        }
        let Upstream::Active(active) = &mut exchange.upstream else {
            return ControlFlow::Continue(false);
        };
        let limit = self.hcm.upstream_limits.max_head_bytes.max(BUFFER_BYTES) + 1;
        match exchange.up_in.poll_fill(cx, &mut active.connection.stream, limit) {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(count)) if count > 0 => {
                exchange.info.upstream_first_received.get_or_insert(self.now);
                exchange.last_activity = self.now;
                if let Some(target) = &exchange.target {
                    target.cluster.stats.upstream_cx_rx_bytes_total.add(count as u64);
                }
                self.use_response_bytes()?;
                self.read_more_bulk(cx)
            }
            Poll::Ready(result) => {
                self.upstream_ended(result.err().as_ref());
                ControlFlow::Continue(true)
            }
        }
    }

    /// The upstream closed or reset the connection.
    pub(super) fn upstream_ended(&mut self, error: Option<&io::Error>) {
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        let exchange = &mut **exchange;
        if let ResponseState::Streaming { decoder, chunked } = &mut exchange.response_state {
            if error.is_none() && decoder.end_of_input().is_ok() {
                if *chunked {
                    finish_chunks(&mut self.out, &Headers::default());
                }
                self.response_received();
                return;
            }
            exchange.info.flags.set(ResponseFlags::UPSTREAM_TERMINATION);
            exchange.info.details = "upstream_reset_after_response_started".into();
            self.cut(EndReason::Upstream);
            return;
        }
        if exchange.may_retry() {
            self.retry_stale();
        } else {
            exchange.count_error();
            self.reply(&LocalReply::upstream_reset(ResetReason::ConnectionTermination));
        }
    }

    /// Sends the request again on a new connection: the pooled one was closed before it came.
    fn retry_stale(&mut self) {
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        let wrote = match &exchange.upstream {
            Upstream::Active(active) => active.wrote,
            Upstream::None | Upstream::Connecting(..) => false,
        };
        exchange.retried = true;
        exchange.upstream = Upstream::None;
        exchange.up_in = crate::buffer::Inbound::new(&self.hcm.thread.buffers);
        if let Some(target) = &exchange.target {
            target.cluster.stats.upstream_rq_retry.inc();
        }
        if wrote {
            exchange.clear_request();
        }
        if self.choose_endpoint() {
            self.connect_upstream(Source::New);
        }
    }

    /// Parses the head(s) and moves body bytes to the client.
    fn use_response_bytes(&mut self) -> Flow {
        loop {
            let Phase::Exchange(exchange) = &mut self.phase else {
                return ControlFlow::Continue(true);
            };
            if exchange.response_done() || exchange.up_in.is_empty() {
                return ControlFlow::Continue(true);
            }
            let moved = if exchange.response_waiting() {
                self.read_response_head()
            } else {
                self.read_response_body()
            };
            if !moved {
                return ControlFlow::Continue(true);
            }
        }
    }

    fn read_response_head(&mut self) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        let exchange = &mut **exchange;
        exchange.response.clear();
        let parsed = h1::response::parse(
            exchange.up_in.data(),
            &self.hcm.upstream_limits,
            exchange.answers(),
            &mut exchange.response,
        );
        let parsed = match parsed {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return false,
            Err(error) => {
                tracing::debug!(%error, "bad response from upstream");
                exchange.count_error();
                self.reply(&LocalReply::upstream_reset(ResetReason::ProtocolError));
                return false;
            }
        };
        exchange.up_in.consume(parsed.head_len);
        match parsed.follows {
            Follows::Tunnel => self.begin_tunnel(),
            Follows::AnotherHead => self.interim_response(),
            Follows::Body => self.begin_response(&parsed),
        }
    }

    /// A 1xx response: passed on when asked for, else swallowed.
    fn interim_response(&mut self) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        exchange.interim += 1;
        if exchange.interim > INTERIM_MAX {
            self.reply(&LocalReply::upstream_reset(ResetReason::ProtocolError));
            return false;
        }
        if exchange.expects_continue && exchange.response.status == 100 {
            exchange.expects_continue = false;
            self.out.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        true
    }

    fn begin_response(&mut self, parsed: &ParsedResponse) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        let exchange = &mut **exchange;
        if let Upstream::Active(active) = &mut exchange.upstream {
            active.keep_alive = parsed.keep_alive;
        }
        exchange.info.details = "via_upstream".into();
        exchange.count_response();
        let http10 = exchange.request.version == Version::Http10;
        let chunked = !http10 && matches!(parsed.framing, Framing::Chunked | Framing::UntilClose);
        let decoder = Decoder::new(parsed.framing);
        let has_body = !parsed.framing.is_empty();
        exchange.length = parsed.content_length;
        let framing = match parsed.framing {
            Framing::UntilClose if chunked => Framing::Chunked,
            framing @ (Framing::None
            | Framing::Length(_)
            | Framing::Chunked
            | Framing::UntilClose) => framing,
        };
        exchange.response_state = ResponseState::Streaming { decoder, chunked };
        self.send_head(framing);
        if !has_body {
            self.response_received();
        }
        true
    }

    fn read_response_body(&mut self) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        let exchange = &mut **exchange;
        let ResponseState::Streaming { decoder, chunked } = &mut exchange.response_state else {
            return false;
        };
        let chunked = *chunked;
        let Ok(step) = decoder.decode(exchange.up_in.data()) else {
            exchange.info.flags.set(ResponseFlags::UPSTREAM_PROTOCOL_ERROR);
            exchange.info.details = "upstream_reset_after_response_started{protocol_error}".into();
            exchange.upstream = Upstream::None;
            self.cut(EndReason::Upstream);
            return false;
        };
        exchange.info.bytes_sent += step.data.len() as u64;
        let done = step.done;
        transfer(&mut exchange.up_in, &step, chunked, Some(&mut self.out));
        if done {
            if chunked {
                if self.hcm.config.enable_trailers {
                    exchange.trailers = decoder.take_trailers();
                }
                finish_chunks(&mut self.out, &exchange.trailers);
            }
            self.response_received();
        }
        step.consumed > 0
    }

    /// The whole response is in the queue: the upstream connection is free, if it can be.
    pub(super) fn response_received(&mut self) {
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        let exchange = &mut **exchange;
        exchange.response_state = ResponseState::Done;
        exchange.info.upstream_last_received = Some(self.now);
        let early = exchange.request_body.is_some() || !exchange.request_is_written();
        if early {
            // The rest of the request has nowhere to go; the client must not reuse its connection.
            self.closing.get_or_insert(EndReason::Client);
        }
        let Upstream::Active(active) = std::mem::replace(&mut exchange.upstream, Upstream::None)
        else {
            return;
        };
        let Some(target) = &exchange.target else { return };
        let max = target.cluster.state.config.max_requests_per_connection;
        let worn = max.is_some_and(|max| active.connection.requests >= max);
        if active.keep_alive && !early && !active.write_failed && exchange.up_in.is_empty() && !worn
        {
            match self.belongs.successor.as_ref().and_then(|s| Rc::clone(&s.filter).as_hcm()) {
                // The cluster of an older configuration has no use for it.
                Some(home) => {
                    home.thread.keep(&target.cluster.name, active.connection, self.now);
                }
                None => target.cluster.pool.borrow_mut().put(active.connection, self.now),
            }
        }
    }

    /// The protocol changes: from here on bytes flow both ways.
    fn begin_tunnel(&mut self) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        exchange.count_response();
        self.upgrading = true;
        self.send_head(Framing::None);
        let Phase::Exchange(exchange) = &mut self.phase else { return false };
        exchange.response_state = ResponseState::Done;
        false
    }
}

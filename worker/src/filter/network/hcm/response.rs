//! The downstream side of a response: local replies, heads and body bytes for the client.

use super::{
    attempt::Link,
    downstream::Downstream,
    exchange::{Exchange, Reached, ResponseState, Upgrading},
};
use crate::{
    buffer::{Inbound, Outbound},
    config::hcm::{HttpConnectionManager, ServerHeader},
    filter::{http::router::Answer, network::life},
    http::{
        grpc,
        h1::{self, Framing, body::Step},
        head::Version,
        headers::Headers,
        local_reply::LocalReply,
        stream_info::{LogContext, ResponseFlags},
    },
    stats::EndReason,
};

impl Exchange {
    /// Answers without the upstream, or cuts the response when its head has left already.
    pub(super) fn reply(&mut self, down: &mut Downstream, reply: &LocalReply) {
        self.info.flags.set(reply.flags);
        self.info.details.clone_from(&reply.details);
        self.cancel_attempt();
        self.end_tries();
        if !self.response_waiting() {
            self.cut(down, EndReason::Upstream);
            return;
        }
        self.attempt.link = Link::None;
        self.passage.release();
        self.attempt.clear_request();
        if let Some(target) = self.target.as_ref().filter(|_| reply.is_about_upstream()) {
            target.cluster.stats.response(reply.status);
        }
        let response = &mut self.response;
        response.clear();
        response.status = reply.status;
        for (name, value) in &reply.headers {
            response.headers.append(name, value);
        }
        let mut body = match reply.status {
            // Whatever is configured: a client would take it for the next response.
            204 | 304 => &[],
            _ => reply.body.bytes(),
        };
        if self.reached.is_grpc(&self.request) {
            if !body.is_empty() && !self.head_only {
                grpc::add_message(body, &mut response.headers);
            }
            body = &[];
        } else if !body.is_empty() {
            // For those who look at the head; the encoder writes its own.
            let mut digits = itoa::Buffer::new();
            response.headers.append(b"content-length", digits.format(body.len()).as_bytes());
            if response.headers.get(b"content-type").is_none() {
                response.headers.append(b"content-type", b"text/plain");
            }
        }
        if reply.close {
            down.close_after(EndReason::Client);
        }
        // What is left of the request would be taken for the next one.
        if self.request_body.is_some() {
            self.drain_request(down);
        }
        self.send_head(down, Framing::Length(body.len() as u64));
        if !self.head_only {
            down.out.extend(body);
            self.info.bytes_sent += body.len() as u64;
        }
        self.response_state = ResponseState::Done;
    }

    /// After an answer that did not wait for the request: use what is here, close if more follows.
    fn drain_request(&mut self, down: &mut Downstream) {
        while let Some(decoder) = &mut self.request_body {
            if down.inbound.is_empty() {
                break;
            }
            let Ok(step) = decoder.decode(down.inbound.data()) else { break };
            if step.consumed == 0 && !step.done {
                break;
            }
            self.info.bytes_received += step.data.len() as u64;
            down.inbound.consume(step.consumed);
            if step.done {
                self.request_body = None;
            }
        }
        if self.request_body.is_some() {
            down.close_after(EndReason::Client);
        }
    }

    /// The response cannot be completed: the client gets what came of it, and then the end.
    pub(super) fn cut(&mut self, down: &mut Downstream, reason: EndReason) {
        down.hcm.stats.downstream_rq_tx_reset.inc();
        down.close_after(reason);
        down.cut_short = true;
        self.attempt.link = Link::None;
        self.attempt.clear_request();
        let state = std::mem::replace(&mut self.response_state, ResponseState::Done);
        // To such a client the end would look like that of a whole response.
        down.ends_with_reset = self.request.version == Version::Http10
            && matches!(state, ResponseState::Streaming { decoder, .. } if decoder.remaining().is_none());
    }

    /// What comes of the response is not all of it.
    pub(super) fn cut_response(&mut self, down: &mut Downstream) {
        down.hcm.stats.rq_reset_after_downstream_response_started.inc();
        self.info.flags.set(ResponseFlags::UPSTREAM_PROTOCOL_ERROR);
        self.info.details = "upstream_reset_after_response_started{protocol_error}".into();
        self.cut(down, EndReason::Upstream);
    }

    /// Writes the response head for the client; `framing` is that of the body we will send.
    pub(super) fn send_head(&mut self, down: &mut Downstream, framing: Framing) {
        if !down.upgrading {
            self.decide_closing(down);
        }
        self.tell_attempts();
        let hcm = &down.hcm;
        self.info.status = self.response.status;
        let cx = LogContext {
            info: &self.info,
            request: Some(&self.request),
            response: None,
            trailers: None,
            now: down.now,
            node: &hcm.thread.bootstrap.node,
        };
        let target = self.target.as_ref();
        let answer = match &self.attempt.link {
            Link::Active(_) if self.upgrade.is_some() => Answer::Tunnel,
            Link::Active(_) => Answer::Upstream,
            Link::None | Link::Opening(..) => Answer::Local,
        };
        let response = &mut self.response;
        hcm.router.finalize_response(answer, &self.choice, target, response, &cx);
        if answer == Answer::Local && self.reached.is_grpc(&self.request) {
            grpc::seal(response.status, &mut response.headers);
            response.status = 200;
            self.info.status = 200;
        }
        if self.reached == Reached::Filters {
            self.filter_response(down);
        }
        let headers = &mut self.response.headers;
        add_own(&hcm.config, &self.request.headers, headers);
        let http10 = self.request.version == Version::Http10;
        let until_close = http10 && matches!(framing, Framing::Chunked | Framing::UntilClose);
        if until_close {
            down.closing.get_or_insert(EndReason::Client);
        }
        let upgraded = self.response.status == 101;
        let upgrade = self.upgrade.as_ref().filter(|_| upgraded).and_then(Upgrading::token);
        let connection = match upgrade {
            Some(token) => h1::encode::Connection::Upgrade(token),
            None if down.closing.is_some() => h1::encode::Connection::Close,
            None if http10 => h1::encode::Connection::KeepAlive,
            None => h1::encode::Connection::Default,
        };
        let framing = if until_close { Framing::UntilClose } else { framing };
        let mut date = hcm.thread.date.borrow_mut();
        if headers.get(b"date").is_none() {
            headers.append(b"date", date.get(crate::clock::wall()));
        }
        let mut scratch = hcm.thread.scratch.borrow_mut();
        scratch.clear();
        h1::encode::response(&mut scratch, &self.response, framing, self.length, connection);
        down.out.extend(&scratch);
        self.tell_response(down);
    }

    /// For the log.
    fn tell_response(&self, down: &Downstream) {
        if life::told() {
            life::response(down.stream_id(), self.response.status, &self.info);
        }
    }

    /// Whether this response is the last one on its connection.
    fn decide_closing(&self, down: &mut Downstream) {
        let config = &down.hcm.config;
        let thread = &down.hcm.thread;
        let random = thread.random.borrow_mut().u64(..);
        let age = || down.now.saturating_duration_since(down.opened);
        if self.request_body.is_some() {
            // The rest of it may have nowhere to go.
            down.hcm.stats.downstream_rq_response_before_rq_complete.inc();
            down.close_after(EndReason::Client);
            return;
        }
        // What follows an offer that was not taken may be meant as the other protocol.
        if !self.keep_alive || down.read_closed || self.upgrade.is_some() {
            down.close_after(EndReason::Client);
        } else if down.belongs.homeless || down.announces_end(random) {
            down.hcm.stats.downstream_cx_drain_close.inc();
            down.close_after(EndReason::Drained);
        } else if config.max_requests_per_connection.is_some_and(|max| down.requests >= max) {
            down.hcm.stats.downstream_cx_max_requests_reached.inc();
            down.close_after(EndReason::Drained);
        } else if config.max_connection_duration.is_some_and(|max| age() >= max) {
            down.hcm.stats.downstream_cx_max_duration_reached.inc();
            down.close_after(EndReason::Timeout);
        }
    }
}

impl Downstream {
    /// No further request on this connection.
    pub(super) fn close_after(&mut self, reason: EndReason) {
        self.closing.get_or_insert(reason);
    }

    /// Whether the drain asks that this connection ends. One that is going to move does not.
    fn announces_end(&self, random: u64) -> bool {
        let thread = &self.hcm.thread;
        if thread.drain.is_stopping() || self.dismissed.is_some() {
            return true;
        }
        let moves = thread.mover.is_active() && !self.belongs.wish.is_left_behind();
        let farewell = self.belongs.origin.term.farewell();
        !moves
            && (thread.drain.should_close(self.hcm.scope, self.now, random)
                || farewell.is_some_and(|farewell| farewell.asks(self.now, random)))
    }
}

/// What this proxy says of itself and of the request in a response.
fn add_own(config: &HttpConnectionManager, request: &Headers, response: &mut Headers) {
    if !config.via.is_empty() {
        response.append(b"via", config.via.as_bytes());
    }
    // Only internal clients can ask for a trace; from others the header was removed.
    let asked = request.get(b"x-envoy-force-trace").is_some();
    if (config.request_id_in_response || asked)
        && let Some(id) = request.get(b"x-request-id")
    {
        response.set(b"x-request-id", id);
    }
    set_server(config.server_header, &config.server_name, response);
}

/// `server` as `server_header_transformation` says.
fn set_server(mode: ServerHeader, name: &str, headers: &mut Headers) {
    match mode {
        ServerHeader::Overwrite => headers.set(b"server", name.as_bytes()),
        ServerHeader::AppendIfAbsent if headers.get(b"server").is_none() => {
            headers.append(b"server", name.as_bytes());
        }
        ServerHeader::AppendIfAbsent | ServerHeader::PassThrough => {}
    }
}

/// Takes one decoded step out of `from`; its data goes to `to` when there is somebody to read it.
pub(super) fn transfer(from: &mut Inbound, step: &Step, chunked: bool, to: Option<&mut Outbound>) {
    let count = step.data.len();
    let Some(to) = to.filter(|_| count > 0) else {
        from.consume(step.consumed);
        return;
    };
    from.consume(step.data.start);
    if chunked {
        let mut header = Vec::with_capacity(h1::body::MAX_CHUNK_HEADER);
        h1::body::write_chunk_header(&mut header, count);
        to.extend(&header);
    }
    from.transfer(count, to);
    if chunked {
        to.extend(h1::body::CHUNK_END);
    }
    from.consume(step.consumed - step.data.end);
}

/// The last chunk and the trailers.
pub(super) fn finish_chunks(to: &mut Outbound, trailers: &Headers) {
    let mut lines = Vec::new();
    h1::body::write_last_chunk(&mut lines, trailers);
    to.extend(&lines);
}

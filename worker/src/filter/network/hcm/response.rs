//! The downstream side of a response: local replies, heads and body bytes for the client.

use super::{
    connection::{Connection, Phase},
    exchange::{ResponseState, Upgrading, Upstream},
};
use crate::{
    buffer::{Inbound, Outbound},
    config::hcm::ServerHeader,
    http::{
        h1::{self, Framing, body::Step},
        head::Version,
        headers::Headers,
        local_reply::LocalReply,
        stream_info::LogContext,
    },
    stats::EndReason,
};

impl Connection {
    /// Answers without the upstream, or cuts the response when its head has left already.
    pub(super) fn reply(&mut self, reply: &LocalReply) {
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        exchange.info.flags.set(reply.flags);
        exchange.info.details.clone_from(&reply.details);
        exchange.upstream = Upstream::None;
        exchange.clear_request();
        if !exchange.response_waiting() {
            exchange.response_state = ResponseState::Done;
            self.cut(EndReason::Upstream);
            return;
        }
        let response = &mut exchange.response;
        response.clear();
        response.status = reply.status;
        for (name, value) in &reply.headers {
            response.headers.append(name, value);
        }
        let body = reply.body.bytes();
        if !body.is_empty() && response.headers.get(b"content-type").is_none() {
            response.headers.append(b"content-type", b"text/plain");
        }
        if reply.close {
            self.close_after(EndReason::Client);
        }
        // What is left of the request would be taken for the next one.
        if matches!(&self.phase, Phase::Exchange(exchange) if exchange.request_body.is_some()) {
            self.drain_request();
        }
        self.send_head(Framing::Length(body.len() as u64));
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        if !exchange.head_only {
            self.out.extend(body);
            exchange.info.bytes_sent += body.len() as u64;
        }
        exchange.response_state = ResponseState::Done;
    }

    /// After an answer that did not wait for the request: use what is here, close if more follows.
    fn drain_request(&mut self) {
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        while let Some(decoder) = &mut exchange.request_body {
            if self.inbound.is_empty() {
                break;
            }
            let Ok(step) = decoder.decode(self.inbound.data()) else { break };
            if step.consumed == 0 && !step.done {
                break;
            }
            exchange.info.bytes_received += step.data.len() as u64;
            self.inbound.consume(step.consumed);
            if step.done {
                exchange.request_body = None;
            }
        }
        if exchange.request_body.is_some() {
            self.close_after(EndReason::Client);
        }
    }

    /// No further request on this connection.
    pub(super) fn close_after(&mut self, reason: EndReason) {
        self.closing.get_or_insert(reason);
    }

    /// The response cannot be completed: the client must see that, so the connection is reset.
    pub(super) fn cut(&mut self, reason: EndReason) {
        self.close_after(reason);
        self.socket.reset_on_close();
        self.cut_short = true;
    }

    /// Writes the response head for the client; `framing` is that of the body we will send.
    pub(super) fn send_head(&mut self, framing: Framing) {
        if !self.upgrading {
            self.decide_closing();
        }
        let Phase::Exchange(exchange) = &mut self.phase else { return };
        let exchange = &mut **exchange;
        let hcm = &self.hcm;
        exchange.info.status = exchange.response.status;
        let cx = LogContext {
            info: &exchange.info,
            request: Some(&exchange.request),
            response: None,
            trailers: None,
            now: self.now,
            node: &hcm.thread.bootstrap.node,
        };
        let target = exchange.target.as_ref();
        hcm.router.finalize_response(exchange.route, target, &mut exchange.response, &cx);
        hcm.chain.on_response(&mut exchange.response, &mut exchange.info);
        let headers = &mut exchange.response.headers;
        if !hcm.config.via.is_empty() {
            headers.append(b"via", hcm.config.via.as_bytes());
        }
        if hcm.config.request_id_in_response
            && let Some(id) = exchange.request.headers.get(b"x-request-id")
        {
            headers.set(b"x-request-id", id);
        }
        set_server(hcm.config.server_header, &hcm.config.server_name, headers);
        let http10 = exchange.request.version == Version::Http10;
        let until_close = http10 && matches!(framing, Framing::Chunked | Framing::UntilClose);
        if until_close {
            self.closing.get_or_insert(EndReason::Client);
        }
        let upgraded = exchange.response.status == 101;
        let upgrade = exchange.upgrade.as_ref().filter(|_| upgraded).and_then(Upgrading::token);
        let connection = match upgrade {
            Some(token) => h1::encode::Connection::Upgrade(token),
            None if self.closing.is_some() => h1::encode::Connection::Close,
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
        h1::encode::response(
            &mut scratch,
            &exchange.response,
            framing,
            exchange.length,
            connection,
        );
        self.out.extend(&scratch);
    }

    /// Whether the drain asks that this connection ends. One that is going to move does not.
    fn announces_end(&self, random: u64) -> bool {
        let thread = &self.hcm.thread;
        let moves = thread.mover.is_active() && !self.belongs.wish.is_left_behind();
        !moves && thread.drain.should_close(self.now, random)
    }

    /// Whether this response is the last one on its connection.
    fn decide_closing(&mut self) {
        let Phase::Exchange(exchange) = &self.phase else { return };
        let config = &self.hcm.config;
        let thread = &self.hcm.thread;
        let random = thread.random.borrow_mut().u64(..);
        let age = || self.now.saturating_duration_since(self.opened);
        if !exchange.keep_alive || self.read_closed {
            self.close_after(EndReason::Client);
        } else if self.belongs.homeless || self.announces_end(random) {
            self.hcm.stats.downstream_cx_drain_close.inc();
            self.close_after(EndReason::Drained);
        } else if config.max_requests_per_connection.is_some_and(|max| self.requests >= max) {
            self.hcm.stats.downstream_cx_max_requests_reached.inc();
            self.close_after(EndReason::Drained);
        } else if config.max_connection_duration.is_some_and(|max| age() >= max) {
            self.hcm.stats.downstream_cx_max_duration_reached.inc();
            self.close_after(EndReason::Timeout);
        }
    }
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

//! One request and its response on a connection: plain data, driven by the connection.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{bulk::Bulk, request::high_watermark};
use crate::{
    buffer::{BufferPool, Inbound, Outbound},
    cluster::{Endpoint, endpoint::ActiveRequest},
    filter::http::router::Target,
    http::{
        h1::{self, Framing, body::Decoder, encode::Connection, response::Answers},
        head::{RequestHead, ResponseHead},
        headers::Headers,
        stream_info::{StreamInfo, UpstreamInfo},
    },
    route::RouteId,
    thread::Thread,
    upstream::{
        Stream,
        connect::Connecting,
        pool::{ActiveGauge, PooledConnection},
    },
};

/// An HTTP exchange.
///
/// ```text
/// request body:  Some(decoder) ──────────────→ None (received whole)
/// upstream:      None → Connecting → Active → None (released or closed)
/// response:      Waiting → Streaming → Done
/// ```
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) request: RequestHead,
    pub(super) response: ResponseHead,
    pub(super) trailers: Headers,
    pub(super) info: StreamInfo,
    /// Decodes what is left of the request body; `None` = received whole.
    pub(super) request_body: Option<Decoder>,
    /// How the request's body is framed.
    pub(super) framing: Framing,
    /// The request goes upstream in chunks.
    pub(super) request_chunked: bool,
    /// The client wants the connection kept.
    pub(super) keep_alive: bool,
    /// The request was HEAD: the response has no body.
    pub(super) head_only: bool,
    /// The client waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// What the client wants to turn the connection into.
    pub(super) upgrade: Option<Upgrading>,
    /// The route that was found.
    pub(super) route: Option<RouteId>,
    /// Where the router sends the request; `None` = it is answered here.
    pub(super) target: Option<Target>,
    pub(super) upstream: Upstream,
    /// Waits to be written upstream, also while there is no connection yet.
    pub(super) up_out: Outbound,
    /// Read from upstream and not yet used.
    pub(super) up_in: Inbound,
    pub(super) response_state: ResponseState,
    /// Of the request's body what waits behind `up_out`, when it goes through a pipe.
    pub(super) up_bulk: Bulk,
    /// Of the response's body what waits behind the client's queue.
    pub(super) bulk: Bulk,
    /// CONNECT ends here: the endpoint gets no request, only the bytes.
    pub(super) terminate_connect: bool,
    /// Counts as a request of its cluster until dropped.
    pub(super) active_gauge: Option<ActiveGauge>,
    /// `content-length` of a response without a body.
    pub(super) length: Option<u64>,
    /// The endpoint that is being connected to.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// Counts as a request of its endpoint until dropped.
    pub(super) active_request: Option<ActiveRequest>,
    /// Interim responses so far.
    pub(super) interim: u32,
    /// A stale pooled connection was already replaced once.
    pub(super) retried: bool,
    /// Something moved.
    pub(super) last_activity: Instant,
    /// Body bytes that count for the minimum rate.
    pub(super) body_started: Instant,
}

/// The requested change of protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Upgrading {
    /// `Connection: upgrade` with this token.
    Token(Vec<u8>),
    /// The method CONNECT.
    Connect,
}

/// The upstream side.
#[derive(Debug)]
pub(super) enum Upstream {
    /// Not there yet, or over.
    None,
    /// `connect` is under way until the deadline.
    Connecting(Box<Connecting>, Instant),
    /// There is a connection.
    Active(Active),
}

/// A connection that carries the exchange.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) connection: PooledConnection,
    /// It came from the pool, so it may have been closed before it got the request.
    pub(super) reused: bool,
    /// At least one byte was written.
    pub(super) wrote: bool,
    /// Bytes in the queue that came back after they were posted, and are counted as sent already.
    /// The connection's task writes them itself and waits for room.
    pub(super) returned: usize,
    /// Writing failed; the response may still be readable.
    pub(super) write_failed: bool,
    /// The upstream may serve another request on it.
    pub(super) keep_alive: bool,
}

/// The downstream side of the response.
#[derive(Debug)]
pub(super) enum ResponseState {
    /// No head was sent downstream.
    Waiting,
    /// The head was sent; this decodes the upstream's body.
    Streaming {
        /// Decodes what the upstream sends.
        decoder: Decoder,
        /// It goes downstream in chunks.
        chunked: bool,
    },
    /// All of it is in the connection's queue.
    Done,
}

impl Exchange {
    pub(super) fn new(
        request: RequestHead,
        response: ResponseHead,
        info: StreamInfo,
        pool: &BufferPool,
    ) -> Self {
        let now = info.started;
        Self {
            request,
            response,
            trailers: Headers::default(),
            info,
            request_body: None,
            framing: Framing::None,
            request_chunked: false,
            keep_alive: false,
            head_only: false,
            expects_continue: false,
            upgrade: None,
            route: None,
            target: None,
            upstream: Upstream::None,
            up_out: Outbound::new(pool),
            up_in: Inbound::new(pool),
            response_state: ResponseState::Waiting,
            up_bulk: Bulk::default(),
            bulk: Bulk::default(),
            terminate_connect: false,
            active_gauge: None,
            length: None,
            endpoint: None,
            active_request: None,
            interim: 0,
            retried: false,
            last_activity: now,
            body_started: now,
        }
    }

    /// Bytes that may wait for the upstream before reading from the client stops.
    pub(super) fn high_watermark(&self) -> usize {
        let limit = self.target.as_ref().map(|to| to.cluster.state.config.buffer_limit_bytes);
        high_watermark(limit.unwrap_or_default())
    }

    /// Nothing of the response was sent.
    pub(super) fn response_waiting(&self) -> bool {
        matches!(self.response_state, ResponseState::Waiting)
    }

    /// All of the response is in the connection's queue.
    pub(super) fn response_done(&self) -> bool {
        matches!(self.response_state, ResponseState::Done)
    }
}

impl Upgrading {
    /// The token, when it is one.
    pub(super) fn token(&self) -> Option<&[u8]> {
        match self {
            Self::Token(token) => Some(token),
            Self::Connect => None,
        }
    }
}

impl Exchange {
    /// What the response answers, which decides about its body.
    pub(super) fn answers(&self) -> Answers {
        match &self.upgrade {
            Some(Upgrading::Connect) => Answers::Connect,
            Some(Upgrading::Token(_)) => Answers::Upgrade,
            None if self.head_only => Answers::Head,
            None => Answers::Plain,
        }
    }

    /// Writes the head for the upstream into its queue.
    pub(super) fn write_request_head(&mut self, thread: &Thread) {
        let mut scratch = thread.scratch.borrow_mut();
        scratch.clear();
        let upgrade = self.upgrade.as_ref().and_then(Upgrading::token);
        let connection = upgrade.map_or(Connection::Default, Connection::Upgrade);
        h1::encode::request(&mut scratch, &self.request, self.framing, connection);
        self.up_out.extend(&scratch);
    }

    /// `connect` succeeded.
    pub(super) fn connected(&mut self, stream: Stream, now: Instant) {
        let (Some(endpoint), Some(target)) = (self.endpoint.take(), &self.target) else { return };
        let stats = &target.cluster.stats;
        stats.upstream_cx_total.inc();
        stats.upstream_cx_http1_total.inc();
        let connection = PooledConnection {
            stream,
            endpoint: endpoint.begin_connection(),
            active: ActiveGauge::new(&stats.upstream_cx_active),
            requests: 0,
            idle_since: now,
        };
        self.use_connection(connection, false);
    }

    pub(super) fn use_connection(&mut self, mut connection: PooledConnection, reused: bool) {
        let endpoint = connection.endpoint.endpoint();
        connection.requests += 1;
        self.active_request = Some(endpoint.begin_request());
        if let Some(target) = &self.target {
            self.info.upstream = Some(UpstreamInfo {
                address: endpoint.address().ip(),
                local: None,
                cluster: Arc::clone(&target.cluster.name),
            });
        }
        self.upstream = Upstream::Active(Active {
            connection,
            reused,
            wrote: false,
            returned: 0,
            write_failed: false,
            keep_alive: false,
        });
    }

    /// Whether sending the request once more can do no harm: the pooled connection gave not one
    /// byte of an answer, and either it got none of the request, or the method is idempotent
    /// (RFC 9110 §9.2.2) and there is no body that is gone.
    pub(super) fn may_retry(&self) -> bool {
        let Upstream::Active(active) = &self.upstream else { return false };
        let unanswered =
            active.reused && !self.retried && self.up_in.is_empty() && self.interim == 0;
        let idempotent = matches!(
            &*self.request.method,
            b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE"
        );
        unanswered && (!active.wrote || (idempotent && self.framing.is_empty()))
    }

    pub(super) fn count_response(&self) {
        let Some(target) = &self.target else { return };
        target.cluster.stats.response(self.response.status);
        if let Some(active) = &self.active_request {
            let stats = &active.endpoint().stats;
            let of_class =
                if self.response.status < 500 { &stats.rq_success } else { &stats.rq_error };
            of_class.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_error(&self) {
        if let Some(active) = &self.active_request {
            active.endpoint().stats.rq_error.fetch_add(1, Ordering::Relaxed);
        }
    }
}

//! One request and its response on a connection: plain data, driven by the connection.

use std::{net::SocketAddr, time::Instant};

use super::{
    attempt::{Attempt, Link},
    downstream::high_watermark,
    mirror::Mirror,
    retained::Retained,
    retry::Retrying,
};
use crate::{
    buffer::BufferPool,
    cluster::Endpoint,
    config::model::ClusterIndex,
    filter::http::{
        chain::Passage,
        router::{Choice, Target},
    },
    http::{
        h1::{self, Framing, UpgradeToken, body::Decoder, encode::Connection, response::Answers},
        head::{RequestHead, ResponseHead},
        headers::Headers,
        stream_info::{StreamInfo, UpstreamInfo},
    },
    thread::Thread,
    upstream::{
        Stream,
        counted::Counted,
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
    /// How far the request came.
    pub(super) reached: Reached,
    /// What was found for it before the filters were asked.
    pub(super) choice: Choice,
    /// The cluster it will go to, for the filters.
    pub(super) cluster: Option<ClusterIndex>,
    /// How far it came through the filters.
    pub(super) passage: Passage,
    /// Where the router sends the request; `None` = it is answered here.
    pub(super) target: Option<Target>,
    /// The try that is under way.
    pub(super) attempt: Attempt,
    pub(super) response_state: ResponseState,
    /// CONNECT ends here: the endpoint gets no request, only the bytes.
    pub(super) terminate_connect: bool,
    /// Counts as a request of its cluster until dropped.
    pub(super) active_gauge: Option<ActiveGauge>,
    /// `content-length` of a response without a body.
    pub(super) length: Option<u64>,
    /// A stale pooled connection was already replaced once.
    pub(super) retried: bool,
    /// Reading the request waits for the upstream.
    pub(super) request_paused: bool,
    /// Reading the response waits for the client.
    pub(super) response_paused: bool,
    /// The body so far, if it may be needed again.
    pub(super) retained: Option<Retained>,
    /// Its tries, if there may be more than one or each is limited.
    pub(super) retrying: Option<Box<Retrying>>,
    /// Copies that will be sent once it is whole.
    pub(super) mirrors: Vec<Mirror>,
    /// Something moved.
    pub(super) last_activity: Instant,
}

/// How far a request came, and so who has a say in its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reached {
    /// It was refused as it came: there is no request that anybody could answer.
    Nobody,
    /// It is a request, and no filter has seen it.
    Manager,
    /// The filters have seen it.
    Filters,
}

impl Reached {
    /// Whether an answer of ours has to be one that gRPC clients understand.
    pub(super) fn is_grpc(self, request: &RequestHead) -> bool {
        self != Self::Nobody && request.is_grpc()
    }
}

/// The requested change of protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Upgrading {
    /// `Connection: upgrade` with this token.
    Token(Vec<u8>),
    /// The method CONNECT.
    Connect,
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
            reached: Reached::Nobody,
            choice: Choice::NONE,
            cluster: None,
            passage: Passage::default(),
            target: None,
            attempt: Attempt::new(pool),
            response_state: ResponseState::Waiting,
            terminate_connect: false,
            active_gauge: None,
            length: None,
            retried: false,
            request_paused: false,
            response_paused: false,
            retained: None,
            retrying: None,
            mirrors: Vec::new(),
            last_activity: now,
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

    /// Whether the protocol the upstream switches to is what the client asked for. The client gets to see
    /// it as the upstream writes it.
    pub(super) fn switches_to(&mut self, protocol: Option<UpgradeToken>) -> bool {
        match (&mut self.upgrade, protocol) {
            (Some(Upgrading::Token(asked)), Some(token)) if token.is(asked) => {
                asked.clear();
                asked.extend_from_slice(token.as_bytes());
                true
            }
            (Some(Upgrading::Token(_)) | None, _) => false,
            (Some(Upgrading::Connect), _) => true,
        }
    }

    /// Writes the head for the endpoint that gets it.
    fn write_request_head(&mut self, thread: &Thread) {
        let mut scratch = thread.scratch.borrow_mut();
        scratch.clear();
        let upgrade = self.upgrade.as_ref().and_then(Upgrading::token);
        let connection = upgrade.map_or(Connection::Default, Connection::Upgrade);
        h1::encode::request(&mut scratch, &self.request, self.framing, connection);
        self.attempt.put_head(&scratch);
    }

    /// `connect` succeeded.
    pub(super) fn connected(
        &mut self,
        thread: &Thread,
        stream: Stream,
        counted: Counted,
        now: Instant,
    ) {
        let Some(endpoint) = self.attempt.endpoint.take() else { return };
        counted.connected(now);
        let local = thread.upstream_local(&stream);
        let connection = PooledConnection::new((stream, local), &endpoint, counted, now);
        self.use_connection(thread, connection, false);
    }

    /// The request goes on this connection.
    pub(super) fn use_connection(
        &mut self,
        thread: &Thread,
        connection: PooledConnection,
        reused: bool,
    ) {
        if let Some(target) = &self.target {
            let stats = &target.cluster.stats;
            stats.upstream_rq_total.inc();
            self.active_gauge.get_or_insert_with(|| ActiveGauge::new(&stats.upstream_rq_active));
        }
        if reused {
            self.note_endpoint(connection.endpoint.endpoint());
        }
        self.is_on(connection.local);
        if let Some(retrying) = &mut self.retrying {
            retrying.is_connected();
        }
        self.attempt.carry(connection, reused);
        if !self.terminate_connect {
            self.write_request_head(thread);
        }
    }

    /// It has a connection, with this address of ours if it is to be shown.
    pub(super) fn is_on(&mut self, local: Option<SocketAddr>) {
        if let Some(upstream) = &mut self.info.upstream {
            upstream.connected = true;
            upstream.local = local;
        }
    }

    /// This endpoint is tried; the log says so even if it cannot be reached.
    pub(super) fn note_endpoint(&mut self, endpoint: &Endpoint) {
        let Some(target) = &self.target else { return };
        let upstream =
            self.info.upstream.get_or_insert_with(|| UpstreamInfo::new(&target.cluster.name));
        let address = endpoint.address();
        upstream.attempt(address.ip());
        upstream.path = address.path();
    }

    /// Whether sending the request once more can do no harm: the pooled connection gave not one
    /// byte of an answer, and either it got none of the request, or the method is idempotent
    /// (RFC 9110 §9.2.2) and there is no body that is gone.
    pub(super) fn may_retry(&self) -> bool {
        let Link::Active(active) = &self.attempt.link else { return false };
        let unanswered = active.reused
            && !self.retried
            && self.attempt.inbound.is_empty()
            && self.attempt.interim == 0;
        let idempotent = matches!(
            &*self.request.method,
            b"GET" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"TRACE"
        );
        unanswered && (!active.wrote || (idempotent && self.framing.is_empty()))
    }

    pub(super) fn count_response(&self) {
        let Some(target) = &self.target else { return };
        target.cluster.stats.response(self.response.status);
        if self.retried && self.response.status < 500 {
            target.cluster.stats.upstream_rq_retry_success.inc();
        }
        self.attempt.count_response(self.response.status);
    }

    /// The request does not wait for its connection any more.
    pub(super) fn cancel_attempt(&mut self) {
        if let Link::Opening(..) = self.attempt.link {
            self.attempt.link = Link::None;
            if let Some(target) = &self.target {
                target.cluster.stats.upstream_rq_cancelled.inc();
            }
        }
    }

    /// Reading from the upstream stops because the client is slow, or goes on.
    pub(super) fn count_response_paused(&mut self, paused: bool) {
        self.response_paused = paused;
        let Some(target) = &self.target else { return };
        let stats = &target.cluster.stats;
        if paused {
            stats.upstream_flow_control_paused_reading_total.inc();
        } else {
            stats.upstream_flow_control_resumed_reading_total.inc();
        }
    }

    /// The upstream broke HTTP.
    pub(super) fn count_protocol_error(&self) {
        if let Some(target) = &self.target {
            target.cluster.stats.upstream_cx_protocol_error.inc();
        }
    }
}

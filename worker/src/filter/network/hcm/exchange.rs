//! One request and its response on a connection: plain data, driven by the connection.

use std::{sync::Arc, time::Instant};

use crate::{
    buffer::{BufferPool, Inbound, Outbound},
    cluster::{Endpoint, endpoint::ActiveRequest},
    filter::http::router::Target,
    http::{
        h1::{Framing, body::Decoder},
        head::{RequestHead, ResponseHead},
        headers::Headers,
        stream_info::StreamInfo,
    },
    route::RouteId,
    upstream::{
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

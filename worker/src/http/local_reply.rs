//! Answers the proxy makes by itself, with Envoy's bodies, flags and details.

use std::{borrow::Cow, sync::Arc};

use super::stream_info::ResponseFlags;

/// An answer without an upstream.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// Status code.
    pub status: u16,
    /// Body, sent as `text/plain` when not empty.
    pub body: Body,
    /// Additional response headers.
    pub headers: Vec<(&'static [u8], Vec<u8>)>,
    /// Response flags to set, as bits.
    pub flags: u32,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Cow<'static, str>,
    /// Close the connection afterwards.
    pub close: bool,
}

/// The body of a local reply.
#[derive(Clone, Debug)]
pub enum Body {
    /// Fixed text.
    Text(Cow<'static, str>),
    /// Bytes of the configuration.
    Shared(Arc<[u8]>),
}

impl Body {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Shared(bytes) => bytes,
        }
    }
}

impl LocalReply {
    /// An answer with a text body and no flags.
    pub fn new(
        status: u16,
        body: impl Into<Cow<'static, str>>,
        details: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            body: Body::Text(body.into()),
            headers: Vec::new(),
            flags: 0,
            details: details.into(),
            close: false,
        }
    }

    /// Sets response flags.
    #[must_use]
    pub fn flagged(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    /// Closes the connection after the answer.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static [u8], value: Vec<u8>) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The codec's answer to a request it does not serve.
    pub fn rejected(status: u16, details: &'static str) -> Self {
        let body = match status {
            400 => "Bad Request",
            426 => "Upgrade Required",
            _ => "",
        };
        Self::new(status, body, details).flagged(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR)
    }

    /// 404: no route.
    pub fn no_route() -> Self {
        Self::new(404, "", "route_not_found").flagged(ResponseFlags::NO_ROUTE)
    }

    /// 503 or what `cluster_not_found_response_code` says: the route names no cluster.
    pub fn no_cluster(status: u16) -> Self {
        Self::new(status, "", "cluster_not_found").flagged(ResponseFlags::NO_CLUSTER)
    }

    /// 503: no endpoint.
    pub fn no_healthy_upstream() -> Self {
        Self::new(503, "no healthy upstream", "no_healthy_upstream")
            .flagged(ResponseFlags::NO_HEALTHY_UPSTREAM)
    }

    /// 503: the upstream could not be reached or went away before it answered.
    pub fn upstream_reset(reason: ResetReason) -> Self {
        let (text, flag) = match reason {
            ResetReason::ConnectionFailure => {
                ("connection failure", ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
            }
            ResetReason::ConnectionTimeout => {
                ("connection timeout", ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
            }
            ResetReason::ConnectionTermination => {
                ("connection termination", ResponseFlags::UPSTREAM_TERMINATION)
            }
            ResetReason::ProtocolError => {
                ("protocol error", ResponseFlags::UPSTREAM_PROTOCOL_ERROR)
            }
        };
        let body = format!(
            "upstream connect error or disconnect/reset before headers. reset reason: {text}"
        );
        let details =
            format!("upstream_reset_before_response_started{{{}}}", text.replace(' ', "_"));
        let status = if reason == ResetReason::ProtocolError { 502 } else { 503 };
        Self::new(status, body, details).flagged(flag)
    }

    /// 504: the route's timeout passed.
    pub fn upstream_timeout() -> Self {
        Self::new(504, "upstream request timeout", "response_timeout")
            .flagged(ResponseFlags::UPSTREAM_TIMEOUT)
    }

    /// 408: nothing moved for the stream's idle time.
    pub fn stream_idle() -> Self {
        Self::new(408, "stream timeout", "stream_idle_timeout")
            .flagged(ResponseFlags::STREAM_IDLE_TIMEOUT)
            .closing()
    }

    /// 408: the request did not arrive in time.
    pub fn request_timeout(details: &'static str) -> Self {
        Self::new(408, "request timeout", details).closing()
    }
}

/// Why an upstream exchange failed before a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResetReason {
    /// `connect` failed.
    ConnectionFailure,
    /// `connect` took longer than `connect_timeout`.
    ConnectionTimeout,
    /// The connection ended before a response.
    ConnectionTermination,
    /// The response was not HTTP.
    ProtocolError,
}

//! Answers the proxy makes by itself, with Envoy's bodies, flags and details.

use std::{borrow::Cow, sync::Arc};

use super::{h1::encode, stream_info::ResponseFlags};

/// An answer without an upstream.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// Status code.
    pub status: u16,
    /// Body, sent as `text/plain` when not empty.
    pub body: Body,
    /// Additional response headers.
    pub headers: Vec<(Cow<'static, [u8]>, Vec<u8>)>,
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

    /// It says what became of the request on its way to the endpoint, so it counts as a response there.
    pub fn is_about_upstream(&self) -> bool {
        const ABOUT: u32 = ResponseFlags::NO_HEALTHY_UPSTREAM
            | ResponseFlags::UPSTREAM_CONNECTION_FAILURE
            | ResponseFlags::UPSTREAM_TERMINATION
            | ResponseFlags::UPSTREAM_REMOTE_RESET
            | ResponseFlags::UPSTREAM_PROTOCOL_ERROR
            | ResponseFlags::UPSTREAM_TIMEOUT;
        self.flags & ABOUT != 0
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
        self.headers.push((Cow::Borrowed(name), value));
        self
    }

    /// The codec's answer to a request it does not serve.
    pub fn rejected(status: u16, details: &'static str) -> Self {
        // As for Envoy, that there is no CONNECT here looks like a path that is not there.
        let body = if status == 404 { "" } else { encode::reason(status) };
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
                ("remote connection failure", ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
            }
            ResetReason::LocalConnectionFailure => {
                ("local connection failure", ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
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

    /// Says that it was tried more than once.
    #[must_use]
    pub fn retried(mut self) -> Self {
        if let Body::Text(text) = &mut self.body {
            *text =
                text.replacen(" reset reason:", " retried and the latest reset reason:", 1).into();
        }
        self
    }

    /// Says in the details what the system said.
    #[must_use]
    pub fn because(mut self, failure: &str) -> Self {
        if let Some(details) = self.details.strip_suffix('}') {
            self.details = format!("{details}|{failure}}}").into();
        }
        self
    }

    /// 504: the route's timeout passed.
    pub fn upstream_timeout() -> Self {
        Self::new(504, "upstream request timeout", "response_timeout")
            .flagged(ResponseFlags::UPSTREAM_TIMEOUT)
    }

    /// 504: the time of one try passed, and there is no other.
    pub fn upstream_try_timeout(details: &'static str) -> Self {
        Self { details: details.into(), ..Self::upstream_timeout() }
    }

    /// 408: nothing moved for the stream's idle time, and the request is not whole.
    pub fn stream_idle() -> Self {
        Self { status: 408, ..Self::upstream_idle() }.closing()
    }

    /// 504: the same, but the request is whole. A 408 would ask the client to send it again.
    pub fn upstream_idle() -> Self {
        Self::new(504, "stream timeout", "stream_idle_timeout")
            .flagged(ResponseFlags::STREAM_IDLE_TIMEOUT)
    }

    /// 413: the body is larger than a filter may hold.
    pub fn too_large() -> Self {
        Self::new(413, "Payload Too Large", "request_payload_too_large")
    }

    /// 408: the head did not arrive in time.
    pub fn header_timeout() -> Self {
        Self::new(408, "request header timeout", "request_header_timeout").closing()
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
    /// The source address cannot be used.
    LocalConnectionFailure,
    /// `connect` took longer than `connect_timeout`.
    ConnectionTimeout,
    /// The connection ended before a response.
    ConnectionTermination,
    /// The response was not HTTP.
    ProtocolError,
}

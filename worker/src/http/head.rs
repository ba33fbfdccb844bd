//! Heads of requests and responses after parsing.

use super::headers::Headers;

/// The HTTP version of a message on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// As access logs write it (`%PROTOCOL%`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The head of a request: what HTTP/2 calls pseudo-headers stands in fields of its own.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// Method as sent, upper case in practice.
    pub method: Vec<u8>,
    /// Path with query, `/` first (or `*` for OPTIONS, empty for CONNECT).
    pub path: Vec<u8>,
    /// Host, or the authority of an absolute target.
    pub authority: Vec<u8>,
    /// What `authority` was while it is the name of an endpoint.
    pub asked_for: Option<Vec<u8>>,
    /// Version on the downstream wire.
    pub version: Version,
    /// All other headers; `host` is not among them.
    pub headers: Headers,
}

impl RequestHead {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.method.clear();
        self.path.clear();
        self.authority.clear();
        self.asked_for = None;
        self.version = Version::default();
        self.headers.clear();
    }

    /// A header or pseudo-header (`:path`, `:method`, `:authority`, and `host`) by lower-case name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        match name {
            b":path" => Some(&self.path),
            b":method" => Some(&self.method),
            b":authority" | b"host" => {
                Some(&self.authority).filter(|a| !a.is_empty()).map(|a| &**a)
            }
            // The scheme is not kept: without TLS it is what `x-forwarded-proto` says, if that
            // is a scheme of HTTP.
            b":scheme" => match self.headers.get(b"x-forwarded-proto") {
                Some(proto) if proto.eq_ignore_ascii_case(b"https") => Some(b"https"),
                Some(_) | None => Some(b"http"),
            },
            _ => self.headers.get(name),
        }
    }

    /// A call of gRPC: `application/grpc` or `application/grpc+something`. gRPC-Web is something
    /// else, and so is what has parameters, as for Envoy.
    pub fn is_grpc(&self) -> bool {
        let mut types = self.headers.get_all(b"content-type");
        let kind = types.next().and_then(|value| value.strip_prefix(b"application/grpc"));
        kind.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'+'))
            && types.next().is_none()
    }

    /// The path without its query.
    pub fn path_only(&self) -> &[u8] {
        match memchr::memchr(b'?', &self.path) {
            Some(at) => &self.path[..at],
            None => &self.path,
        }
    }
}

/// The head of a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// Status code, 100..=999: those above 599 belong to applications.
    pub status: u16,
    /// Version on the upstream wire.
    pub version: Version,
    /// Headers.
    pub headers: Headers,
}

impl ResponseHead {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.status = 0;
        self.version = Version::default();
        self.headers.clear();
    }
}

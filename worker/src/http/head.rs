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
            // The scheme is not kept: without TLS it is what `x-forwarded-proto` says.
            b":scheme" => self.headers.get(b"x-forwarded-proto").or(Some(b"http")),
            _ => self.headers.get(name),
        }
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
    /// Status code, 100..=599.
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

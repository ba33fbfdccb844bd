//! The HTTP/1 codec: bytes in, heads and body pieces out, and the reverse.
//!
//! It does no I/O and keeps no hidden state: parsers are functions of the bytes received so far,
//! the body decoder is plain data. It is strict where two readers could disagree about where a
//! message ends, and it never forwards what it received as it was: every head is written anew
//! from its parsed form, with one framing header at most.
//!
//! ```text
//! bytes ─ request::parse ─> RequestHead + ParsedRequest ─ encode::request ─> bytes
//!         response::parse ─> ResponseHead + ParsedResponse ─ encode::response ─> bytes
//! body  ─ body::Decoder ─> ranges of the same buffer (+ trailers) ─ body::write_chunk_header ─>
//! ```
//!
//! A verdict never depends on how the bytes were split: it is the verdict on the shortest prefix
//! that has one.

pub mod body;
pub mod date;
pub mod encode;
mod fields;
pub mod request;
pub mod response;

use crate::config::hcm::{HttpConnectionManager, UnderscoresAction};

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// No body, and no header that speaks of one.
    #[default]
    None,
    /// `content-length`: so many bytes, perhaps zero.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// The body ends with the connection; only in responses.
    UntilClose,
}

impl Framing {
    /// True when no body byte will follow the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What a head may look like. Sizes are in bytes.
#[expect(clippy::struct_excessive_bools, reason = "each mirrors a switch of the configuration")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Header lines; more are answered with 431. Envoy's `max_headers_count`.
    pub max_headers: usize,
    /// Whole head including the empty line; more is answered with 431.
    pub max_head_bytes: usize,
    /// Request target; more is answered with 414.
    pub max_uri_bytes: usize,
    /// Whether `GET http://host/path` is understood. Envoy's `allow_absolute_url`.
    pub allow_absolute_url: bool,
    /// Whether HTTP/1.0 requests are served; otherwise they get 426. Envoy's `accept_http_10`.
    pub accept_http_10: bool,
    /// Authority of HTTP/1.0 requests without Host; empty: they get 400.
    pub default_host_for_http_10: Vec<u8>,
    /// Whether TRACE passes; otherwise it gets 405.
    pub allow_trace: bool,
    /// Whether CONNECT passes; otherwise it gets 404.
    pub allow_connect: bool,
    /// What happens to header names with an underscore.
    pub underscores: UnderscoresAction,
}

/// Largest request target, in bytes. Sign-on redirects reach 16 KiB; nothing honest needs more
/// than this.
pub const DEFAULT_MAX_URI_BYTES: usize = 32 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_headers: 100,
            max_head_bytes: 60 * 1024,
            max_uri_bytes: DEFAULT_MAX_URI_BYTES,
            allow_absolute_url: true,
            accept_http_10: true,
            default_host_for_http_10: Vec::new(),
            allow_trace: false,
            allow_connect: false,
            underscores: UnderscoresAction::Allow,
        }
    }
}

impl Limits {
    /// The limits of a connection manager for requests.
    pub fn of(manager: &HttpConnectionManager) -> Self {
        let connect = |u: &crate::config::route::Upgrade| u.enabled && u.upgrade_type == "connect";
        Self {
            max_headers: manager.max_headers_count,
            max_head_bytes: manager.max_headers_bytes,
            // Envoy has no limit of its own for it.
            max_uri_bytes: manager.max_headers_bytes,
            allow_absolute_url: manager.allow_absolute_url,
            accept_http_10: manager.accept_http_10,
            default_host_for_http_10: manager.default_host_for_http_10.clone().into_bytes(),
            allow_trace: false,
            allow_connect: manager.upgrades.iter().any(connect),
            underscores: manager.underscores,
        }
    }
}

/// The protocol a client wants to switch to, lower case.
///
/// Invariant: `len <= bytes.len()`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct UpgradeToken {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl UpgradeToken {
    /// Longest protocol name, in bytes. Registered names have at most 12.
    const MAX: usize = 31;

    /// A token of these bytes; `None` when it is empty, too long or not a token.
    pub fn new(name: &[u8]) -> Option<Self> {
        let len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
        let mut bytes = [0; Self::MAX];
        let target = bytes.get_mut(..name.len())?;
        target.copy_from_slice(name);
        let token = |b: &u8| fields::is_token(*b) || *b == b'/';
        name.iter().all(token).then_some(Self { bytes, len })
    }

    /// The name as it was sent; who compares it ignores case.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether it is the name of the same protocol.
    pub fn is(&self, name: &[u8]) -> bool {
        self.as_bytes().eq_ignore_ascii_case(name)
    }
}

impl std::fmt::Debug for UpgradeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UpgradeToken({})", self.as_bytes().escape_ascii())
    }
}

/// Whether a head that is not complete yet can have become decidable by the bytes after `seen`.
///
/// A caller that was told "need more" at `seen` bytes may skip parsing while this is false, so
/// that a client which sends its head byte by byte costs a parse per line instead of per byte. An
/// error inside a line is then found when the line ends.
pub fn worth_parsing(input: &[u8], seen: usize, limits: &Limits) -> bool {
    /// Short heads are always looked at, so that what is not HTTP is refused at once.
    const ALWAYS: usize = 32;
    let size = limits.max_head_bytes.min(limits.max_uri_bytes);
    input.len() <= ALWAYS
        || input.len() > size
        || input.get(seen..).is_none_or(|new| memchr::memchr(b'\n', new).is_some())
}

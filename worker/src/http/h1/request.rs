//! Request heads: from bytes to [`RequestHead`] and a verdict about framing and reuse.
//!
//! Everything ambiguous is refused with the status the client should get. What depends on the
//! path's content (dot segments, escapes) is the business of [`crate::http::path`].

use std::mem::MaybeUninit;

use super::fields::{Coding, FieldError, Fields, Side, has_strict_line_ends};
use super::{Framing, Limits, UpgradeToken};
use crate::http::head::{RequestHead, Version};

/// What a complete request head says beside its content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ParsedRequest {
    /// Bytes of the head in the input, empty lines before it included.
    pub head_len: usize,
    /// How long the body is.
    pub framing: Framing,
    /// Whether the client wants to go on with the connection after this request.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body. The `expect` line is
    /// not in the list of headers.
    pub expect_continue: bool,
    /// The protocol the client offers to switch to. A request with a body cannot upgrade.
    pub upgrade: Option<UpgradeToken>,
    /// A CONNECT request: the path is empty, the authority is `host:port`.
    pub connect: bool,
}

/// A request that is answered here and now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reject {
    /// Status to answer with.
    pub status: u16,
    /// Whether the connection must end after the answer. When false, the request had no body and
    /// the next one starts after [`Self::head_len`] bytes.
    pub close: bool,
    /// Bytes of the refused head, 0 when `close` is true.
    pub head_len: usize,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
}

impl Reject {
    /// A refusal after which nothing on the connection can be trusted.
    const fn fatal(status: u16, details: &'static str) -> Self {
        Self { status, close: true, head_len: 0, details }
    }

    /// Lets the connection live when the refused request was well framed and had no body.
    fn after(mut self, parsed: &ParsedRequest) -> Self {
        if parsed.keep_alive && parsed.framing.is_empty() && !parsed.connect {
            self.close = false;
            self.head_len = parsed.head_len;
        }
        self
    }
}

impl From<FieldError> for Reject {
    fn from(error: FieldError) -> Self {
        Self::fatal(400, error.details())
    }
}

/// Empty lines tolerated before a request (RFC 9112 §2.2 asks for one).
const MAX_EMPTY_LINES: usize = 2;

/// Header lines parsed without allocating. Envoy's default limit is 100.
const INLINE_HEADERS: usize = 128;

/// Reads a request head from the start of `input` into `head`.
///
/// `None` means that more bytes are needed. `head` is only meaningful when a request is returned.
///
/// # Errors
/// The answer to give when the request is malformed, too large or against the policy.
pub fn parse(
    input: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<ParsedRequest>, Reject> {
    let Some(skipped) = empty_lines(input)? else { return Ok(None) };
    let rest = input.get(skipped..).unwrap_or_default();
    // Whatever lies beyond the limit must not change the verdict.
    let window = rest.get(..limits.max_head_bytes).unwrap_or(rest);
    let parsed = if limits.max_headers <= INLINE_HEADERS {
        let mut slots = [const { MaybeUninit::uninit() }; INLINE_HEADERS];
        let slots = slots.get_mut(..limits.max_headers).unwrap_or_default();
        parse_window(window, slots, limits, head)
    } else {
        let mut slots = vec![MaybeUninit::uninit(); limits.max_headers];
        parse_window(window, &mut slots, limits, head)
    };
    match parsed {
        Ok(None) if window.len() >= limits.max_head_bytes => Err(head_too_large(window)),
        Ok(parsed) => Ok(parsed.map(|p| ParsedRequest { head_len: p.head_len + skipped, ..p })),
        Err(reject) if reject.head_len > 0 => {
            Err(Reject { head_len: reject.head_len + skipped, ..reject })
        }
        Err(reject) => Err(reject),
    }
}

/// Length of the empty lines at the start; `None` when it is not known yet.
fn empty_lines(input: &[u8]) -> Result<Option<usize>, Reject> {
    let mut rest = input;
    for _ in 0..=MAX_EMPTY_LINES {
        match rest {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', after @ ..] => rest = after,
            [b'\r' | b'\n', ..] => break,
            _ => return Ok(Some(input.len() - rest.len())),
        }
    }
    Err(Reject::fatal(400, "http1.codec_error"))
}

fn head_too_large(window: &[u8]) -> Reject {
    match memchr::memchr(b'\n', window) {
        None => Reject::fatal(414, "http1.uri_too_long"),
        Some(_) => Reject::fatal(431, "http1.headers_too_large"),
    }
}

fn parse_window<'b>(
    window: &'b [u8],
    slots: &mut [MaybeUninit<httparse::Header<'b>>],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<ParsedRequest>, Reject> {
    let mut request = httparse::Request::new(&mut []);
    let status = request.parse_with_uninit_headers(window, slots);
    match status {
        Ok(httparse::Status::Complete(head_len)) => {
            finish(window.get(..head_len).unwrap_or_default(), &request, limits, head).map(Some)
        }
        Ok(httparse::Status::Partial) if uri_too_long(window, limits) => {
            Err(Reject::fatal(414, "http1.uri_too_long"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => failure(error, window, limits),
    }
}

/// Whether the request target exceeds its limit, in a head that may be incomplete or broken.
#[cold]
fn uri_too_long(window: &[u8], limits: &Limits) -> bool {
    let Some(space) = memchr::memchr(b' ', window) else { return false };
    let (method, target) = window.split_at(space);
    let target = target.get(1..).unwrap_or_default();
    !method.is_empty()
        && method.iter().all(|b| super::fields::is_token(*b))
        && target.len() > limits.max_uri_bytes
        && target.iter().take(limits.max_uri_bytes + 1).all(|b| *b > b' ' && *b != 0x7f)
}

/// Gives the tokenizer's errors their statuses.
#[cold]
fn failure(
    error: httparse::Error,
    window: &[u8],
    limits: &Limits,
) -> Result<Option<ParsedRequest>, Reject> {
    if uri_too_long(window, limits) {
        return Err(Reject::fatal(414, "http1.uri_too_long"));
    }
    match error {
        httparse::Error::TooManyHeaders => Err(Reject::fatal(431, "http1.too_many_headers")),
        httparse::Error::HeaderName | httparse::Error::HeaderValue => {
            Err(Reject::fatal(400, "http1.invalid_characters"))
        }
        httparse::Error::Version => match version_shape(window) {
            Shape::Incomplete => Ok(None),
            Shape::Version(b'1'..=b'9') => Err(Reject::fatal(505, "http1.unsupported_version")),
            Shape::Version(_) | Shape::Other => Err(Reject::fatal(400, "http1.codec_error")),
        },
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            Err(Reject::fatal(400, "http1.codec_error"))
        }
    }
}

/// What stands where the version should be.
enum Shape {
    /// The beginning of `HTTP/d.d`.
    Incomplete,
    /// `HTTP/d.d`, with this major digit.
    Version(u8),
    /// Something else.
    Other,
}

fn version_shape(window: &[u8]) -> Shape {
    let Some(text) = window.splitn(3, |b| *b == b' ').nth(2) else { return Shape::Other };
    let fits = |(at, b): (usize, &u8)| match b"HTTP/0.0".get(at) {
        Some(b'0') => b.is_ascii_digit(),
        Some(letter) => b == letter,
        None => true,
    };
    match text.get(..8) {
        Some(version) if version.iter().enumerate().all(fits) => {
            Shape::Version(version.get(5).copied().unwrap_or(b'0'))
        }
        None if text.iter().enumerate().all(fits) => Shape::Incomplete,
        Some(_) | None => Shape::Other,
    }
}

/// Judges a complete head and fills the caller's.
fn finish(
    bytes: &[u8],
    request: &httparse::Request<'_, '_>,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<ParsedRequest, Reject> {
    let method = request.method.unwrap_or_default().as_bytes();
    let target = request.path.unwrap_or_default().as_bytes();
    if target.len() > limits.max_uri_bytes {
        return Err(Reject::fatal(414, "http1.uri_too_long"));
    }
    if !has_strict_line_ends(bytes, request.headers.len()) {
        return Err(Reject::fatal(400, "http1.bare_lf"));
    }
    if !is_method(method) {
        return Err(Reject::fatal(400, "http1.invalid_method"));
    }
    head.version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let fields =
        Fields::read(Side::Request, bytes, request.headers, limits.underscores, &mut head.headers)?;
    let old = head.version == Version::Http10;
    let framing = framing(&fields, head.version)?;
    let parsed = ParsedRequest {
        head_len: bytes.len(),
        framing,
        keep_alive: !fields.close && (!old || fields.keep_alive),
        expect_continue: !old && fields.expect.is_some(),
        upgrade: if old { None } else { upgrade(&fields, framing) },
        connect: method == b"CONNECT",
    };
    head.method.clear();
    head.method.extend_from_slice(method);
    check_target(target, &fields, limits, head).map_err(|reject| reject.after(&parsed))?;
    check_policy(&fields, limits, head, &parsed).map_err(|reject| reject.after(&parsed))?;
    Ok(parsed)
}

/// Longest method, in bytes. The longest registered one has 17.
const MAX_METHOD: usize = 32;

/// Upper case only, as Envoy: `get` is not GET, and nobody should guess whether it is.
fn is_method(method: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    method.len() <= MAX_METHOD
        && method.first().is_some_and(u8::is_ascii_uppercase)
        && method.iter().all(fits)
}

fn framing(fields: &Fields<'_>, version: Version) -> Result<Framing, Reject> {
    const BOTH: Reject = Reject::fatal(400, "http1.content_length_and_chunked_not_allowed");
    const INVALID: Reject = Reject::fatal(400, "http1.invalid_transfer_encoding");
    match (fields.coding, fields.content_length) {
        (Coding::None, None) => Ok(Framing::None),
        (Coding::None, Some(length)) => Ok(Framing::Length(length)),
        (_, Some(_)) => Err(BOTH),
        (_, None) if version == Version::Http10 => Err(INVALID),
        (Coding::Chunked, None) => Ok(Framing::Chunked),
        (Coding::Invalid, None) => Err(INVALID),
        (Coding::Unsupported, None) => {
            Err(Reject::fatal(501, "http1.unsupported_transfer_encoding"))
        }
    }
}

/// The upgrade a request offers. `h2c` is never taken: HTTP/2 without TLS starts with its preface
/// here. An offer in a request with a body is ignored, so that no byte can be both body and
/// tunnel.
fn upgrade(fields: &Fields<'_>, framing: Framing) -> Option<UpgradeToken> {
    let offers = fields.upgrade.filter(|_| fields.upgrade_named && framing.is_empty())?;
    super::fields::offer(offers).and_then(UpgradeToken::new)
}

/// Fills path and authority from the target (RFC 9112 §3.2) and the Host header.
fn check_target(
    target: &[u8],
    fields: &Fields<'_>,
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<(), Reject> {
    const INVALID: Reject = Reject::fatal(400, "http1.invalid_url");
    head.path.clear();
    head.authority.clear();
    // Without an early exit the compiler looks at many bytes at once.
    let bad = |b: &u8| u8::from(!b.is_ascii_graphic()) | u8::from(*b == b'#');
    if target.iter().fold(0, |sum, b| sum | bad(b)) != 0 {
        return Err(INVALID);
    }
    let host = match fields.host {
        Some(host) => host,
        None if head.version == Version::Http10 => &limits.default_host_for_http_10,
        None => &[],
    };
    let may_lack_it = head.version == Version::Http10 && is_absolute(target);
    if fields.host.is_none() && host.is_empty() && !may_lack_it {
        return Err(Reject::fatal(400, "missing_host_header"));
    }
    // An empty one is what a client sends whose URI has no authority (RFC 9112 §3.2).
    if !host.is_empty() && !is_authority(host) {
        return Err(Reject::fatal(400, "http1.invalid_host"));
    }
    match target {
        [b'/', ..] if head.method != b"CONNECT" => {
            head.path.extend_from_slice(target);
            head.authority.extend_from_slice(host);
            Ok(())
        }
        b"*" if head.method == b"OPTIONS" => {
            head.path.push(b'*');
            head.authority.extend_from_slice(host);
            Ok(())
        }
        authority if head.method == b"CONNECT" => {
            if !is_authority(authority) || port(authority).is_none_or(<[u8]>::is_empty) {
                return Err(INVALID);
            }
            head.authority.extend_from_slice(authority);
            Ok(())
        }
        url if limits.allow_absolute_url => take_absolute(url, head).ok_or(INVALID),
        _ => Err(INVALID),
    }
}

fn is_absolute(target: &[u8]) -> bool {
    after_scheme(target).is_some()
}

fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Takes `http://authority/path?query` apart. Its authority wins over Host (RFC 9112 §3.2.2).
fn take_absolute(url: &[u8], head: &mut RequestHead) -> Option<()> {
    let rest = after_scheme(url)?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_authority(authority) {
        return None;
    }
    head.authority.extend_from_slice(authority);
    match path {
        [] if head.method == b"OPTIONS" => head.path.push(b'*'),
        [b'/', ..] => head.path.extend_from_slice(path),
        query => {
            head.path.push(b'/');
            head.path.extend_from_slice(query);
        }
    }
    Some(())
}

/// Whether bytes are `host`, `host:port`, `[v6]` or `[v6]:port`, without user information.
pub(super) fn is_authority(authority: &[u8]) -> bool {
    let (host, rest) = if let [b'[', inner @ ..] = authority {
        let Some(end) = memchr::memchr(b']', inner) else { return false };
        let (address, rest) = inner.split_at(end);
        let v6 = |b: &u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
        if !address.iter().all(v6) {
            return false;
        }
        (address, rest.get(1..).unwrap_or_default())
    } else {
        let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
        let (host, rest) = authority.split_at(end);
        if !host.iter().all(|b| is_host_byte(*b)) {
            return false;
        }
        (host, rest)
    };
    let port = match rest {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port && !host.is_empty()
}

/// Unreserved characters and those delimiters that nobody takes for a separator.
#[inline]
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

fn port(authority: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memrchr(b':', authority)?;
    authority.get(colon + 1..)
}

/// What is well formed and yet not served.
fn check_policy(
    fields: &Fields<'_>,
    limits: &Limits,
    head: &RequestHead,
    parsed: &ParsedRequest,
) -> Result<(), Reject> {
    if head.version == Version::Http10 && !limits.accept_http_10 {
        return Err(Reject::fatal(426, "low_version"));
    }
    match head.method.as_slice() {
        b"CONNECT" if !limits.allow_connect => {
            return Err(Reject::fatal(404, "http1.connect_not_allowed"));
        }
        // Content of a CONNECT request has no meaning (RFC 9110 §9.3.6), the tunnel's bytes do.
        b"CONNECT" if parsed.framing != Framing::None => {
            return Err(Reject::fatal(400, "http1.connect_with_body"));
        }
        b"TRACE" if !limits.allow_trace => {
            return Err(Reject::fatal(405, "http1.trace_not_allowed"));
        }
        _ => {}
    }
    match fields.expect {
        Some(value) if parsed.expect_continue && !super::fields::is_continue(value) => {
            Err(Reject::fatal(417, "http1.unsupported_expectation"))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, parse};
    use crate::http::h1::Framing;
    use crate::http::head::RequestHead;

    #[test]
    fn browserless_request_fills_every_field() {
        let mut head = RequestHead::default();
        let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: x:80\r\nX-A:  1 \r\nEmpty:\r\n\
            Connection: close, x-gone\r\nX-Gone: 1\r\nContent-Length: 3\r\n\r\nabc";
        let parsed = parse(text, &Limits::default(), &mut head).unwrap().unwrap();
        assert_eq!(parsed.head_len, text.len() - 3);
        assert_eq!(parsed.framing, Framing::Length(3));
        assert!(!parsed.keep_alive && !parsed.connect && !parsed.expect_continue);
        assert_eq!(
            (&*head.method, &*head.path, &*head.authority),
            (&b"POST"[..], &b"/a?b"[..], &b"x:80"[..])
        );
        let lines: Vec<_> = head.headers.iter().collect();
        assert_eq!(lines, [(&b"x-a"[..], &b"1"[..]), (b"empty", b""), (b"content-length", b"3")]);
    }
}

//! Heads to bytes.
//!
//! The framing and connection headers are written from what the caller decided, never copied from
//! the list: whatever stands there, one framing header at most leaves.

use super::Framing;
use crate::http::head::{RequestHead, ResponseHead};

/// What the `connection` header says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Connection<'a> {
    /// No header: HTTP/1.1 keeps the connection.
    #[default]
    Default,
    /// `connection: close`.
    Close,
    /// `connection: keep-alive`, for HTTP/1.0 peers.
    KeepAlive,
    /// `connection: Upgrade` and `upgrade` with this protocol.
    Upgrade(&'a [u8]),
}

/// Appends a request head. The target is the path, or the authority for CONNECT.
pub fn request(
    out: &mut Vec<u8>,
    head: &RequestHead,
    framing: Framing,
    connection: Connection<'_>,
) {
    let connect = head.method == b"CONNECT";
    let target = if connect { &head.authority } else { &head.path };
    out.reserve(head.method.len() + target.len() + head.authority.len() + 64);
    out.extend_from_slice(&head.method);
    out.push(b' ');
    write_target(out, target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    write_clean(out, &head.authority);
    out.extend_from_slice(b"\r\n");
    head.headers.write_some_to(out, |name| !is_ours(name) && name != b"host");
    // Methods that may carry content say so when there is none (RFC 9110 §8.6), all but those for
    // which nobody expects it.
    let framing = match (framing, head.method.as_slice()) {
        (Framing::None, b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT") => Framing::None,
        (Framing::None, _) => Framing::Length(0),
        (framing, _) => framing,
    };
    write_framing(out, framing);
    write_connection(out, connection);
    out.extend_from_slice(b"\r\n");
}

/// Appends a response head.
///
/// `length` is what `content-length` says when there is no body but the header informs about one
/// (answers to HEAD, 304); it is ignored with any other framing.
pub fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    framing: Framing,
    length: Option<u64>,
    connection: Connection<'_>,
) {
    write_status_line(out, head.status);
    head.headers.write_some_to(out, |name| !is_ours(name));
    match (framing, length) {
        // These never have content, and so no framing (RFC 9110 §8.6).
        _ if head.status < 200 || head.status == 204 => {}
        (Framing::None, Some(length)) => write_framing(out, Framing::Length(length)),
        _ => write_framing(out, framing),
    }
    write_connection(out, connection);
    out.extend_from_slice(b"\r\n");
}

/// Appends `HTTP/1.1 100 Continue` with its empty line.
pub fn write_continue(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Whether only the codec may write this header.
#[inline]
fn is_ours(name: &[u8]) -> bool {
    match name.len() {
        7 => name == b"upgrade",
        10 => matches!(name, b"connection" | b"keep-alive"),
        14 => name == b"content-length",
        16 => name == b"proxy-connection",
        17 => name == b"transfer-encoding",
        // A filter that adds a nameless header must not break the message.
        0 => true,
        _ => false,
    }
}

fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            let mut digits = itoa::Buffer::new();
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(digits.format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn write_connection(out: &mut Vec<u8>, connection: Connection<'_>) {
    match connection {
        Connection::Default => {}
        Connection::Close => out.extend_from_slice(b"connection: close\r\n"),
        Connection::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Connection::Upgrade(protocol) => {
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: ");
            write_clean(out, protocol);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes a request target. Rewrites may have put bytes into it that would end it early; those
/// are percent-encoded.
fn write_target(out: &mut Vec<u8>, target: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if target.iter().fold(true, |clean, b| clean & b.is_ascii_graphic()) {
        out.extend_from_slice(target);
        return;
    }
    for &byte in target {
        if byte.is_ascii_graphic() {
            out.push(byte);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

/// Writes an authority or protocol name without the bytes that no such name has.
fn write_clean(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().fold(true, |clean, b| clean & b.is_ascii_graphic()) {
        out.extend_from_slice(text);
    } else {
        out.extend(text.iter().filter(|b| b.is_ascii_graphic()));
    }
}

fn write_status_line(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(digits.format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The standard reason phrase, empty for unknown statuses.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        _ => reason_of_error(status),
    }
}

fn reason_of_error(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}

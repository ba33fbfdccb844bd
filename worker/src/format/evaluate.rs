//! Evaluates one operator against one stream.

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::Path,
    time::Instant,
};

use super::operator::{Address, AddressPart, Duration, Kind, Operator, PathSource};
use crate::http::{
    headers::Headers,
    stream_info::{LogContext, StreamInfo},
};

/// What [`Operator::evaluate`] wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing: there is no value.
    Missing,
    /// Decimal digits.
    Number,
    /// Bytes, perhaps chosen by a client.
    Text,
}

impl Operator {
    /// Appends the value, raw.
    pub(crate) fn evaluate(&self, out: &mut Vec<u8>, cx: &LogContext<'_>) -> Outcome {
        let start = out.len();
        let outcome = self.kind.write(out, cx);
        if let Some(limit) = self.max_len {
            out.truncate(start.saturating_add(limit));
        }
        outcome
    }
}

impl Kind {
    fn write(&self, out: &mut Vec<u8>, cx: &LogContext<'_>) -> Outcome {
        let info = cx.info;
        match self {
            Self::StartTime(format) => {
                format.write(out, info.started_at);
                Outcome::Text
            }
            Self::EmitTime(format) => {
                format.write(out, info.started_at + cx.now.duration_since(info.started));
                Outcome::Text
            }
            Self::Request(name, alternative) => {
                let get = |name: &[u8]| request_header(cx, name);
                bytes(out, first(get, name, alternative.as_deref()))
            }
            Self::Response(name, alternative) => response(out, cx, name, alternative.as_deref()),
            Self::Trailer(name, alternative) => {
                let get = |name: &[u8]| cx.trailers.and_then(|trailers| trailers.get(name));
                bytes(out, first(get, name, alternative.as_deref()))
            }
            Self::Path { with_query, source } => bytes(out, path(cx, *with_query, *source)),
            Self::QueryParam(name) => bytes(out, query_param(cx, name)),
            Self::Protocol => bytes(out, info.protocol.map(|version| version.as_str().as_bytes())),
            Self::ResponseCode => number(out, Some(u64::from(info.status))),
            Self::ResponseCodeDetails { whitespace } => details(out, info, *whitespace),
            Self::ResponseFlags => {
                info.flags.letters(out);
                Outcome::Text
            }
            Self::ResponseFlagsLong => long_flags(out, info),
            Self::BytesReceived => number(out, Some(info.bytes_received)),
            Self::BytesSent => number(out, Some(info.bytes_sent)),
            Self::Duration(duration) => number(out, duration.millis(info, cx.now)),
            Self::Address(address, part) => part.write(out, address.of(info)),
            Self::UpstreamCluster => {
                text(out, info.upstream.as_ref().map_or("", |upstream| &upstream.cluster))
            }
            Self::UpstreamFailure => {
                let failure =
                    info.upstream.as_ref().and_then(|upstream| upstream.failure.as_deref());
                text(out, failure.unwrap_or_default())
            }
            Self::UpstreamAttempts => {
                let attempts = info.upstream.as_ref().map_or(0, |upstream| upstream.attempts);
                number(out, Some(u64::from(attempts)))
            }
            Self::RouteName => text(out, &info.route_name),
            Self::FilterChainName => text(out, &info.connection.filter_chain),
            Self::ConnectionId => number(out, Some(info.connection.id)),
            Self::AccessLogType => text(
                out,
                if info.protocol.is_some() { "DownstreamEnd" } else { "TcpConnectionEnd" },
            ),
            Self::Constant(value) => text(out, value),
            Self::Never => Outcome::Missing,
        }
    }
}

fn first<'a>(
    get: impl Fn(&[u8]) -> Option<&'a [u8]>,
    name: &[u8],
    alternative: Option<&[u8]>,
) -> Option<&'a [u8]> {
    get(name).or_else(|| get(alternative?))
}

/// A request that could not be read has no method, no path and no scheme.
fn request_header<'a>(cx: &LogContext<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let head = cx.request?;
    if name == b":scheme" && head.method.is_empty() {
        return None;
    }
    head.get(name).filter(|value| !value.is_empty() || name.first() != Some(&b':'))
}

fn response(
    out: &mut Vec<u8>,
    cx: &LogContext<'_>,
    name: &[u8],
    alternative: Option<&[u8]>,
) -> Outcome {
    let Some(head) = cx.response else { return Outcome::Missing };
    if name == b":status" {
        number(out, Some(u64::from(head.status)));
        return Outcome::Text;
    }
    bytes(out, first(|name| Headers::get(&head.headers, name), name, alternative))
}

fn path<'a>(cx: &LogContext<'a>, with_query: bool, source: PathSource) -> Option<&'a [u8]> {
    let head = cx.request?;
    let original = || head.headers.get(b"x-envoy-original-path");
    let found = match source {
        PathSource::Original => original()?,
        PathSource::Path => &head.path,
        PathSource::OriginalOrPath => original().unwrap_or(&head.path),
    };
    let end = if with_query { None } else { memchr::memchr(b'?', found) };
    found.get(..end.unwrap_or(found.len())).filter(|path| !path.is_empty())
}

fn query_param<'a>(cx: &LogContext<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let path = path(cx, true, PathSource::OriginalOrPath)?;
    let query = path.get(memchr::memchr(b'?', path)? + 1..)?;
    query.split(|byte| *byte == b'&').find_map(|pair| match memchr::memchr(b'=', pair) {
        Some(at) if pair.get(..at) == Some(name) => pair.get(at + 1..),
        None if pair == name => Some(&b""[..]),
        Some(_) | None => None,
    })
}

fn details(out: &mut Vec<u8>, info: &StreamInfo, whitespace: bool) -> Outcome {
    let start = out.len();
    let outcome = text(out, &info.details);
    if !whitespace {
        for byte in out.iter_mut().skip(start).filter(|byte| byte.is_ascii_whitespace()) {
            *byte = b'_';
        }
    }
    outcome
}

fn long_flags(out: &mut Vec<u8>, info: &StreamInfo) -> Outcome {
    let start = out.len();
    for (_, name) in info.flags.names() {
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
    }
    if out.len() == start {
        out.push(b'-');
    }
    Outcome::Text
}

impl Duration {
    fn millis(self, info: &StreamInfo, now: Instant) -> Option<u64> {
        let ended = info.ended.unwrap_or(now);
        let (from, to) = match self {
            Self::Total => (info.started, ended),
            Self::Request => (info.started, info.request_received?),
            Self::Response => (info.started, info.upstream_first_received?),
            Self::ResponseTx => (info.upstream_first_received?, ended),
            // What was received is passed on at once, so the later of the two is when the last
            // byte of the request went upstream.
            Self::RequestTx => {
                (info.started, info.request_received?.max(info.upstream_first_sent?))
            }
        };
        u64::try_from(to.saturating_duration_since(from).as_millis()).ok()
    }
}

/// Where one end of a connection is.
enum Place<'a> {
    Ip(SocketAddr),
    Unix(&'a Path),
}

impl Address {
    fn of(self, info: &StreamInfo) -> Option<Place<'_>> {
        let upstream = info.upstream.as_ref();
        let (address, path) = match self {
            Self::UpstreamHost => (upstream?.address, upstream?.path.as_deref()),
            Self::UpstreamRemote => {
                let upstream = upstream.filter(|up| up.connected)?;
                (upstream.address, upstream.path.as_deref())
            }
            Self::UpstreamLocal => (upstream?.local, None),
            // A client has no name of its own there; as in Envoy, the listener's stands for it.
            Self::DownstreamRemote => (info.remote, info.connection.unix()),
            Self::DownstreamDirectRemote => (info.connection.peer, info.connection.unix()),
            Self::DownstreamLocal => (info.connection.local, info.connection.unix()),
        };
        address.map(Place::Ip).or_else(|| path.map(Place::Unix))
    }
}

impl AddressPart {
    fn write(self, out: &mut Vec<u8>, place: Option<Place<'_>>) -> Outcome {
        let address = match (place, self) {
            (Some(Place::Ip(address)), _) => address,
            (Some(Place::Unix(path)), Self::Both | Self::Ip) => {
                return bytes(out, Some(path.as_os_str().as_bytes()));
            }
            (Some(Place::Unix(_)), Self::Port) | (None, _) => return Outcome::Missing,
        };
        match self {
            Self::Both => {
                ip(out, address.ip(), true);
                out.push(b':');
                decimal(out, u64::from(address.port()));
            }
            Self::Ip => ip(out, address.ip(), false),
            Self::Port => return number(out, Some(u64::from(address.port()))),
        }
        Outcome::Text
    }
}

fn ip(out: &mut Vec<u8>, address: IpAddr, brackets: bool) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                decimal(out, u64::from(octet));
            }
        }
        IpAddr::V6(address) if brackets => {
            out.extend_from_slice(format!("[{address}]").as_bytes());
        }
        IpAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

fn decimal(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn number(out: &mut Vec<u8>, value: Option<u64>) -> Outcome {
    let Some(value) = value else { return Outcome::Missing };
    decimal(out, value);
    Outcome::Number
}

fn bytes(out: &mut Vec<u8>, value: Option<&[u8]>) -> Outcome {
    let Some(value) = value else { return Outcome::Missing };
    out.extend_from_slice(value);
    Outcome::Text
}

/// A fact that is missing when it is empty.
fn text(out: &mut Vec<u8>, value: &str) -> Outcome {
    bytes(out, Some(value.as_bytes()).filter(|value| !value.is_empty()))
}

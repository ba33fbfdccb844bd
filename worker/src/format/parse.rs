//! From text to [`Format`].

use std::sync::Arc;

use super::{
    Format, Part,
    error::{FormatError, Mistake},
    operator::{Address, AddressPart, Duration, Kind, Operator, PathSource},
    time::TimeFormat,
};

/// Parses a format string.
///
/// # Errors
/// The first mistake and its place.
pub fn parse(text: &str) -> Result<Format, FormatError> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let plain = rest.find('%').unwrap_or(rest.len());
        literal.push_str(rest.get(..plain).unwrap_or_default());
        at += plain;
        let Some(command) = rest.get(plain + 1..) else { break };
        if command.starts_with('%') {
            literal.push('%');
            at += 2;
            continue;
        }
        let written =
            Written::split(command).map_err(|mistake| FormatError { offset: at, mistake })?;
        let operator = written.resolve().map_err(|mistake| FormatError { offset: at, mistake })?;
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal).into()));
        }
        parts.push(Part::Operator(operator));
        at += 1 + written.len;
    }
    if !literal.is_empty() {
        parts.push(Part::Text(literal.into()));
    }
    Ok(Format { source: Arc::from(text), parts: parts.into() })
}

/// An operator as written: `NAME(argument):length%`.
struct Written<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    max_len: Option<usize>,
    /// Bytes of all that, with the closing `%`.
    len: usize,
}

impl<'a> Written<'a> {
    fn split(command: &'a str) -> Result<Self, Mistake> {
        let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let end = command.bytes().position(|byte| !is_name(byte)).unwrap_or(command.len());
        let (name, rest) = command.split_at(end);
        if name.is_empty() {
            return Err(Mistake::NoOperator);
        }
        let not_closed = |argument| Mistake::NotClosed { name: name.to_owned(), argument };
        if let Some(inside) = rest.strip_prefix('(') {
            // An argument may hold `)` and `%`; it ends where the operator can end.
            let ends = inside.match_indices(')').find_map(|(close, _)| {
                let (max_len, len) = ending(inside.get(close + 1..)?)?;
                Some((inside.get(..close)?, max_len, end + 1 + close + 1 + len))
            });
            let (argument, max_len, len) = ends.ok_or_else(|| not_closed(true))?;
            return Ok(Self { name, argument: Some(argument), max_len, len });
        }
        let (max_len, len) = ending(rest).ok_or_else(|| not_closed(false))?;
        Ok(Self { name, argument: None, max_len, len: end + len })
    }

    fn resolve(&self) -> Result<Operator, Mistake> {
        let kind = match simple(self.name) {
            Some(kind) => {
                if self.argument.is_some() {
                    return Err(Mistake::ArgumentUnexpected { name: self.name.to_owned() });
                }
                kind
            }
            None => self.with_argument()?,
        };
        let numeric = matches!(
            kind,
            Kind::ResponseCode
                | Kind::BytesReceived
                | Kind::BytesSent
                | Kind::Duration(_)
                | Kind::UpstreamAttempts
                | Kind::ConnectionId
                | Kind::Address(_, AddressPart::Port)
        );
        if numeric && self.max_len.is_some() {
            return Err(Mistake::LengthUnexpected { name: self.name.to_owned() });
        }
        Ok(Operator { kind, max_len: self.max_len })
    }

    fn with_argument(&self) -> Result<Kind, Mistake> {
        Ok(match self.name {
            "START_TIME" => Kind::StartTime(self.time()?),
            "EMIT_TIME" => Kind::EmitTime(self.time()?),
            "REQ" | "REQUEST_HEADER" => self.header(Kind::Request)?,
            "RESP" | "RESPONSE_HEADER" => self.header(Kind::Response)?,
            "TRAILER" | "RESPONSE_TRAILER" => self.header(Kind::Trailer)?,
            "RESPONSE_CODE_DETAILS" => match self.argument {
                None => Kind::ResponseCodeDetails { whitespace: false },
                Some("ALLOW_WHITESPACES") => Kind::ResponseCodeDetails { whitespace: true },
                Some(_) => return Err(self.invalid("`ALLOW_WHITESPACES` is the only one")),
            },
            "PATH" => self.path()?,
            "QUERY_PARAM" => Kind::QueryParam(self.argument("name")?.as_bytes().into()),
            "ENVIRONMENT" => {
                // Envoy's value of a variable that is not set is a dash, not a missing value.
                let value = std::env::var(self.argument("NAME")?);
                Kind::Constant(value.map_or_else(|_| "-".into(), String::into_boxed_str))
            }
            name if NOT_IMPLEMENTED.contains(&name) => {
                return Err(Mistake::NotImplemented { name: name.to_owned() });
            }
            name => {
                return Err(Mistake::Unknown { name: name.to_owned(), suggestion: closest(name) });
            }
        })
    }

    fn argument(&self, example: &'static str) -> Result<&'a str, Mistake> {
        self.argument
            .filter(|argument| !argument.is_empty())
            .ok_or_else(|| Mistake::ArgumentMissing { name: self.name.to_owned(), example })
    }

    fn invalid(&self, expected: &'static str) -> Mistake {
        Mistake::ArgumentInvalid {
            name: self.name.to_owned(),
            argument: self.argument.unwrap_or_default().to_owned(),
            expected,
        }
    }

    fn time(&self) -> Result<TimeFormat, Mistake> {
        match self.argument {
            None | Some("") => Ok(TimeFormat::iso_millis()),
            Some(pattern) => TimeFormat::parse(pattern).ok_or_else(|| {
                self.invalid("it is a `strftime` pattern with a conversion that is not supported")
            }),
        }
    }

    fn header(
        &self,
        make: impl FnOnce(Box<[u8]>, Option<Box<[u8]>>) -> Kind,
    ) -> Result<Kind, Mistake> {
        let argument = self.argument("Header-Name")?;
        let (name, alternative) = match argument.split_once('?') {
            Some((name, alternative)) => (name, Some(alternative)),
            None => (argument, None),
        };
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?')
        };
        if !is_name(name) || !alternative.is_none_or(is_name) {
            return Err(self.invalid("a header name, or two joined by one `?`, is expected"));
        }
        let lower = |name: &str| name.to_ascii_lowercase().into_bytes().into_boxed_slice();
        Ok(make(lower(name), alternative.map(lower)))
    }

    fn path(&self) -> Result<Kind, Mistake> {
        let argument = self.argument.unwrap_or_default();
        let (query, source) = argument.split_once(':').unwrap_or((argument, ""));
        let expected = "`WQ` or `NQ`, then `:ORIG`, `:PATH` or `:ORIG_OR_PATH` are expected";
        let with_query = match query {
            "" | "WQ" => true,
            "NQ" => false,
            _ => return Err(self.invalid(expected)),
        };
        let source = match source {
            "" | "ORIG_OR_PATH" => PathSource::OriginalOrPath,
            "ORIG" => PathSource::Original,
            "PATH" => PathSource::Path,
            _ => return Err(self.invalid(expected)),
        };
        Ok(Kind::Path { with_query, source })
    }
}

/// `%` or `:digits%` at the start of `rest`: the length, and the bytes it takes.
fn ending(rest: &str) -> Option<(Option<usize>, usize)> {
    if rest.starts_with('%') {
        return Some((None, 1));
    }
    let digits = rest.strip_prefix(':')?.split('%').next()?;
    let closed = rest.as_bytes().get(1 + digits.len()) == Some(&b'%');
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    closed.then_some((Some(number.flatten()?), digits.len() + 2))
}

fn hostname() -> Kind {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => Kind::Never,
        name => Kind::Constant(name.into()),
    }
}

/// The operators without arguments.
fn simple(name: &str) -> Option<Kind> {
    if NEVER.contains(&name) {
        return Some(Kind::Never);
    }
    if let Some(kind) = address(name) {
        return Some(kind);
    }
    Some(match name {
        "PROTOCOL" => Kind::Protocol,
        "RESPONSE_CODE" => Kind::ResponseCode,
        "RESPONSE_FLAGS" => Kind::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Kind::ResponseFlagsLong,
        "BYTES_RECEIVED" => Kind::BytesReceived,
        "BYTES_SENT" => Kind::BytesSent,
        "DURATION" => Kind::Duration(Duration::Total),
        "REQUEST_DURATION" => Kind::Duration(Duration::Request),
        "RESPONSE_DURATION" => Kind::Duration(Duration::Response),
        "RESPONSE_TX_DURATION" => Kind::Duration(Duration::ResponseTx),
        "REQUEST_TX_DURATION" => Kind::Duration(Duration::RequestTx),
        "UPSTREAM_CLUSTER" => Kind::UpstreamCluster,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Kind::UpstreamFailure,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Kind::UpstreamAttempts,
        "ROUTE_NAME" => Kind::RouteName,
        "FILTER_CHAIN_NAME" => Kind::FilterChainName,
        "CONNECTION_ID" => Kind::ConnectionId,
        "STREAM_ID" => Kind::Request((*b"x-request-id").into(), None),
        "ACCESS_LOG_TYPE" => Kind::AccessLogType,
        "HOSTNAME" => hostname(),
        _ => return None,
    })
}

fn address(name: &str) -> Option<Kind> {
    if name == "UPSTREAM_HOST" {
        return Some(Kind::Address(Address::UpstreamHost, AddressPart::Both));
    }
    let parts = [
        ("_ADDRESS_WITHOUT_PORT", AddressPart::Ip),
        ("_ADDRESS", AddressPart::Both),
        ("_PORT", AddressPart::Port),
    ];
    let (whose, part) =
        parts.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part)))?;
    let address = match whose {
        "UPSTREAM_REMOTE" => Address::UpstreamRemote,
        "UPSTREAM_LOCAL" => Address::UpstreamLocal,
        "DOWNSTREAM_REMOTE" => Address::DownstreamRemote,
        "DOWNSTREAM_DIRECT_REMOTE" => Address::DownstreamDirectRemote,
        "DOWNSTREAM_LOCAL" => Address::DownstreamLocal,
        _ => return None,
    };
    Some(Kind::Address(address, part))
}

/// Operators whose value no stream has as long as there is no TLS, no virtual cluster and no
/// termination detail: Envoy shows `-` for them in that case too.
const NEVER: &[&str] = &[
    "CONNECTION_TERMINATION_DETAILS",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "REQUESTED_SERVER_NAME",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_TLS_VERSION",
    "VIRTUAL_CLUSTER_NAME",
];

/// Operators Envoy has and we do not.
const NOT_IMPLEMENTED: &[&str] = &[
    "BYTES_RETRANSMITTED",
    "CEL",
    "CLUSTER_METADATA",
    "COALESCE",
    "COMMON_DURATION",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DYNAMIC_METADATA",
    "FILTER_STATE",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "LOCAL_REPLY_BODY",
    "METADATA",
    "PACKETS_RETRANSMITTED",
    "QUERY_PARAMS",
    "REQUEST_HEADERS_BYTES",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "ROUNDTRIP_DURATION",
    "START_TIME_LOCAL",
    "TRACE_ID",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_METADATA",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
];

/// Names to suggest; the ones of [`NEVER`] come on top.
const KNOWN: &[&str] = &[
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DURATION",
    "EMIT_TIME",
    "ENVIRONMENT",
    "FILTER_CHAIN_NAME",
    "HOSTNAME",
    "PATH",
    "PROTOCOL",
    "QUERY_PARAM",
    "REQ",
    "REQUEST_DURATION",
    "REQUEST_HEADER",
    "REQUEST_TX_DURATION",
    "RESP",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADER",
    "RESPONSE_TRAILER",
    "RESPONSE_TX_DURATION",
    "ROUTE_NAME",
    "START_TIME",
    "STREAM_ID",
    "TRAILER",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
];

/// The known name that is nearest, when it is near enough to be a slip.
fn closest(name: &str) -> Option<&'static str> {
    let limit = (name.len() / 3).max(1);
    KNOWN
        .iter()
        .chain(NEVER)
        .map(|known| (distance(name.as_bytes(), known.as_bytes()), *known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Number of bytes to insert, delete or replace to get from one to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

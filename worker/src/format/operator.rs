//! The operators, parsed: everything that can be decided before the first request is decided.

use super::time::TimeFormat;

/// A command operator with its arguments.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Which one.
    pub kind: Kind,
    /// `:Z`: longest value, bytes.
    pub max_len: Option<usize>,
}

/// Which fact an operator shows.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `%START_TIME%`.
    StartTime(TimeFormat),
    /// `%EMIT_TIME%`.
    EmitTime(TimeFormat),
    /// `%REQ(X?Y)%`: lower-case name and alternative.
    Request(Box<[u8]>, Option<Box<[u8]>>),
    /// `%RESP(X?Y)%`.
    Response(Box<[u8]>, Option<Box<[u8]>>),
    /// `%TRAILER(X?Y)%`.
    Trailer(Box<[u8]>, Option<Box<[u8]>>),
    /// `%PATH(..)%`.
    Path {
        /// `WQ` rather than `NQ`.
        with_query: bool,
        /// Which header.
        source: PathSource,
    },
    /// `%QUERY_PARAM(X)%`.
    QueryParam(Box<[u8]>),
    /// `%PROTOCOL%`.
    Protocol,
    /// `%RESPONSE_CODE%`.
    ResponseCode,
    /// `%RESPONSE_CODE_DETAILS%`, and whether white space is left in it.
    ResponseCodeDetails {
        /// `ALLOW_WHITESPACES`.
        whitespace: bool,
    },
    /// `%RESPONSE_FLAGS%`.
    ResponseFlags,
    /// `%RESPONSE_FLAGS_LONG%`.
    ResponseFlagsLong,
    /// `%BYTES_RECEIVED%`.
    BytesReceived,
    /// `%BYTES_SENT%`.
    BytesSent,
    /// `%DURATION%` and its relatives, milliseconds.
    Duration(Duration),
    /// The address operators.
    Address(Address, AddressPart),
    /// `%UPSTREAM_CLUSTER%`.
    UpstreamCluster,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    UpstreamFailure,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`.
    UpstreamAttempts,
    /// `%ROUTE_NAME%`.
    RouteName,
    /// `%FILTER_CHAIN_NAME%`.
    FilterChainName,
    /// `%CONNECTION_ID%`.
    ConnectionId,
    /// `%ACCESS_LOG_TYPE%`.
    AccessLogType,
    /// `%ENVIRONMENT(X)%` and `%HOSTNAME%`, looked up while parsing.
    Constant(Box<str>),
    /// Facts of TLS and other things no stream has without them: always missing.
    Never,
}

/// Where `%PATH%` looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathSource {
    /// `ORIG`: `x-envoy-original-path` only.
    Original,
    /// `PATH`: `:path` only.
    Path,
    /// `ORIG_OR_PATH`, the default.
    OriginalOrPath,
}

/// A span of time, shown in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duration {
    /// `%DURATION%`: first byte in to last byte out.
    Total,
    /// `%REQUEST_DURATION%`: first to last byte of the request.
    Request,
    /// `%RESPONSE_DURATION%`: first byte of the request to first byte of the response.
    Response,
    /// `%RESPONSE_TX_DURATION%`: first byte from upstream to last byte downstream.
    ResponseTx,
    /// `%REQUEST_TX_DURATION%`: first byte of the request to its last byte upstream.
    RequestTx,
}

/// Whose address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Address {
    /// The endpoint that was chosen.
    UpstreamHost,
    /// The endpoint, once it is connected.
    UpstreamRemote,
    /// Ours, towards the endpoint.
    UpstreamLocal,
    /// The client as `x-forwarded-for` says.
    DownstreamRemote,
    /// The peer of the socket.
    DownstreamDirectRemote,
    /// Ours, towards the client.
    DownstreamLocal,
}

/// What of an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddressPart {
    /// `ip:port`.
    Both,
    /// `ip`.
    Ip,
    /// `port`.
    Port,
}

//! What is known about one stream (an HTTP exchange or an L4 connection), for logs, header
//! operators and statistics.

use std::{
    borrow::Cow, net::SocketAddr, path::Path, rc::Rc, sync::Arc, time::Instant, time::SystemTime,
};

use super::head::{RequestHead, ResponseHead, Version};
use super::headers::Headers;

/// Facts of the downstream connection.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Number of the connection, unique in the generation.
    pub id: u64,
    /// Address of the socket's peer; `None` on Unix sockets.
    pub peer: Option<SocketAddr>,
    /// Local address of the socket; `None` on Unix sockets.
    pub local: Option<SocketAddr>,
    /// The Unix socket that the listener has, if it has one.
    pub path: Option<Arc<Path>>,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Name of the filter chain.
    pub filter_chain: Arc<str>,
}

impl ConnectionInfo {
    /// The listener's Unix socket, if the connection came on that.
    pub fn unix(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.peer.is_none())
    }
}

/// Facts of the upstream side.
#[derive(Clone, Debug)]
pub struct UpstreamInfo {
    /// Address of the endpoint that was chosen (`%UPSTREAM_HOST%`).
    pub address: Option<SocketAddr>,
    /// The same when it is a Unix socket.
    pub path: Option<Arc<Path>>,
    /// There was a connection to it.
    pub connected: bool,
    /// Our address on that connection; `None` also when nobody is shown it.
    pub local: Option<SocketAddr>,
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Endpoints that were tried, one after the other.
    pub attempts: u32,
    /// Why there is no connection (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub failure: Option<Box<str>>,
}

impl UpstreamInfo {
    /// A cluster that gets its first attempt.
    pub fn new(cluster: &Arc<str>) -> Self {
        Self {
            address: None,
            path: None,
            connected: false,
            local: None,
            cluster: Arc::clone(cluster),
            attempts: 1,
            failure: None,
        }
    }

    /// The attempt is at this address.
    pub fn attempt(&mut self, address: Option<SocketAddr>) {
        self.address = address;
        self.path = None;
        self.connected = false;
        self.local = None;
        self.failure = None;
    }
}

/// Envoy's response flags; see [`ResponseFlags::letters`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ResponseFlags {
    bits: u32,
    /// Their places in [`FLAGS`], from 1, in five bits each, the last one that was set lowest: Envoy shows
    /// flags in the order in which they were set. There is room for twelve.
    order: u64,
}

/// Flag, letters and long name.
pub const FLAGS: &[(u32, &str, &str)] = &[
    (ResponseFlags::NO_HEALTHY_UPSTREAM, "UH", "NoHealthyUpstream"),
    (ResponseFlags::UPSTREAM_CONNECTION_FAILURE, "UF", "UpstreamConnectionFailure"),
    (ResponseFlags::UPSTREAM_OVERFLOW, "UO", "UpstreamOverflow"),
    (ResponseFlags::NO_ROUTE, "NR", "NoRouteFound"),
    (ResponseFlags::DELAY_INJECTED, "DI", "DelayInjected"),
    (ResponseFlags::FAULT_INJECTED, "FI", "FaultInjected"),
    (ResponseFlags::RATE_LIMITED, "RL", "RateLimited"),
    (ResponseFlags::RETRY_LIMIT, "URX", "UpstreamRetryLimitExceeded"),
    (ResponseFlags::NO_CLUSTER, "NC", "NoClusterFound"),
    (ResponseFlags::DURATION_TIMEOUT, "DT", "DurationTimeout"),
    (ResponseFlags::DOWNSTREAM_TERMINATION, "DC", "DownstreamConnectionTermination"),
    (ResponseFlags::UPSTREAM_TIMEOUT, "UT", "UpstreamRequestTimeout"),
    (ResponseFlags::LOCAL_RESET, "LR", "LocalReset"),
    (ResponseFlags::UPSTREAM_REMOTE_RESET, "UR", "UpstreamRemoteReset"),
    (ResponseFlags::UPSTREAM_TERMINATION, "UC", "UpstreamConnectionTermination"),
    (ResponseFlags::STREAM_IDLE_TIMEOUT, "SI", "StreamIdleTimeout"),
    (ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, "DPE", "DownstreamProtocolError"),
    (ResponseFlags::UPSTREAM_PROTOCOL_ERROR, "UPE", "UpstreamProtocolError"),
];

impl ResponseFlags {
    /// `UH`.
    pub const NO_HEALTHY_UPSTREAM: u32 = 1;
    /// `UF`.
    pub const UPSTREAM_CONNECTION_FAILURE: u32 = 1 << 1;
    /// `UO`.
    pub const UPSTREAM_OVERFLOW: u32 = 1 << 2;
    /// `NR`.
    pub const NO_ROUTE: u32 = 1 << 3;
    /// `URX`.
    pub const RETRY_LIMIT: u32 = 1 << 4;
    /// `NC`.
    pub const NO_CLUSTER: u32 = 1 << 5;
    /// `DT`.
    pub const DURATION_TIMEOUT: u32 = 1 << 6;
    /// `DC`.
    pub const DOWNSTREAM_TERMINATION: u32 = 1 << 7;
    /// `UT`.
    pub const UPSTREAM_TIMEOUT: u32 = 1 << 8;
    /// `LR`.
    pub const LOCAL_RESET: u32 = 1 << 9;
    /// `UR`.
    pub const UPSTREAM_REMOTE_RESET: u32 = 1 << 10;
    /// `UC`.
    pub const UPSTREAM_TERMINATION: u32 = 1 << 11;
    /// `SI`.
    pub const STREAM_IDLE_TIMEOUT: u32 = 1 << 12;
    /// `DPE`.
    pub const DOWNSTREAM_PROTOCOL_ERROR: u32 = 1 << 13;
    /// `UPE`.
    pub const UPSTREAM_PROTOCOL_ERROR: u32 = 1 << 14;
    /// `DI`.
    pub const DELAY_INJECTED: u32 = 1 << 15;
    /// `FI`.
    pub const FAULT_INJECTED: u32 = 1 << 16;
    /// `RL`.
    pub const RATE_LIMITED: u32 = 1 << 17;

    /// These flags, as bits.
    pub fn from_bits(bits: u32) -> Self {
        let mut flags = Self::default();
        flags.set(bits);
        flags
    }

    /// All of them as bits.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Sets flags, given as bits.
    pub fn set(&mut self, flags: u32) {
        let new = flags & !self.bits;
        if new == 0 {
            return;
        }
        self.bits |= new;
        for (place, (bit, ..)) in (1..).zip(FLAGS) {
            if new & bit != 0 {
                self.order = self.order << PLACE_BITS | place;
            }
        }
    }

    /// Letters and long names in the order in which the flags were set.
    pub fn names(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let places = (0..u64::BITS / PLACE_BITS).rev();
        places.filter_map(move |at| {
            let place = self.order >> (at * PLACE_BITS) & ((1 << PLACE_BITS) - 1);
            let place = usize::try_from(place.checked_sub(1)?).ok()?;
            FLAGS.get(place).map(|(_, letters, name)| (*letters, *name))
        })
    }

    /// Appends the letters (`UF,URX`), or `-` when no flag is set.
    pub fn letters(self, out: &mut Vec<u8>) {
        let start = out.len();
        for (letters, _) in self.names() {
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(letters.as_bytes());
        }
        if out.len() == start {
            out.push(b'-');
        }
    }
}

/// Bits of a place in [`FLAGS`].
const PLACE_BITS: u32 = 5;

/// Facts of one stream, filled in as it goes.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// The connection it came on.
    pub connection: Rc<ConnectionInfo>,
    /// Address of the client as decided by `use_remote_address` and `x-forwarded-for`.
    pub remote: Option<SocketAddr>,
    /// Version on the downstream wire; `None` for L4 connections.
    pub protocol: Option<Version>,
    /// Wall clock at the first byte.
    pub started_at: SystemTime,
    /// Monotonic clock at the first byte.
    pub started: Instant,
    /// When the request was received whole.
    pub request_received: Option<Instant>,
    /// When the first byte went upstream.
    pub upstream_first_sent: Option<Instant>,
    /// When the first byte of the response came.
    pub upstream_first_received: Option<Instant>,
    /// When the last byte of the response came.
    pub upstream_last_received: Option<Instant>,
    /// When it was over.
    pub ended: Option<Instant>,
    /// Status sent downstream, 0 = none.
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%`; empty = not set.
    pub details: Cow<'static, str>,
    /// `%RESPONSE_FLAGS%`.
    pub flags: ResponseFlags,
    /// Body bytes received from downstream.
    pub bytes_received: u64,
    /// Body bytes sent downstream.
    pub bytes_sent: u64,
    /// The upstream side, once chosen.
    pub upstream: Option<UpstreamInfo>,
    /// Name of the route that matched; empty = none.
    pub route_name: Arc<str>,
    /// Name of the virtual host that matched; empty = none.
    pub virtual_host: Arc<str>,
    /// True for answers of the health check filter.
    pub health_check: bool,
}

impl StreamInfo {
    /// A stream that begins, of which nothing is known but its connection.
    ///
    /// `unnamed` is an empty string that is shared, so that a request needs no allocation for the
    /// names it does not have.
    pub fn new(
        connection: Rc<ConnectionInfo>,
        (started_at, started): (SystemTime, Instant),
        unnamed: &Arc<str>,
    ) -> Self {
        Self {
            remote: connection.peer,
            connection,
            protocol: None,
            started_at,
            started,
            request_received: None,
            upstream_first_sent: None,
            upstream_first_received: None,
            upstream_last_received: None,
            ended: None,
            status: 0,
            details: Cow::Borrowed(""),
            flags: ResponseFlags::default(),
            bytes_received: 0,
            bytes_sent: 0,
            upstream: None,
            route_name: Arc::clone(unnamed),
            virtual_host: Arc::clone(unnamed),
            health_check: false,
        }
    }
}

/// What a format string is evaluated against.
#[derive(Clone, Copy, Debug)]
pub struct LogContext<'a> {
    /// The stream.
    pub info: &'a StreamInfo,
    /// The request as it left for the upstream (after all changes).
    pub request: Option<&'a RequestHead>,
    /// The response as it left for the client.
    pub response: Option<&'a ResponseHead>,
    /// Response trailers.
    pub trailers: Option<&'a Headers>,
    /// Now, for durations of streams that go on.
    pub now: Instant,
    /// Node id, cluster and zone, for `%ENVIRONMENT%`-like operators.
    pub node: &'a crate::config::node::Node,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_in_the_order_in_which_they_were_set() {
        let shown = |flags: &[u32]| {
            let mut all = ResponseFlags::default();
            for flag in flags {
                all.set(*flag);
            }
            assert_eq!(all.bits(), flags.iter().fold(0, |bits, flag| bits | flag));
            let mut text = Vec::new();
            all.letters(&mut text);
            String::from_utf8(text).unwrap()
        };
        let (limit, failure) =
            (ResponseFlags::RETRY_LIMIT, ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        assert_eq!(shown(&[]), "-");
        assert_eq!(shown(&[limit, failure]), "URX,UF");
        assert_eq!(shown(&[failure, limit, failure]), "UF,URX");
        let all = FLAGS.iter().fold(0, |bits, (bit, ..)| bits | bit);
        assert_eq!(shown(&[all]).split(',').count(), 12, "no more have room");
    }
}

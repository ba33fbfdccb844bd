//! Retries (`envoy.config.route.v3.RetryPolicy` and what belongs to it). What they mean for a request
//! is decided in `route::retry`.

use std::{ops, sync::Arc, time::Duration};

use super::matcher::HeaderMatcher;

/// Most further choices of an endpoint: each costs time of the thread that other requests wait for.
pub const HOST_SELECTIONS_MAX: u32 = 100;

/// What a route says about repeating its requests, with the virtual host's word where the route has
/// none.
#[derive(Clone, Debug, Default)]
pub struct RetryOptions {
    /// `retry_policy`; the route's takes the place of the virtual host's as a whole.
    pub policy: Option<Arc<RetryPolicy>>,
    /// `hedge_policy`; the route's takes the place of the virtual host's as a whole.
    pub hedge: HedgePolicy,
    /// What tells of attempts.
    pub tells: AttemptHeaders,
    /// `request_body_buffer_limit` or `per_request_buffer_limit_bytes`: how much of a request's body
    /// is kept for a retry, bytes; `None` = as much as the connection may buffer.
    pub body_limit: Option<u64>,
}

/// Envoy's `RetryPolicy`.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// `retry_on`: when to try again.
    pub retry_on: RetryOn,
    /// `num_retries`, default 1.
    pub num_retries: u32,
    /// `per_try_timeout`: time for one attempt; `None` = only the route's `timeout`.
    pub per_try_timeout: Option<Duration>,
    /// `per_try_idle_timeout`: silence of the upstream in one attempt; `None` = no limit.
    pub per_try_idle_timeout: Option<Duration>,
    /// `retry_host_predicate` with `previous_hosts`: avoid endpoints that were tried.
    pub avoid_previous_hosts: bool,
    /// `host_selection_retry_max_attempts`: further choices when the one made is to be avoided,
    /// default 1, at most [`HOST_SELECTIONS_MAX`]. The last choice is taken whatever it is.
    pub host_selection_attempts: u32,
    /// `retriable_status_codes`: what [`RetryOn::RETRIABLE_STATUS_CODES`] stands for.
    pub status_codes: Vec<u32>,
    /// `retry_back_off`.
    pub back_off: BackOff,
    /// `rate_limited_retry_back_off`.
    pub rate_limited: Option<RateLimitedBackOff>,
    /// `retriable_headers`: what [`RetryOn::RETRIABLE_HEADERS`] stands for.
    pub response_headers: Vec<HeaderMatcher>,
    /// `retriable_request_headers`: when there are any, a request must satisfy one of them.
    pub request_headers: Vec<HeaderMatcher>,
}

impl Default for RetryPolicy {
    /// A policy that says nothing: no retry, unless an internal client asks for one.
    fn default() -> Self {
        Self {
            retry_on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            avoid_previous_hosts: false,
            host_selection_attempts: 1,
            status_codes: Vec::new(),
            back_off: BackOff::default(),
            rate_limited: None,
            response_headers: Vec::new(),
            request_headers: Vec::new(),
        }
    }
}

/// The words of `retry_on` as a set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RetryOn(u32);

impl RetryOn {
    /// `5xx`: such a status, or no answer at all.
    pub const STATUS_5XX: Self = Self(1);
    /// `gateway-error`: 502, 503, 504, or no answer at all.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// `reset`: no answer at all.
    pub const RESET: Self = Self(1 << 2);
    /// `reset-before-request`: no answer, and nothing of the request was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// `connect-failure`: no connection.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `refused-stream`: HTTP/2's `REFUSED_STREAM`.
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// `retriable-status-codes`: one of a list.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 7);
    /// `retriable-headers`: a header of the response.
    pub const RETRIABLE_HEADERS: Self = Self(1 << 8);
    /// `envoy-ratelimited`: `x-envoy-ratelimited` in the response.
    pub const RATE_LIMITED: Self = Self(1 << 9);
    /// `http3-post-connect-failure`: without effect, as there is no HTTP/3.
    pub const HTTP3_POST_CONNECT: Self = Self(1 << 10);
    /// `cancelled`: `grpc-status` 1.
    pub const GRPC_CANCELLED: Self = Self(1 << 11);
    /// `deadline-exceeded`: `grpc-status` 4.
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 12);
    /// `resource-exhausted`: `grpc-status` 8.
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    /// `internal`: `grpc-status` 13.
    pub const GRPC_INTERNAL: Self = Self(1 << 14);
    /// `unavailable`: `grpc-status` 14.
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 15);

    /// The words of `x-envoy-retry-on`. A policy takes those of gRPC beside them.
    pub const WORDS: &[(&str, Self)] = &[
        ("5xx", Self::STATUS_5XX),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("envoy-ratelimited", Self::RATE_LIMITED),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT),
    ];

    /// The words of `x-envoy-retry-grpc-on`.
    pub const GRPC_WORDS: &[(&str, Self)] = &[
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("internal", Self::GRPC_INTERNAL),
        ("unavailable", Self::GRPC_UNAVAILABLE),
    ];

    /// True when no word is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The words of both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when one of the words of `other` is in it.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl ops::BitOr for RetryOn {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}

impl ops::BitOrAssign for RetryOn {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Envoy's `RetryBackOff`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackOff {
    /// `base_interval`, whole milliseconds, at least one; default 25 ms.
    pub base: Duration,
    /// `max_interval`, not less than the base; default ten times the base.
    pub max: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// Envoy's `RateLimitedRetryBackOff`.
#[derive(Clone, Debug)]
pub struct RateLimitedBackOff {
    /// `reset_headers`: the first that says a usable time counts.
    pub headers: Vec<ResetHeader>,
    /// `max_interval`: longer ones do not count, default 300 s.
    pub max: Duration,
}

/// Envoy's `ResetHeader`.
#[derive(Clone, Debug)]
pub struct ResetHeader {
    /// `name`, lower case.
    pub name: String,
    /// `format`.
    pub format: ResetFormat,
}

/// Envoy's `ResetHeaderFormat`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ResetFormat {
    /// `SECONDS` from now.
    #[default]
    Seconds,
    /// `UNIX_TIMESTAMP`: seconds since 1970.
    UnixTimestamp,
}

/// Envoy's `HedgePolicy`. `initial_requests` and `additional_request_chance` do nothing in Envoy
/// either.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HedgePolicy {
    /// `hedge_on_per_try_timeout`: an attempt that takes too long goes on beside its retry.
    pub on_per_try_timeout: bool,
}

/// What tells upstreams and clients of attempts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AttemptHeaders {
    /// `include_request_attempt_count`: `x-envoy-attempt-count` in requests.
    pub count_in_request: bool,
    /// `include_attempt_count_in_response`: `x-envoy-attempt-count` in responses.
    pub count_in_response: bool,
    /// `include_is_timeout_retry_header`: `x-envoy-is-timeout-retry` in retries, `true` in those after a
    /// limit of the attempt passed, `false` in others. The first attempt has none.
    pub timeout_retry: bool,
}

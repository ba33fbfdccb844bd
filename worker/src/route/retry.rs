//! Whether and when a request is tried again, as Envoy's router decides it.
//!
//! Pure: the random number, the time and what the cluster has room for come from the caller. Of one
//! request the order is [`Plan::of`] when its head is ready for the upstream (and before
//! [`remove_consumed`](crate::http::forwarded::remove_consumed)), then for each attempt that
//! ends [`Retry::wants_after_head`] or [`Retry::wants_after_reset`], then [`Retry::decide`], then
//! [`Retry::wait`].
//!
//! Headers of the request count, whoever sent them: those of clients that are not internal are gone
//! by then ([`mutate`](crate::http::forwarded::mutate)).

mod asked;
#[cfg(test)]
mod tests;
mod tries;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use self::asked::{Asked, number};
pub use self::tries::Tries;
use crate::{
    config::retry::{BackOff, RateLimitedBackOff, ResetFormat, RetryOn, RetryOptions, RetryPolicy},
    http::{
        head::{RequestHead, ResponseHead},
        header_match,
        headers::Headers,
    },
};

/// How an attempt ended without a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResetKind {
    /// There was no connection, or it took too long.
    ConnectFailure,
    /// The connection ended before a byte of the request was sent.
    BeforeRequest,
    /// The connection or the stream ended, and something of the request was sent.
    Reset,
    /// HTTP/2's `REFUSED_STREAM`.
    RefusedStream,
    /// `per_try_timeout` or `per_try_idle_timeout` passed. The route's timeout is not among these: it
    /// ends the request.
    PerTryTimeout,
    /// A limit of the cluster was reached.
    Overflow,
}

/// What becomes of a request after an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Try again after [`Retry::wait`] (`upstream_rq_retry`).
    Retry,
    /// Nothing asks for a retry. After a retry it is `upstream_rq_retry_success`.
    NoCondition,
    /// It was tried as often as it may be (`upstream_rq_retry_limit_exceeded`, flag `URX`).
    LimitExceeded,
    /// The cluster has no room for a retry (`upstream_rq_retry_overflow`, flag `UO`).
    Overflow,
}

/// How long a retry waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wait {
    /// So long.
    pub time: Duration,
    /// A response named it (`upstream_rq_retry_backoff_ratelimited`).
    pub is_named: bool,
}

/// No answer at all counts as a status that these words name.
const ANY_RESET: RetryOn = RetryOn::STATUS_5XX.or(RetryOn::GATEWAY_ERROR).or(RetryOn::RESET);

/// What the attempts of one request may take.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The retries; `None` when nothing asks for any, as for nearly every request.
    pub retry: Option<Retry>,
    /// The limits of a single attempt, which hold without retries, too.
    pub per_try: PerTry,
}

impl Plan {
    /// The plan for a request whose time for all attempts is `whole`; `None` = no limit.
    pub fn of(options: &RetryOptions, request: &RequestHead, whole: Option<Duration>) -> Self {
        let asked = Asked::of(&request.headers);
        let per_try = PerTry::of(options, &asked, whole);
        Self { retry: Retry::of(options, request, asked), per_try }
    }
}

/// The retries of one request.
#[derive(Clone, Debug)]
pub struct Retry {
    conditions: RetryOn,
    /// Lists of conditions.
    policy: Option<Arc<RetryPolicy>>,
    /// What `x-envoy-retriable-status-codes` adds.
    status_codes: Vec<u32>,
    /// What `x-envoy-retriable-header-names` adds, lower case.
    header_names: Vec<Box<[u8]>>,
    left: u64,
    backoff: Backoff,
}

impl Retry {
    fn of(options: &RetryOptions, request: &RequestHead, asked: Asked) -> Option<Self> {
        let policy = options.policy.as_ref();
        let configured = policy.map(|policy| policy.retry_on).unwrap_or_default();
        if configured.is_empty() && !asked.wants {
            return None;
        }
        let of_policy = policy.map_or(1, |policy| policy.num_retries);
        let conditions = if policy.is_none_or(|policy| is_retriable(policy, request)) {
            configured | asked.retry_on
        } else {
            RetryOn::default()
        };
        let asked_number = asked.max_retries.filter(|_| !conditions.is_empty());
        Some(Self {
            conditions,
            policy: policy.cloned(),
            status_codes: asked.status_codes,
            header_names: asked.header_names,
            left: asked_number.unwrap_or_else(|| of_policy.into()),
            backoff: Backoff::new(policy.map(|policy| policy.back_off).unwrap_or_default()),
        })
    }

    /// Whether a response asks for another attempt.
    pub fn wants_after_head(&self, response: &ResponseHead) -> bool {
        // Whoever limits us is not helped by more requests, so no other word counts.
        if response.headers.contains(b"x-envoy-ratelimited") {
            return self.conditions.any(RetryOn::RATE_LIMITED);
        }
        let status = response.status;
        let by_status = match status {
            502..=504 => RetryOn::STATUS_5XX | RetryOn::GATEWAY_ERROR,
            500..=599 => RetryOn::STATUS_5XX,
            409 => RetryOn::RETRIABLE_4XX,
            _ => RetryOn::default(),
        };
        self.conditions.any(by_status | grpc_word(&response.headers))
            || self.conditions.any(RetryOn::RETRIABLE_STATUS_CODES) && self.lists_status(status)
            || self.conditions.any(RetryOn::RETRIABLE_HEADERS) && self.lists_header(response)
    }

    /// Whether an attempt that ended without a response asks for another one.
    pub fn wants_after_reset(&self, kind: ResetKind) -> bool {
        let words = match kind {
            ResetKind::Overflow => return false,
            ResetKind::ConnectFailure => {
                ANY_RESET | RetryOn::CONNECT_FAILURE | RetryOn::RESET_BEFORE_REQUEST
            }
            ResetKind::BeforeRequest => ANY_RESET | RetryOn::RESET_BEFORE_REQUEST,
            ResetKind::RefusedStream => ANY_RESET | RetryOn::REFUSED_STREAM,
            ResetKind::Reset | ResetKind::PerTryTimeout => ANY_RESET,
        };
        self.conditions.any(words)
    }

    /// What becomes of a request of which an attempt ended. `wants` is what the two questions above
    /// said; a hedged attempt that goes on wants a retry whatever the policy says. `room` asks the
    /// cluster for a place among its retries, and only when a retry is due; a refusal uses the retry
    /// up. The place belongs to the request until the next decision, or its end.
    pub fn decide(&mut self, wants: bool, room: impl FnOnce() -> bool) -> Decision {
        if !wants {
            return Decision::NoCondition;
        }
        let Some(left) = self.left.checked_sub(1) else { return Decision::LimitExceeded };
        self.left = left;
        if room() { Decision::Retry } else { Decision::Overflow }
    }

    /// How many retries are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// How long to wait before the retry that was decided on. `response` is what asked for it, if one
    /// did: it may name a time. `now` is the time of the wall.
    pub fn wait(&mut self, response: Option<&ResponseHead>, now: SystemTime, random: u64) -> Wait {
        let limited = self.policy.as_ref().and_then(|policy| policy.rate_limited.as_ref());
        let asked = limited.zip(response).and_then(|(limited, response)| {
            rate_limited_wait(limited, &response.headers, now, random)
        });
        match asked {
            Some(time) => Wait { time, is_named: true },
            None => Wait { time: self.backoff.wait(random), is_named: false },
        }
    }

    fn lists_status(&self, status: u16) -> bool {
        let status = u32::from(status);
        let of_policy = self.policy.as_ref().map_or(&[][..], |policy| &policy.status_codes);
        of_policy.contains(&status) || self.status_codes.contains(&status)
    }

    fn lists_header(&self, response: &ResponseHead) -> bool {
        let of_policy = self.policy.as_ref().map_or(&[][..], |policy| &policy.response_headers);
        of_policy.iter().any(|matcher| header_match::matches(matcher, response))
            || self.header_names.iter().any(|name| response.headers.contains(name))
    }
}

/// What limits the single attempts of a request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PerTry {
    /// `per_try_timeout`, or what `x-envoy-upstream-rq-per-try-timeout-ms` says: from the time when
    /// the whole request is here and there is a connection, to the head of the response.
    pub timeout: Option<Duration>,
    /// `per_try_idle_timeout`: silence of the upstream, also within the response.
    pub idle: Option<Duration>,
    /// `hedge_on_per_try_timeout`: an attempt over its time goes on beside its retry.
    pub hedge: bool,
}

impl PerTry {
    /// A time for one attempt that is not less than that for all means nothing.
    fn of(options: &RetryOptions, asked: &Asked, whole: Option<Duration>) -> Self {
        let policy = options.policy.as_deref();
        let configured = policy.and_then(|policy| policy.per_try_timeout);
        let timeout = match asked.per_try_timeout_ms {
            Some(asked) => Some(Duration::from_millis(asked)).filter(|time| !time.is_zero()),
            None => configured,
        };
        Self {
            timeout: timeout.filter(|each| whole.is_none_or(|whole| *each < whole)),
            idle: policy.and_then(|policy| policy.per_try_idle_timeout),
            hedge: asked.hedge.unwrap_or(options.hedge.on_per_try_timeout),
        }
    }
}

/// Times between attempts: uniform between nothing and a bound that doubles with each.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    bound: Duration,
    max: Duration,
}

impl Backoff {
    /// The first wait is less than the base.
    pub fn new(config: BackOff) -> Self {
        Self { bound: config.base.min(config.max), max: config.max }
    }

    /// The next wait.
    pub fn wait(&mut self, random: u64) -> Duration {
        let wait = below(self.bound, random);
        self.bound = self.bound.saturating_mul(2).min(self.max);
        wait
    }
}

/// How long a response asks to wait (`rate_limited_retry_back_off`): the first header counts that has
/// a time within the limit. Up to half of it is added, so that not everybody comes at once. `None` when
/// no header says a time worth waiting for.
pub fn rate_limited_wait(
    config: &RateLimitedBackOff,
    response: &Headers,
    now: SystemTime,
    random: u64,
) -> Option<Duration> {
    let mut times = config.headers.iter().filter_map(|header| {
        let seconds = number(response.get(header.name.as_bytes())?)?;
        let seconds = match header.format {
            ResetFormat::Seconds => seconds,
            ResetFormat::UnixTimestamp => {
                let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                seconds.checked_sub(now)?
            }
        };
        Some(Duration::from_secs(seconds)).filter(|time| *time <= config.max)
    });
    let time = times.next().filter(|time| !time.is_zero())?;
    Some(time.saturating_add(below(time / 2, random)))
}

/// A time from nothing to less than the bound.
fn below(bound: Duration, random: u64) -> Duration {
    let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.checked_rem(bound).unwrap_or(0))
}

/// `retriable_request_headers`: one of them holds, or there is none.
fn is_retriable(policy: &RetryPolicy, request: &RequestHead) -> bool {
    let conditions = &policy.request_headers;
    let holds = |matcher| header_match::matches(matcher, request);
    conditions.is_empty() || conditions.iter().any(holds)
}

/// The word for a `grpc-status` among the headers. One in trailers comes too late for a retry.
fn grpc_word(response: &Headers) -> RetryOn {
    match response.get(b"grpc-status").and_then(number) {
        Some(1) => RetryOn::GRPC_CANCELLED,
        Some(4) => RetryOn::GRPC_DEADLINE_EXCEEDED,
        Some(8) => RetryOn::GRPC_RESOURCE_EXHAUSTED,
        Some(13) => RetryOn::GRPC_INTERNAL,
        Some(14) => RetryOn::GRPC_UNAVAILABLE,
        Some(_) | None => RetryOn::default(),
    }
}

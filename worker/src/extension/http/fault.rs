//! `envoy.filters.http.fault`: answers errors, waits, and sends responses slowly, for tests of what
//! depends on a service.
//!
//! ```text
//! matches? ──→ slow response? ──→ delay? ── over ──→ abort? ──→ the next filter
//! ```
//! Only a request that gets a fault has an object of its own. While it waits, and while its response is
//! slowed down, its connection stays in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{Making, Room};
use crate::{
    config::{
        extension::HttpExtension,
        lower::{Lower, matcher},
        matcher::HeaderMatcher,
        message::Msg,
        settings::{SharedSettings, settings_of},
        support::{harmless, message, no_effect, read, strict},
    },
    filter::http::{HttpFilter, Interest, Step, StreamContext, StreamFilter},
    http::{head::RequestHead, header_match, local_reply::LocalReply, stream_info::ResponseFlags},
    stats::{Counter, Gauge, MetricName, ThreadStats},
};

const MESSAGE: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const NO_RUNTIME: &str = "there are no runtime values";
/// Slow responses go on in pieces of so long a time, as in Envoy.
const SLICES_PER_SECOND: u64 = 20;
const PERCENTAGE: &str = "default 0 %";
const ABORT_PERCENTAGE: &[u8] = b"x-envoy-fault-abort-request-percentage";
const DELAY_PERCENTAGE: &[u8] = b"x-envoy-fault-delay-request-percentage";
const RATE_PERCENTAGE: &[u8] = b"x-envoy-fault-throughput-response-percentage";

/// Its entry in the list.
pub(super) const ROOM: Room = Room { known: &EXTENSION, make };

const EXTENSION: HttpExtension = HttpExtension {
    names: &["envoy.filters.http.fault", "envoy.fault"],
    message: MESSAGE,
    may_be_empty: false,
    is_terminal: false,
    tables: &[
        strict(
            MESSAGE,
            &[
                read("delay", ""),
                read("abort", ""),
                read("upstream_cluster", "default: every cluster"),
                read("headers", "all must match"),
                read("downstream_nodes", "values of `x-envoy-downstream-service-node`"),
                read("max_active_faults", "over all threads; default: no limit"),
                read("response_rate_limit", "a pipe is not used for such a body"),
                harmless("delay_percent_runtime", NO_RUNTIME),
                harmless("abort_percent_runtime", NO_RUNTIME),
                harmless("delay_duration_runtime", NO_RUNTIME),
                harmless("abort_http_status_runtime", NO_RUNTIME),
                harmless("max_active_faults_runtime", NO_RUNTIME),
                harmless("response_rate_limit_percent_runtime", NO_RUNTIME),
                harmless("abort_grpc_status_runtime", NO_RUNTIME),
                harmless(
                    "disable_downstream_cluster_stats",
                    "statistics by `x-envoy-downstream-service-cluster` are not kept",
                ),
                no_effect("filter_metadata", "nothing reads the metadata"),
            ],
        ),
        message(
            "envoy.extensions.filters.http.fault.v3.FaultAbort",
            &[
                read("http_status", ""),
                read("grpc_status", ""),
                read(
                    "header_abort",
                    "`x-envoy-fault-abort-request`, `x-envoy-fault-abort-grpc-request`",
                ),
                read("percentage", PERCENTAGE),
                read("response_body", "default `fault filter abort`"),
            ],
        ),
        message("envoy.extensions.filters.http.fault.v3.FaultAbort.HeaderAbort", &[]),
        message(
            "envoy.extensions.filters.common.fault.v3.FaultDelay",
            &[
                read("fixed_delay", ""),
                read("header_delay", "`x-envoy-fault-delay-request`, in ms"),
                read("percentage", PERCENTAGE),
            ],
        ),
        message("envoy.extensions.filters.common.fault.v3.FaultDelay.HeaderDelay", &[]),
        message(
            "envoy.extensions.filters.common.fault.v3.FaultRateLimit",
            &[
                read("fixed_limit", ""),
                read("header_limit", "`x-envoy-fault-throughput-response`, in KiB/s"),
                read("percentage", PERCENTAGE),
            ],
        ),
        message(
            "envoy.extensions.filters.common.fault.v3.FaultRateLimit.FixedLimit",
            &[read("limit_kbps", "in KiB/s")],
        ),
        message("envoy.extensions.filters.common.fault.v3.FaultRateLimit.HeaderLimit", &[]),
    ],
    skippable: &[],
    lower,
    per_route: Some((MESSAGE, lower)),
};

/// What the faults are, and whose.
#[derive(Debug)]
struct Settings {
    delay: Option<Fault<Duration>>,
    abort: Option<Fault<Status>>,
    rate: Option<Fault<u64>>,
    body: String,
    cluster: String,
    headers: Vec<HeaderMatcher>,
    nodes: Vec<String>,
    max_active: Option<u64>,
    /// Faults at this moment, of all threads; that of the chain counts.
    active: AtomicU64,
}

/// A fault and how often it is done.
#[derive(Debug)]
struct Fault<T> {
    /// `None` = a header says so.
    what: Option<T>,
    /// Numerator and denominator of the part of requests.
    percentage: (u32, u32),
}

/// The status of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Http(u16),
    Grpc(u32),
}

#[expect(clippy::unnecessary_wraps, reason = "others may find a mistake")]
fn lower(lower: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    let delay = message.message("delay").map(|delay| Fault {
        what: delay.duration("fixed_delay"),
        percentage: percentage(lower, delay),
    });
    let abort = message.message("abort").map(|abort| {
        let http = abort.uint("http_status").and_then(|status| u16::try_from(status).ok());
        let grpc = abort.uint32("grpc_status");
        Fault {
            what: http.map(Status::Http).or_else(|| grpc.map(Status::Grpc)),
            percentage: percentage(lower, abort),
        }
    });
    let rate = message.message("response_rate_limit").map(|rate| Fault {
        what: rate.message("fixed_limit").and_then(|fixed| fixed.uint("limit_kbps")),
        percentage: percentage(lower, rate),
    });
    let body = message.message("abort").map_or("", |abort| abort.text("response_body"));
    let nodes = message.items("downstream_nodes").iter();
    Some(Arc::new(Settings {
        delay,
        abort,
        rate,
        body: if body.is_empty() { "fault filter abort" } else { body }.to_owned(),
        cluster: message.text("upstream_cluster").to_owned(),
        headers: lower.header_matchers(message),
        nodes: nodes.map(|item| item.text().to_owned()).collect(),
        max_active: message.uint("max_active_faults"),
        active: AtomicU64::new(0),
    }))
}

fn percentage(lower: &Lower<'_>, message: &Msg) -> (u32, u32) {
    let Some(percentage) = message.message("percentage") else {
        lower
            .report
            .warning(&message.at, "without `percentage` this is done for 0 % of the requests")
            .hint("add `percentage: { numerator: 100 }`");
        return (0, 100);
    };
    matcher::fraction(percentage)
}

fn make(settings: &SharedSettings, making: &Making<'_>) -> Option<Box<dyn HttpFilter>> {
    let stats = Stats::new(making.stats, making.prefix);
    Some(Box::new(FaultFilter { settings: settings_of(settings)?, stats }))
}

/// `http.<stat_prefix>.fault.*`.
#[derive(Clone, Debug)]
struct Stats {
    aborts_injected: Counter,
    delays_injected: Counter,
    response_rl_injected: Counter,
    faults_overflow: Counter,
    active_faults: Gauge,
}

impl Stats {
    fn new(stats: &ThreadStats, prefix: &str) -> Self {
        let name = |name: &str| {
            let (full, family) =
                (format!("http.{prefix}.fault.{name}"), format!("http.fault.{name}"));
            MetricName::tagged(full, family, &[("envoy.http_conn_manager_prefix", prefix)])
        };
        let counter = |own: &str| stats.counter(&name(own));
        Self {
            aborts_injected: counter("aborts_injected"),
            delays_injected: counter("delays_injected"),
            response_rl_injected: counter("response_rl_injected"),
            faults_overflow: counter("faults_overflow"),
            active_faults: stats.gauge(&name("active_faults")),
        }
    }
}

/// The filter.
#[derive(Debug)]
struct FaultFilter {
    settings: Arc<Settings>,
    stats: Stats,
}

impl HttpFilter for FaultFilter {
    fn interest(&self) -> Interest {
        Interest::STREAMS
    }

    fn begin(
        &self,
        request: &RequestHead,
        cx: &mut StreamContext<'_>,
    ) -> Option<Box<dyn StreamFilter>> {
        let settings: &Settings = cx.settings_or(&self.settings);
        if !settings.is_meant(request, cx) {
            return None;
        }
        let mut active = None;
        let mut wanted = |is_wanted: bool| is_wanted && self.begin_fault(settings, &mut active);
        let rate = settings.rate(request, cx).filter(|_| wanted(true));
        let delay = settings.delay(request, cx).filter(|_| wanted(true));
        let abort = match delay {
            // It is decided when the delay is over.
            Some(_) => None,
            None => settings.abort(request, cx).filter(|_| wanted(true)),
        };
        let active = active?;
        let of_route = cx.of_route.iter().rev().find_map(settings_of::<Settings>);
        if rate.is_some() {
            self.stats.response_rl_injected.inc();
        }
        Some(Box::new(Injected {
            settings: of_route.unwrap_or_else(|| Arc::clone(&self.settings)),
            stats: self.stats.clone(),
            _active: active,
            delay,
            abort,
            until: None,
            pace: rate.map(|rate| Pace::new(rate, cx.now)),
        }))
    }
}

impl FaultFilter {
    /// Counts a fault, if there may be one more; the second one of a stream counts with the first.
    fn begin_fault(&self, settings: &Settings, active: &mut Option<Active>) -> bool {
        if active.is_some() {
            return true;
        }
        // Two threads may both take the last place; it is a limit for tests, not one that protects.
        if settings.max_active.is_some_and(|max| self.settings.active.load(Relaxed) >= max) {
            self.stats.faults_overflow.inc();
            return false;
        }
        self.settings.active.fetch_add(1, Relaxed);
        self.stats.active_faults.inc();
        *active = Some(Active {
            settings: Arc::clone(&self.settings),
            gauge: self.stats.active_faults.clone(),
        });
        true
    }
}

/// Counts as a fault until dropped.
#[derive(Debug)]
struct Active {
    settings: Arc<Settings>,
    gauge: Gauge,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.settings.active.fetch_sub(1, Relaxed);
        self.gauge.dec();
    }
}

impl Settings {
    fn is_meant(&self, request: &RequestHead, cx: &StreamContext<'_>) -> bool {
        let cluster = self.cluster.is_empty() || cx.cluster == Some(&*self.cluster);
        let node = || {
            let node = request.headers.get(b"x-envoy-downstream-service-node");
            node.is_some_and(|node| self.nodes.iter().any(|known| known.as_bytes() == node))
        };
        cluster && (self.nodes.is_empty() || node()) && header_match::all(&self.headers, request)
    }

    fn delay(&self, request: &RequestHead, cx: &StreamContext<'_>) -> Option<Duration> {
        let fault = self.delay.as_ref()?;
        let asked = || number(request, b"x-envoy-fault-delay-request").map(Duration::from_millis);
        let delay = fault.what.or_else(asked).filter(|delay| !delay.is_zero())?;
        fault.happens(request, DELAY_PERCENTAGE, cx).then_some(delay)
    }

    /// In bytes per second.
    fn rate(&self, request: &RequestHead, cx: &StreamContext<'_>) -> Option<u64> {
        let fault = self.rate.as_ref()?;
        let asked = || number(request, b"x-envoy-fault-throughput-response");
        let kib = fault.what.or_else(asked).filter(|rate| *rate > 0)?;
        fault.happens(request, RATE_PERCENTAGE, cx).then(|| kib.saturating_mul(1024))
    }

    fn abort(&self, request: &RequestHead, cx: &StreamContext<'_>) -> Option<Status> {
        let fault = self.abort.as_ref()?;
        let asked = || {
            let http = number(request, b"x-envoy-fault-abort-request");
            let http = http.filter(|status| (200..600).contains(status));
            let http = http.and_then(|status| u16::try_from(status).ok()).map(Status::Http);
            let grpc = || number(request, b"x-envoy-fault-abort-grpc-request");
            http.or_else(|| Some(Status::Grpc(u32::try_from(grpc()?).ok()?)))
        };
        let status = fault.what.or_else(asked)?;
        fault.happens(request, ABORT_PERCENTAGE, cx).then_some(status)
    }
}

impl<T> Fault<T> {
    /// A header may make it seldom, not more frequent.
    fn happens(&self, request: &RequestHead, header: &[u8], cx: &StreamContext<'_>) -> bool {
        const MILLION: u32 = 1_000_000;
        let (most, denominator) = self.percentage;
        // Only where headers say what the fault is.
        let asked = if self.what.is_none() { number(request, header) } else { None };
        let asked = asked.map(|asked| u32::try_from(asked).unwrap_or(u32::MAX));
        let numerator = asked.map_or(most, |asked| asked.min(most));
        cx.chance(numerator.saturating_mul(MILLION.checked_div(denominator).unwrap_or(0)))
    }
}

fn number(request: &RequestHead, name: &[u8]) -> Option<u64> {
    std::str::from_utf8(request.headers.get(name)?).ok()?.trim().parse().ok()
}

/// The faults of one stream.
#[derive(Debug)]
struct Injected {
    settings: Arc<Settings>,
    stats: Stats,
    _active: Active,
    delay: Option<Duration>,
    abort: Option<Status>,
    /// End of the delay.
    until: Option<Instant>,
    pace: Option<Pace>,
}

impl Injected {
    fn answer(&self, status: Status, request: &RequestHead) -> Step {
        self.stats.aborts_injected.inc();
        let http = match status {
            Status::Http(status) => status,
            Status::Grpc(_) => 200,
        };
        let reply = LocalReply::new(http, self.settings.body.clone(), "fault_filter_abort")
            .flagged(ResponseFlags::FAULT_INJECTED);
        Step::Reply(match status {
            Status::Grpc(status) if request.is_grpc() => {
                reply.header(b"grpc-status", status.to_string().into_bytes())
            }
            Status::Grpc(_) | Status::Http(_) => reply,
        })
    }
}

impl StreamFilter for Injected {
    fn on_request(&mut self, request: &mut RequestHead, cx: &mut StreamContext<'_>) -> Step {
        if let Some(delay) = self.delay {
            self.stats.delays_injected.inc();
            cx.info.flags.set(ResponseFlags::DELAY_INJECTED);
            self.until = cx.now.checked_add(delay);
            return Step::Wait;
        }
        self.abort.map_or(Step::Continue, |status| self.answer(status, request))
    }

    fn poll(
        &mut self,
        request: &mut RequestHead,
        cx: &mut StreamContext<'_>,
        _: &mut Context<'_>,
    ) -> Poll<Step> {
        if self.until.is_none_or(|until| until > cx.now) {
            return Poll::Pending;
        }
        self.until = None;
        let abort = self.settings.abort(request, cx);
        Poll::Ready(abort.map_or(Step::Continue, |status| self.answer(status, request)))
    }

    fn wake_at(&self) -> Option<Instant> {
        self.until.or_else(|| self.pace.as_ref()?.wake_at())
    }

    fn paces(&self) -> bool {
        self.pace.is_some()
    }

    fn pace(&mut self, now: Instant) -> usize {
        self.pace.as_mut().map_or(usize::MAX, |pace| pace.allowed(now))
    }

    fn passed(&mut self, bytes: usize) {
        if let Some(pace) = &mut self.pace {
            pace.left = pace.left.saturating_sub(bytes as u64);
        }
    }

    fn may_move(&self) -> bool {
        self.until.is_none() && self.pace.is_none()
    }
}

/// How fast a body may go on.
#[derive(Debug)]
struct Pace {
    /// Bytes per second.
    rate: u64,
    /// Bytes that may go on.
    left: u64,
    /// As of then.
    at: Instant,
    is_waiting: bool,
}

impl Pace {
    fn new(rate: u64, now: Instant) -> Self {
        Self { rate, left: (rate / SLICES_PER_SECOND).max(1), at: now, is_waiting: false }
    }

    fn slice(&self) -> u64 {
        (self.rate / SLICES_PER_SECOND).max(1)
    }

    fn allowed(&mut self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.at);
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let more = self.rate.saturating_mul(micros) / 1_000_000;
        if more > 0 {
            self.at = now;
            // What was not used in time is lost.
            self.left = self.left.saturating_add(more).min(self.rate.max(1));
        }
        self.is_waiting = self.left < self.slice();
        if self.is_waiting { 0 } else { usize::try_from(self.left).unwrap_or(usize::MAX) }
    }

    fn wake_at(&self) -> Option<Instant> {
        let missing = self.slice().saturating_sub(self.left);
        let wait = Duration::from_micros(missing.saturating_mul(1_000_000) / self.rate.max(1));
        self.is_waiting.then(|| self.at + wait)
    }
}

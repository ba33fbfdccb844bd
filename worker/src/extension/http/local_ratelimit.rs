//! `envoy.filters.http.local_ratelimit`: a token for each request, from a bucket of the filter or of the
//! route.
//!
//! A bucket is one atomic word in shared memory, by the name of its place in the configuration: all
//! threads and all generations take from the same one, so a reload neither fills nor doubles it.

use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::Duration,
};

use baton_contract::{
    clock,
    shm::{Bucket, Rate},
};

use super::{Making, Room};
use crate::{
    config::{
        extension::HttpExtension,
        lower::{Lower, matcher},
        message::Msg,
        route::HeaderChanges,
        settings::{SharedSettings, settings_of},
        support::{harmless, message, read, strict},
    },
    filter::http::{HttpFilter, Step, StreamContext},
    http::{
        head::{RequestHead, ResponseHead},
        local_reply::LocalReply,
        stream_info::ResponseFlags,
    },
    route::headers,
    stats::{Counter, MetricName, ThreadStats},
};

const MESSAGE: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const NO_DESCRIPTORS: &str = "there are no descriptors yet";
/// Envoy's answer to who is too fast.
const TOO_MANY_REQUESTS: u16 = 429;
/// What gRPC calls it when `rate_limited_as_resource_exhausted` is set.
const RESOURCE_EXHAUSTED: &[u8] = b"8";

/// Its entry in the list.
pub(super) const ROOM: Room = Room { known: &EXTENSION, make };

const EXTENSION: HttpExtension = HttpExtension {
    names: &["envoy.filters.http.local_ratelimit"],
    message: MESSAGE,
    may_be_empty: false,
    is_terminal: false,
    tables: &[
        strict(
            MESSAGE,
            &[
                read("stat_prefix", ""),
                read("status", "default 429; what is no error is 429, too"),
                read(
                    "token_bucket",
                    "over all threads and generations together, by its place in the file; at most 512 \
                     buckets, those after them are of their generation alone; routes need one",
                ),
                read("filter_enabled", "default 0 %, with a warning"),
                read("filter_enforced", "default 0 %, with a warning"),
                read("request_headers_to_add_when_not_enforced", ""),
                read("response_headers_to_add", "to the answers of the filter"),
                read(
                    "enable_x_ratelimit_headers",
                    "where less than 100 % are enabled, responses to the others have them, too",
                ),
                read("rate_limited_as_resource_exhausted", ""),
                read("enable_retry_after_header", ""),
                harmless("stage", NO_DESCRIPTORS),
                harmless("vh_rate_limits", NO_DESCRIPTORS),
                harmless("always_consume_default_token_bucket", NO_DESCRIPTORS),
                harmless("max_dynamic_descriptors", NO_DESCRIPTORS),
            ],
        ),
        message("envoy.type.v3.HttpStatus", &[read("code", "")]),
        strict(
            "envoy.type.v3.TokenBucket",
            &[
                read("max_tokens", ""),
                read("tokens_per_fill", "default 1; they come one by one over the interval"),
                read("fill_interval", "at least 50 ms"),
            ],
        ),
    ],
    skippable: &[],
    lower,
    per_route: Some((MESSAGE, lower_of_route)),
};

/// A limit and what is said about it.
#[derive(Debug)]
struct Settings {
    stat_prefix: String,
    status: u16,
    limit: Option<Limit>,
    enabled_ppm: u32,
    enforced_ppm: u32,
    /// To requests that would have been refused, and to answers.
    headers: HeaderChanges,
    tells_limit: bool,
    tells_when_to_retry: bool,
    is_exhausted: bool,
}

/// A bucket, how it fills, and how much it holds.
#[derive(Debug)]
struct Limit {
    name: String,
    rate: Rate,
    max_tokens: u64,
    bucket: OnceLock<Bucket>,
}

fn lower(lower: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    let limit = match message.message("token_bucket") {
        Some(bucket) => Some(limit(lower, message, bucket)?),
        None => None,
    };
    let part = |name| message.message(name).and_then(|part| part.message("default_value"));
    let part = |name| part(name).map_or(0, matcher::parts_per_million);
    let (enabled_ppm, enforced_ppm) = (part("filter_enabled"), part("filter_enforced"));
    if limit.is_some() {
        warn(lower, message);
    }
    let add = |name| message.messages(name).filter_map(|m| lower.header_add(m)).collect();
    let status = message.message("status").and_then(|status| status.number("code"));
    Some(Arc::new(Settings {
        stat_prefix: message.text("stat_prefix").to_owned(),
        status: status.filter(|status| *status >= 400).unwrap_or(TOO_MANY_REQUESTS),
        limit,
        enabled_ppm,
        enforced_ppm,
        headers: HeaderChanges {
            request_add: add("request_headers_to_add_when_not_enforced"),
            response_add: add("response_headers_to_add"),
            ..HeaderChanges::default()
        },
        tells_limit: message.choice("enable_x_ratelimit_headers") == Some("DRAFT_VERSION_03"),
        tells_when_to_retry: message.flag("enable_retry_after_header").unwrap_or(false),
        is_exhausted: message.flag("rate_limited_as_resource_exhausted").unwrap_or(false),
    }))
}

fn lower_of_route(lowered: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    if !message.mentions("token_bucket") {
        let text = "a route needs a `token_bucket` of its own";
        lowered.report.error(&message.at, text).hint(
            "add `token_bucket: { max_tokens: 100, tokens_per_fill: 100, fill_interval: 1s }`",
        );
        return None;
    }
    lower(lowered, message)
}

fn limit(lower: &Lower<'_>, message: &Msg, bucket: &Msg) -> Option<Limit> {
    /// Envoy's limit.
    const INTERVAL_MIN: Duration = Duration::from_millis(50);
    let interval = bucket.duration("fill_interval").unwrap_or_default();
    if interval < INTERVAL_MIN {
        let at = bucket.at_of("fill_interval");
        lower.report.error(&at, "`fill_interval` must be at least 50 ms");
        return None;
    }
    let tokens = bucket.uint("tokens_per_fill").unwrap_or(1);
    let max_tokens = bucket.uint("max_tokens").unwrap_or(0);
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    Some(Limit {
        name: format!("local_ratelimit {} {}", message.text("stat_prefix"), message.at.path),
        rate: Rate::new(tokens, nanos, max_tokens),
        max_tokens,
        bucket: OnceLock::new(),
    })
}

/// Envoy's defaults refuse nothing, which surprises most.
fn warn(lower: &Lower<'_>, message: &Msg) {
    for (field, means) in [
        ("filter_enabled", "no request is counted"),
        ("filter_enforced", "requests are counted, and none is refused"),
    ] {
        if !message.mentions(field) {
            let text = format!("`{field}` is not set: its default is 0 %, so {means}");
            lower
                .report
                .warning(&message.at, text)
                .hint(format!("add `{field}: {{ default_value: {{ numerator: 100 }} }}`"));
            return;
        }
    }
}

fn make(settings: &SharedSettings, making: &Making<'_>) -> Option<Box<dyn HttpFilter>> {
    let settings = settings_of(settings)?;
    let filter = LocalRateLimit { settings, stats: making.stats.clone(), made: RefCell::default() };
    // They are there before the first request.
    filter.stats_of(&filter.settings);
    Some(Box::new(filter))
}

/// `<stat_prefix>.http_local_rate_limit.*`.
#[derive(Debug)]
struct Stats {
    enabled: Counter,
    enforced: Counter,
    rate_limited: Counter,
    ok: Counter,
}

impl Stats {
    fn new(stats: &ThreadStats, prefix: &str) -> Self {
        let counter = |name: &str| {
            let full = format!("{prefix}.http_local_rate_limit.{name}");
            let family = format!("http_local_rate_limit.{name}");
            let tags = [("envoy.local_http_ratelimit_prefix", prefix)];
            stats.counter(&MetricName::tagged(full, family, &tags))
        };
        Self {
            enabled: counter("enabled"),
            enforced: counter("enforced"),
            rate_limited: counter("rate_limited"),
            ok: counter("ok"),
        }
    }
}

/// The filter. It keeps nothing of a stream.
#[derive(Debug)]
struct LocalRateLimit {
    settings: Arc<Settings>,
    stats: ThreadStats,
    /// Statistics by `stat_prefix`: routes may have others than the filter.
    made: RefCell<HashMap<String, Rc<Stats>>>,
}

impl LocalRateLimit {
    fn stats_of(&self, settings: &Settings) -> Rc<Stats> {
        let mut made = self.made.borrow_mut();
        if let Some(stats) = made.get(&settings.stat_prefix) {
            return Rc::clone(stats);
        }
        let stats = Rc::new(Stats::new(&self.stats, &settings.stat_prefix));
        made.insert(settings.stat_prefix.clone(), Rc::clone(&stats));
        stats
    }

    fn bucket(&self, limit: &Limit) -> Bucket {
        *limit.bucket.get_or_init(|| {
            let bucket = self.stats.bucket(&limit.name);
            bucket.tune(limit.rate, clock::monotonic_ns());
            bucket
        })
    }
}

impl HttpFilter for LocalRateLimit {
    fn on_request(&self, request: &mut RequestHead, cx: &mut StreamContext<'_>) -> Step {
        let settings: &Settings = cx.settings_or(&self.settings);
        let Some(limit) = settings.limit.as_ref().filter(|_| cx.chance(settings.enabled_ppm))
        else {
            return Step::Continue;
        };
        let stats = self.stats_of(settings);
        stats.enabled.inc();
        let now = clock::monotonic_ns();
        let Err(wait) = self.bucket(limit).take(limit.rate, 1, now) else {
            stats.ok.inc();
            return Step::Continue;
        };
        stats.rate_limited.inc();
        if !cx.chance(settings.enforced_ppm) {
            headers::change_request(request, &settings.headers, &cx.log_alone());
            return Step::Continue;
        }
        stats.enforced.inc();
        Step::Reply(settings.answer(request, wait, cx))
    }

    fn on_response(
        &self,
        _: &RequestHead,
        response: &mut ResponseHead,
        cx: &mut StreamContext<'_>,
    ) {
        let settings: &Settings = cx.settings_or(&self.settings);
        let tells = settings.tells_limit && settings.enabled_ppm > 0;
        let Some(limit) = settings.limit.as_ref().filter(|_| tells) else { return };
        let (bucket, now) = (self.bucket(limit), clock::monotonic_ns());
        let left = bucket.available(limit.rate, now);
        let wait = bucket.wait(limit.rate, 1, now);
        for (name, value) in [
            (&b"x-ratelimit-limit"[..], limit.max_tokens),
            (b"x-ratelimit-remaining", left),
            (b"x-ratelimit-reset", seconds(wait)),
        ] {
            response.headers.set(name, itoa::Buffer::new().format(value).as_bytes());
        }
    }
}

impl Settings {
    fn answer(&self, request: &RequestHead, wait_ns: u64, cx: &StreamContext<'_>) -> LocalReply {
        let mut reply = LocalReply::new(self.status, "local_rate_limited", "local_rate_limited")
            .flagged(ResponseFlags::RATE_LIMITED);
        if self.is_exhausted && request.is_grpc() {
            reply = reply.header(b"grpc-status", RESOURCE_EXHAUSTED.to_vec());
        }
        let mut head = ResponseHead::default();
        headers::change_response(&mut head, &self.headers, &cx.log(request));
        let added = head.headers.iter();
        reply.headers.extend(added.map(|(name, value)| (name.to_vec().into(), value.to_vec())));
        if self.tells_when_to_retry {
            reply = reply.header(b"retry-after", seconds(wait_ns).to_string().into_bytes());
        }
        reply
    }
}

/// Rounded up.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

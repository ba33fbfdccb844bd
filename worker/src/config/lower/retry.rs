//! When and how requests are tried again: `retry_policy`, `hedge_policy` and what belongs to them.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        matcher::HeaderMatcher,
        message::{Item, Msg, Value},
        retry::{
            AttemptHeaders, BackOff, HOST_SELECTIONS_MAX, HedgePolicy, RateLimitedBackOff,
            ResetFormat, ResetHeader, RetryOn, RetryOptions, RetryPolicy,
        },
        route::RouteAction,
        source::At,
        suggest,
        yaml::shorten,
    },
    Lower, common,
};

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

/// What a virtual host says about retries.
#[derive(Debug)]
pub(super) struct HostRetry {
    policy: Option<Arc<RetryPolicy>>,
    hedge: HedgePolicy,
    tells: AttemptHeaders,
    limits: BodyLimits,
}

/// The two fields that limit the body kept for a retry, of one level.
#[derive(Clone, Copy, Debug)]
struct BodyLimits {
    /// `request_body_buffer_limit`.
    new: Option<u64>,
    /// `per_request_buffer_limit_bytes`.
    old: Option<u64>,
}

impl BodyLimits {
    fn of(message: &Msg) -> Self {
        Self {
            new: message.uint("request_body_buffer_limit"),
            old: message.uint("per_request_buffer_limit_bytes"),
        }
    }
}

impl Lower<'_> {
    /// Lowers what a virtual host says about retries.
    pub(super) fn host_retry(&self, host: &Msg) -> HostRetry {
        let flag = |name| host.flag(name).unwrap_or(false);
        HostRetry {
            policy: self.policy_of(host),
            hedge: hedge(host).unwrap_or_default(),
            tells: AttemptHeaders {
                count_in_request: flag("include_request_attempt_count"),
                count_in_response: flag("include_attempt_count_in_response"),
                timeout_retry: flag("include_is_timeout_retry_header"),
            },
            limits: BodyLimits::of(host),
        }
    }

    /// What holds for a route: a policy of its own takes the place of the virtual host's, nothing is
    /// merged. A limit under its new name wins over the old one, wherever the two stand.
    pub(super) fn route_retry(&self, route: &Msg, action: &Msg, host: &HostRetry) -> RetryOptions {
        let (limits, outer) = (BodyLimits::of(route), host.limits);
        RetryOptions {
            policy: self.policy_of(action).or_else(|| host.policy.clone()),
            hedge: hedge(action).unwrap_or(host.hedge),
            tells: host.tells,
            body_limit: limits.new.or(outer.new).or(limits.old).or(outer.old),
        }
    }

    /// A limit for one attempt that the limit for all of them makes useless.
    pub(super) fn per_try_timeout(&self, action: &Msg, forward: &RouteAction) {
        let (Some(own), Some(whole)) = (action.message("retry_policy"), forward.timeout) else {
            return;
        };
        if let Some(each) = common::limit(own, "per_try_timeout", None).filter(|t| *t >= whole) {
            let at = own.at_of("per_try_timeout");
            let (each, whole) = (each.as_secs_f64(), whole.as_secs_f64());
            let text = format!(
                "`per_try_timeout` has no effect: it is {each} s, the route's `timeout` {whole} s"
            );
            self.report
                .warning(&at, text)
                .hint("make it less than `timeout`, which is for all tries");
        }
    }

    fn policy_of(&self, message: &Msg) -> Option<Arc<RetryPolicy>> {
        message.message("retry_policy").map(|policy| Arc::new(self.retry_policy(policy)))
    }

    fn retry_policy(&self, message: &Msg) -> RetryPolicy {
        let default = RetryPolicy::default();
        let policy = RetryPolicy {
            retry_on: self.retry_on(message),
            num_retries: message.uint32("num_retries").unwrap_or(default.num_retries),
            per_try_timeout: common::limit(message, "per_try_timeout", None),
            per_try_idle_timeout: common::limit(message, "per_try_idle_timeout", None),
            avoid_previous_hosts: self.avoid_previous_hosts(message),
            host_selection_attempts: host_selections(message)
                .unwrap_or(default.host_selection_attempts),
            status_codes: status_codes(message),
            back_off: self.back_off(message).unwrap_or_default(),
            rate_limited: message.message("rate_limited_retry_back_off").map(rate_limited),
            response_headers: self.matchers(message, "retriable_headers"),
            request_headers: self.matchers(message, "retriable_request_headers"),
        };
        self.idle_lists(message, &policy);
        policy
    }

    fn matchers(&self, message: &Msg, field: &str) -> Vec<HeaderMatcher> {
        message.messages(field).filter_map(|matcher| self.header_matcher(matcher)).collect()
    }

    /// Envoy leaves out words that it does not know, so they are no error.
    fn retry_on(&self, message: &Msg) -> RetryOn {
        let at = message.at_of("retry_on");
        let words = || RetryOn::WORDS.iter().chain(RetryOn::GRPC_WORDS);
        let mut found = RetryOn::default();
        let list = message.text("retry_on").split(',').map(str::trim).filter(|w| !w.is_empty());
        for word in list {
            match words().find(|(known, _)| *known == word) {
                Some((_, bit)) => found |= *bit,
                None => self.unknown_word(word, &at),
            }
        }
        if found.any(RetryOn::HTTP3_POST_CONNECT) {
            let text = "`http3-post-connect-failure` has no effect: there is no HTTP/3";
            self.report.warning(&at, text);
        }
        // Without a field, or with no retries, it takes the virtual host's policy away on purpose.
        let is_off = message.fields.is_empty() || message.uint("num_retries") == Some(0);
        if found.is_empty() && !is_off {
            let text = "this policy retries nothing: `retry_on` names no condition";
            self.report.warning(&at, text).hint("add `retry_on`, like `5xx` or `connect-failure`");
        }
        found
    }

    fn unknown_word(&self, word: &str, at: &At) {
        let text = format!("`{}` in `retry_on` has no effect: it is no condition", shorten(word));
        let words = || RetryOn::WORDS.iter().chain(RetryOn::GRPC_WORDS).map(|(word, _)| *word);
        let near = suggest::nearest(word, words());
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("conditions: {}", words().collect::<Vec<_>>().join(", ")),
        };
        self.report.warning(at, text).hint(hint);
    }

    /// Lists that do nothing because their word is missing, a mistake often made.
    fn idle_lists(&self, message: &Msg, policy: &RetryPolicy) {
        for (field, is_set, word, bit) in [
            (
                "retriable_status_codes",
                !policy.status_codes.is_empty(),
                "retriable-status-codes",
                RetryOn::RETRIABLE_STATUS_CODES,
            ),
            (
                "retriable_headers",
                !policy.response_headers.is_empty(),
                "retriable-headers",
                RetryOn::RETRIABLE_HEADERS,
            ),
        ] {
            if is_set && !policy.retry_on.any(bit) {
                let text = format!("`{field}` has no effect without its word in `retry_on`");
                self.report
                    .warning(&message.at_of(field), text)
                    .hint(format!("add `{word}` to `retry_on`"));
            }
        }
    }

    fn avoid_previous_hosts(&self, message: &Msg) -> bool {
        let mut avoid = false;
        for predicate in message.messages("retry_host_predicate") {
            match predicate.message("typed_config") {
                // Others are reported as not implemented.
                Some(config) => avoid |= config.ty.full_name == PREVIOUS_HOSTS,
                None if predicate.broken.is_empty() => {
                    let name = shorten(predicate.text("name"));
                    self.report
                        .error(&predicate.at, format!("`{name}` needs a `typed_config`"))
                        .hint(format!("implemented: `type.googleapis.com/{PREVIOUS_HOSTS}`"));
                }
                None => {}
            }
        }
        avoid
    }

    fn back_off(&self, message: &Msg) -> Option<BackOff> {
        let message = message.message("retry_back_off")?;
        // The rules report a base that is missing.
        let base = milliseconds(message.duration("base_interval")?);
        let max = message.duration("max_interval").map(milliseconds);
        if let Some(max) = max.filter(|max| *max < base) {
            let (base, max) = (base.as_secs_f64(), max.as_secs_f64());
            let text = format!("`max_interval` is {max} s, less than `base_interval`, {base} s");
            self.report
                .error(&message.at_of("max_interval"), text)
                .hint("leave it out: the default is ten times `base_interval`");
        }
        Some(BackOff { base, max: max.unwrap_or_else(|| base.saturating_mul(10)) })
    }
}

/// Envoy counts in whole milliseconds and takes at least one.
fn milliseconds(duration: Duration) -> Duration {
    let whole = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(whole.max(1))
}

/// `None` when it is not set, or 0, which counts as unset. What is negative counts as very many.
fn host_selections(message: &Msg) -> Option<u32> {
    let given = message.int("host_selection_retry_max_attempts").filter(|n| *n != 0)?;
    Some(u32::try_from(given).unwrap_or(u32::MAX).min(HOST_SELECTIONS_MAX))
}

fn status_codes(message: &Msg) -> Vec<u32> {
    let number = |item: &Item| {
        let Value::Uint(code) = item.value else { return None };
        u32::try_from(code).ok()
    };
    message.items("retriable_status_codes").iter().filter_map(number).collect()
}

fn rate_limited(message: &Msg) -> RateLimitedBackOff {
    /// Envoy's longest time that a response may ask for, when the configuration does not say.
    const MAX: Duration = Duration::from_mins(5);
    let header = |header: &Msg| ResetHeader {
        name: header.text("name").to_ascii_lowercase(),
        format: match header.choice("format") {
            Some("UNIX_TIMESTAMP") => ResetFormat::UnixTimestamp,
            _ => ResetFormat::Seconds,
        },
    };
    RateLimitedBackOff {
        headers: message.messages("reset_headers").map(header).collect(),
        max: message.duration("max_interval").map_or(MAX, milliseconds),
    }
}

fn hedge(message: &Msg) -> Option<HedgePolicy> {
    let policy = message.message("hedge_policy")?;
    let on_per_try_timeout = policy.flag("hedge_on_per_try_timeout").unwrap_or(false);
    Some(HedgePolicy { on_per_try_timeout })
}

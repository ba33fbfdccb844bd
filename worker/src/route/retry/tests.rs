//! What Envoy 1.40 was seen doing with scripted endpoints, as tables, and the times between attempts.

use proptest::prelude::*;

use super::*;
use crate::config::{
    matcher::{HeaderCondition, HeaderMatcher, StringMatcher, StringPattern},
    retry::{HedgePolicy, ResetHeader},
};

fn words() -> impl Iterator<Item = (&'static str, RetryOn)> {
    RetryOn::WORDS.iter().chain(RetryOn::GRPC_WORDS).copied()
}

fn word(name: &str) -> RetryOn {
    words().find(|(word, _)| *word == name).unwrap().1
}

fn options(policy: RetryPolicy) -> RetryOptions {
    RetryOptions { policy: Some(Arc::new(policy)), ..RetryOptions::default() }
}

fn on(name: &str) -> RetryOptions {
    options(RetryPolicy { retry_on: word(name), ..RetryPolicy::default() })
}

fn request(lines: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead { method: b"GET".into(), ..RequestHead::default() };
    for (name, value) in lines {
        head.headers.append(name.as_bytes(), value.as_bytes());
    }
    head
}

fn response(status: u16, lines: &[(&str, &str)]) -> ResponseHead {
    let headers = request(lines).headers;
    ResponseHead { status, headers, ..ResponseHead::default() }
}

fn retry(options: &RetryOptions, lines: &[(&str, &str)]) -> Option<Retry> {
    Plan::of(options, &request(lines), None).retry
}

/// How often an endpoint that always answers so is asked again.
fn retries(options: &RetryOptions, lines: &[(&str, &str)], answer: &ResponseHead) -> u32 {
    let Some(mut retry) = retry(options, lines) else { return 0 };
    let mut count = 0;
    while retry.decide(retry.wants_after_head(answer), || true) == Decision::Retry {
        count += 1;
    }
    count
}

/// Whether a status is answered with a retry.
fn after(options: &RetryOptions, lines: &[(&str, &str)], status: u16) -> bool {
    retries(options, lines, &response(status, &[])) > 0
}

fn matcher(name: &str, value: Option<&str>) -> HeaderMatcher {
    let text = |text: &str| StringMatcher {
        pattern: StringPattern::Exact(text.to_owned()),
        ignore_case: false,
    };
    HeaderMatcher {
        name: name.to_owned(),
        condition: value
            .map_or(HeaderCondition::Present(true), |value| HeaderCondition::Text(text(value))),
        invert: false,
        missing_as_empty: false,
    }
}

#[test]
fn each_word_retries_the_statuses_that_envoy_was_seen_retrying() {
    for (name, _) in words() {
        let expected = |status: u16| match name {
            "5xx" => (500..600).contains(&status),
            "gateway-error" => (502..=504).contains(&status),
            "retriable-4xx" => status == 409,
            _ => false,
        };
        let retry = retry(&on(name), &[]).unwrap();
        for status in 100..=999 {
            let wants = retry.wants_after_head(&response(status, &[]));
            assert_eq!(wants, expected(status), "{name} {status}");
        }
    }
}

#[test]
fn each_word_retries_the_resets_that_envoy_was_seen_retrying() {
    use ResetKind::{BeforeRequest, ConnectFailure, Overflow, PerTryTimeout, RefusedStream, Reset};
    for (name, _) in words() {
        let expected: &[ResetKind] = match name {
            "5xx" | "gateway-error" | "reset" => {
                &[ConnectFailure, BeforeRequest, Reset, RefusedStream, PerTryTimeout]
            }
            "reset-before-request" => &[ConnectFailure, BeforeRequest],
            "connect-failure" => &[ConnectFailure],
            "refused-stream" => &[RefusedStream],
            _ => &[],
        };
        let retry = retry(&on(name), &[]).unwrap();
        for kind in [ConnectFailure, BeforeRequest, Reset, RefusedStream, PerTryTimeout, Overflow] {
            assert_eq!(retry.wants_after_reset(kind), expected.contains(&kind), "{name} {kind:?}");
        }
    }
}

#[test]
fn each_word_of_grpc_retries_its_status_in_headers_whatever_the_content_type() {
    let known = [
        ("cancelled", 1),
        ("deadline-exceeded", 4),
        ("resource-exhausted", 8),
        ("internal", 13),
        ("unavailable", 14),
    ];
    for (name, _) in words() {
        let own = known.iter().find(|(word, _)| *word == name).map(|(_, status)| *status);
        let retry = retry(&on(name), &[]).unwrap();
        for status in 0..=16 {
            let answer = response(200, &[("grpc-status", &status.to_string())]);
            assert_eq!(retry.wants_after_head(&answer), own == Some(status), "{name} {status}");
        }
        assert!(!retry.wants_after_head(&response(200, &[("grpc-status", "x")])));
    }
}

#[test]
fn a_response_of_a_rate_limit_is_retried_under_its_own_word_alone() {
    for (name, _) in words() {
        let retry = retry(&on(name), &[]).unwrap();
        for status in [200, 409, 429, 503] {
            let answer = response(status, &[("x-envoy-ratelimited", "true")]);
            assert_eq!(retry.wants_after_head(&answer), name == "envoy-ratelimited", "{name}");
        }
        // Older versions of Envoy never retried this one.
        let answer = response(503, &[("x-envoy-overloaded", "true")]);
        let by_status = matches!(name, "5xx" | "gateway-error");
        assert_eq!(retry.wants_after_head(&answer), by_status, "{name}");
    }
}

#[test]
fn a_list_of_statuses_counts_with_its_word_only_and_the_request_adds_to_it() {
    let codes = |retry_on| {
        let status_codes = vec![418, 504];
        options(RetryPolicy { retry_on, status_codes, ..RetryPolicy::default() })
    };
    let with = codes(RetryOn::RETRIABLE_STATUS_CODES);
    let header = "x-envoy-retriable-status-codes";
    assert!(after(&with, &[], 418) && !after(&with, &[], 503));
    assert!(after(&with, &[(header, "x, 599 ,-1")], 599));
    assert!(after(&with, &[(header, "1"), (header, "599")], 599), "two lines are one list");
    assert!(after(&with, &[(header, "599")], 418) && !after(&with, &[(header, "x")], 599));
    assert!(!after(&with, &[(header, "4294967895")], 599), "no number is cut");
    let without = codes(RetryOn::default());
    assert!(retry(&without, &[]).is_none());
    assert!(after(&without, &[("x-envoy-retry-on", "retriable-status-codes")], 418));
    let asked = [("x-envoy-retry-on", "retriable-status-codes"), (header, "418")];
    assert!(after(&RetryOptions::default(), &asked, 418));
    assert!(!after(&RetryOptions::default(), &asked, 419));
    assert!(!retry(&with, &[]).unwrap().wants_after_reset(ResetKind::PerTryTimeout));
}

#[test]
fn headers_of_a_response_count_with_their_word_only_and_the_request_names_more() {
    let policy = |retry_on| {
        let response_headers =
            vec![matcher("x-again", Some("yes")), matcher(":status", Some("207"))];
        options(RetryPolicy { retry_on, response_headers, ..RetryPolicy::default() })
    };
    let name = "x-envoy-retriable-header-names";
    let with = policy(RetryOn::RETRIABLE_HEADERS);
    for (asked, lines, expected) in [
        (&[][..], &[("x-again", "yes")][..], 1),
        (&[], &[("x-again", "no")], 0),
        (&[], &[("x-again", "no"), ("x-again", "yes")], 1),
        (&[(name, "x-foo, X-Other ")], &[("x-other", "no")], 1),
        (&[(name, "x-foo")], &[("x-other", "no")], 0),
        (&[(name, "")], &[], 0),
    ] {
        assert_eq!(retries(&with, asked, &response(200, lines)), expected, "{asked:?} {lines:?}");
    }
    assert_eq!(retries(&with, &[], &response(207, &[])), 1);
    let without = policy(RetryOn::STATUS_5XX);
    assert_eq!(retries(&without, &[], &response(200, &[("x-again", "yes")])), 0);
    assert_eq!(retries(&without, &[(name, "x-other")], &response(200, &[("x-other", "")])), 0);
}

#[test]
fn a_request_must_satisfy_one_of_the_retriable_request_headers_whatever_it_asks_for() {
    let policy = RetryPolicy {
        retry_on: RetryOn::STATUS_5XX,
        request_headers: vec![matcher("x-ok", None), matcher(":method", Some("PUT"))],
        ..RetryPolicy::default()
    };
    let options = options(policy);
    assert!(!after(&options, &[], 500));
    assert!(after(&options, &[("x-ok", "1")], 500));
    assert!(!after(&options, &[("x-envoy-retry-on", "5xx")], 500));
    let mut put = request(&[]);
    put.method = b"PUT".into();
    assert!(Plan::of(&options, &put, None).retry.unwrap().wants_after_head(&response(500, &[])));
}

#[test]
fn words_of_a_request_add_to_the_policy_and_each_header_has_its_own_words() {
    let none = RetryOptions::default();
    let (http, grpc) = ("x-envoy-retry-on", "x-envoy-retry-grpc-on");
    let unavailable = response(200, &[("grpc-status", "14")]);
    assert!(after(&on("retriable-4xx"), &[(http, "5xx")], 500));
    assert!(after(&on("retriable-4xx"), &[(http, "5xx")], 409));
    assert!(after(&none, &[(http, " foo , 5xx ,")], 500));
    assert!(after(&none, &[(http, "connect-failure"), (http, "5xx")], 500));
    assert!(!after(&none, &[(http, "5XX")], 500));
    assert!(!after(&none, &[(grpc, "5xx")], 500));
    assert_eq!(retries(&none, &[(http, "unavailable")], &unavailable), 0);
    assert_eq!(retries(&none, &[(grpc, "unavailable")], &unavailable), 1);
    for (name, _) in words() {
        let asked = [(http, name), (grpc, name)];
        assert_eq!(retry(&none, &asked).unwrap().conditions, word(name), "{name}");
    }
}

#[test]
fn the_number_of_retries_is_the_request_s_if_it_says_one_that_can_be_read() {
    let policy = |num_retries| {
        let retry_on = RetryOn::STATUS_5XX;
        options(RetryPolicy { retry_on, num_retries, ..RetryPolicy::default() })
    };
    let answer = response(500, &[]);
    let max = "x-envoy-max-retries";
    for (own, asked, expected) in [
        (3, None, 3),
        (0, None, 0),
        (0, Some("2"), 2),
        (3, Some("0"), 0),
        (3, Some("1"), 1),
        (3, Some("x"), 3),
        (3, Some("-1"), 3),
        (3, Some("18446744073709551616"), 3),
        (3, Some(""), 3),
        (3, Some(" 2 "), 2),
        (3, Some("+2"), 2),
    ] {
        let lines: Vec<_> = asked.iter().map(|asked| (max, *asked)).collect();
        assert_eq!(retries(&policy(own), &lines, &answer), expected, "{own} {asked:?}");
    }
    let none = RetryOptions::default();
    let wants = ("x-envoy-retry-on", "5xx");
    assert_eq!(retries(&none, &[wants], &answer), 1, "the default");
    assert_eq!(retries(&none, &[wants, (max, "3")], &answer), 3);
    assert_eq!(retries(&none, &[(max, "3")], &answer), 0);
    assert_eq!(retries(&none, &[("x-envoy-retry-on", ""), (max, "3")], &answer), 0);
}

#[test]
fn a_decision_asks_for_the_condition_then_the_number_then_the_room_and_a_refusal_uses_a_retry() {
    let policy =
        RetryPolicy { retry_on: RetryOn::STATUS_5XX, num_retries: 2, ..RetryPolicy::default() };
    let mut retry = retry(&options(policy), &[]).unwrap();
    assert_eq!(retry.decide(false, || panic!("no retry is due")), Decision::NoCondition);
    assert_eq!(retry.decide(true, || false), Decision::Overflow);
    assert_eq!(retry.left(), 1);
    assert_eq!(retry.decide(true, || true), Decision::Retry);
    assert_eq!(retry.decide(true, || panic!("no retry is due")), Decision::LimitExceeded);
    assert_eq!(retry.decide(false, || panic!("no retry is due")), Decision::NoCondition);
}

#[test]
fn hedging_needs_no_word_that_matches_but_something_that_asks_for_retries() {
    let hedge = HedgePolicy { on_per_try_timeout: true };
    let none = RetryOptions { hedge, ..options(RetryPolicy::default()) };
    assert!(retry(&none, &[]).is_none(), "the attempt goes on alone");
    let policy = RetryPolicy {
        retry_on: RetryOn::STATUS_5XX,
        request_headers: vec![matcher("x-ok", None)],
        ..RetryPolicy::default()
    };
    let unfit = RetryOptions { hedge, ..options(policy) };
    for (options, lines) in [(&none, &[("x-envoy-retry-on", "foo")][..]), (&unfit, &[])] {
        let mut retry = retry(options, lines).unwrap();
        assert!(!retry.wants_after_reset(ResetKind::PerTryTimeout));
        assert_eq!(retry.decide(true, || true), Decision::Retry);
    }
}

#[test]
fn an_attempt_has_the_time_of_the_request_or_the_policy_if_it_is_less_than_the_route_s() {
    let ms = Duration::from_millis;
    let asked = "x-envoy-upstream-rq-per-try-timeout-ms";
    let policy = |per_try_timeout| {
        let per_try_idle_timeout = Some(ms(70));
        options(RetryPolicy { per_try_timeout, per_try_idle_timeout, ..RetryPolicy::default() })
    };
    for (own, header, whole, expected) in [
        (None, None, Some(1200), None),
        (Some(150), None, Some(1200), Some(150)),
        (Some(1500), None, Some(1200), None),
        (Some(1200), None, Some(1200), None),
        (Some(1500), None, None, Some(1500)),
        (None, Some("150"), Some(1200), Some(150)),
        (Some(150), Some("0"), Some(1200), None),
        (Some(150), Some("1200"), Some(1200), None),
        (Some(150), Some("x"), Some(1200), Some(150)),
        (Some(150), Some("20"), None, Some(20)),
    ] {
        let lines: Vec<_> = header.iter().map(|header| (asked, *header)).collect();
        let found = Plan::of(&policy(own.map(ms)), &request(&lines), whole.map(ms)).per_try;
        let expected = PerTry { timeout: expected.map(ms), idle: Some(ms(70)), hedge: false };
        assert_eq!(found, expected, "{own:?} {header:?} {whole:?}");
    }
    assert_eq!(Plan::of(&RetryOptions::default(), &request(&[]), None).per_try, PerTry::default());
}

#[test]
fn a_request_says_true_or_false_about_hedging_and_nothing_else() {
    for (own, asked, expected) in [
        (false, "true", true),
        (true, "false", false),
        (true, "TRUE", true),
        (false, "TRUE", false),
        (true, "0", true),
    ] {
        let hedge = HedgePolicy { on_per_try_timeout: own };
        let options = RetryOptions { hedge, ..RetryOptions::default() };
        let request = request(&[("x-envoy-hedge-on-per-try-timeout", asked)]);
        assert_eq!(Plan::of(&options, &request, None).per_try.hedge, expected, "{own} {asked}");
    }
}

fn limited(max: u64) -> RateLimitedBackOff {
    let header = |name: &str, format| ResetHeader { name: name.to_owned(), format };
    RateLimitedBackOff {
        headers: vec![
            header("retry-after", ResetFormat::Seconds),
            header("x-reset", ResetFormat::UnixTimestamp),
        ],
        max: Duration::from_secs(max),
    }
}

#[test]
fn the_first_header_with_a_time_within_the_limit_says_how_long_to_wait() {
    let now = UNIX_EPOCH + Duration::from_secs(1000);
    for (lines, expected) in [
        (&[][..], None),
        (&[("retry-after", "1")][..], Some(1)),
        (&[("retry-after", "2")], Some(2)),
        (&[("retry-after", "3")], None),
        (&[("retry-after", "1.5")], None),
        (&[("retry-after", "x"), ("x-reset", "1002")], Some(2)),
        (&[("retry-after", "3"), ("x-reset", "1001")], Some(1)),
        (&[("x-reset", "1003")], None),
        (&[("x-reset", "999")], None),
        (&[("x-reset", "1000")], None),
        (&[("retry-after", "18446744073709551615")], None),
        // It can be read and is short enough, so the other one does not count.
        (&[("retry-after", "0"), ("x-reset", "1001")], None),
    ] {
        let found = rate_limited_wait(&limited(2), &request(lines).headers, now, 0);
        assert_eq!(found, expected.map(Duration::from_secs), "{lines:?}");
    }
}

#[test]
fn a_time_that_a_response_names_does_not_count_for_other_attempts() {
    let policy = RetryPolicy { rate_limited: Some(limited(300)), ..RetryPolicy::default() };
    let mut retry = retry(&options(policy), &[("x-envoy-retry-on", "5xx")]).unwrap();
    let named = response(503, &[("retry-after", "100")]);
    let largest = 25_000_000 - 1;
    let second = Duration::from_secs(1);
    assert!(retry.wait(Some(&named), UNIX_EPOCH, u64::MAX).time >= 100 * second);
    assert_eq!(retry.wait(None, UNIX_EPOCH, largest).time, Duration::from_nanos(largest));
    assert!(retry.wait(Some(&response(503, &[])), UNIX_EPOCH, u64::MAX).time < second);
}

proptest! {
    /// Seen: of 600 requests each, waits up to 0.1, 0.2 and 0.4 s with a base of 0.1 s.
    #[test]
    fn the_bound_of_the_wait_doubles_up_to_the_maximum_and_half_of_it_is_the_mean(
        base in 1_u64..10_000,
        factor in 1_u64..100,
        seed: u64,
    ) {
        let (base, max) = (Duration::from_millis(base), Duration::from_millis(base * factor));
        let mut random = fastrand::Rng::with_seed(seed);
        for attempt in 0..40_u32 {
            let bound = base.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(max);
            let waits = (0..20).map(|_| {
                let mut backoff = Backoff::new(BackOff { base, max });
                for _ in 0..attempt {
                    backoff.wait(0);
                }
                backoff.wait(random.u64(..))
            });
            let waits: Vec<Duration> = waits.collect();
            prop_assert!(waits.iter().all(|wait| *wait < bound));
            prop_assert!(waits.iter().any(|wait| *wait > bound / 10), "{waits:?} of {bound:?}");
        }
    }

    #[test]
    fn a_named_time_gets_up_to_half_of_itself_more(seconds in 1_u64..300, random: u64) {
        let text = seconds.to_string();
        let headers = request(&[("retry-after", &text)]).headers;
        let wait = rate_limited_wait(&limited(300), &headers, UNIX_EPOCH, random).unwrap();
        let named = Duration::from_secs(seconds);
        prop_assert!(named <= wait && wait < named + named / 2);
    }

    /// Nothing that a client or an endpoint writes is a panic.
    #[test]
    fn any_bytes_in_the_headers_are_read_without_harm(value: Vec<u8>, status in 100_u16..1000) {
        let mut head = request(&[("x-envoy-retry-on", "5xx,retriable-headers")]);
        for name in [
            "x-envoy-retry-on",
            "x-envoy-retry-grpc-on",
            "x-envoy-max-retries",
            "x-envoy-retriable-status-codes",
            "x-envoy-retriable-header-names",
            "x-envoy-hedge-on-per-try-timeout",
            "x-envoy-upstream-rq-per-try-timeout-ms",
        ] {
            head.headers.append(name.as_bytes(), &value);
        }
        let mut answer = response(status, &[]);
        answer.headers.append(b"grpc-status", &value);
        answer.headers.append(b"retry-after", &value);
        let policy = RetryPolicy { rate_limited: Some(limited(300)), ..RetryPolicy::default() };
        let mut retry = Plan::of(&options(policy), &head, None).retry.unwrap();
        prop_assert_eq!(retry.wants_after_head(&answer), (500..600).contains(&status)
            || retry.lists_header(&answer));
        prop_assert!(retry.wait(Some(&answer), UNIX_EPOCH, 7).time <= Duration::from_secs(450));
    }
}

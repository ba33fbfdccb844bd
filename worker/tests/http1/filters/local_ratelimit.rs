//! `envoy.filters.http.local_ratelimit`.

use baton_worker::{config::hcm::HttpConnectionManager, stats::MetricName};

use super::{
    super::harness::{Proxy, Script, run},
    configured, route, routes, values,
};

const TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ENABLED: &str = "filter_enabled: { default_value: { numerator: 100 } }";
const ENFORCED: &str = "filter_enforced: { default_value: { numerator: 100 } }";

/// Nothing grows back while a test runs.
fn bucket(tokens: u32) -> String {
    format!("token_bucket: {{ max_tokens: {tokens}, tokens_per_fill: 2, fill_interval: 86400s }}")
}

fn manager() -> HttpConnectionManager {
    let both = format!("{ENABLED}, {ENFORCED}");
    let list = [
        ("/two", format!("{both}, {}", bucket(2))),
        (
            "/told",
            format!(
                "{both}, {}, enable_x_ratelimit_headers: DRAFT_VERSION_03, enable_retry_after_header: \
                 true, response_headers_to_add: [{{ header: {{ key: x-rl, value: \"%PROTOCOL%\" }} }}]",
                bucket(2)
            ),
        ),
        ("/status", format!("{both}, {}, status: {{ code: ServiceUnavailable }}", bucket(0))),
        ("/low", format!("{both}, {}, status: {{ code: OK }}", bucket(0))),
        (
            "/unenforced",
            format!(
                "{ENABLED}, {}, request_headers_to_add_when_not_enforced: [{{ header: {{ key: x-would, \
                 value: \"1\" }} }}]",
                bucket(1)
            ),
        ),
        ("/disabled", bucket(0)),
        ("/exhausted", format!("{both}, {}, rate_limited_as_resource_exhausted: true", bucket(0))),
    ];
    let list: Vec<String> = list
        .iter()
        .map(|(prefix, rest)| {
            route(prefix, &format!("{{ \"@type\": {TYPE}, stat_prefix: rl, {rest} }}"))
        })
        .collect();
    let filter = format!("{{ name: f, typed_config: {{ \"@type\": {TYPE}, stat_prefix: top }} }}");
    configured(&filter, &routes(&list))
}

fn counter(proxy: &Proxy, name: &str) -> u64 {
    let (full, family) =
        (format!("rl.http_local_rate_limit.{name}"), format!("http_local_rate_limit.{name}"));
    let tags = [("envoy.local_http_ratelimit_prefix", "rl")];
    proxy.all_stats.counter(&MetricName::tagged(full, family, &tags)).value()
}

/// Sends so many requests: the answers, and what the upstream saw.
fn ask(path: &str, headers: &str, count: usize) -> (Vec<String>, String) {
    run(async {
        let script = Script::new(|_, _| OK.to_owned());
        let proxy = Proxy::start_with(script, |own| *own = manager()).await;
        let mut client = proxy.connect().await;
        let mut answers = Vec::new();
        for _ in 0..count {
            client.send(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n")).await;
            let head = client.read_until("\r\n\r\n").await;
            let length = values(&head, "content-length")[0].parse().unwrap();
            client.read_exactly(length).await;
            answers.push(head);
        }
        (answers, proxy.upstream_saw())
    })
}

#[test]
fn who_is_too_fast_is_refused_and_counted() {
    run(async {
        let script = Script::new(|_, _| OK.to_owned());
        let proxy = Proxy::start_with(script, |own| *own = manager()).await;
        // The bucket belongs to all connections.
        for refused in [false, false, true, true] {
            let mut client = proxy.connect().await;
            client.send("GET /two HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            let answer = client.read_to_end().await;
            let (start, end) = match refused {
                true => ("HTTP/1.1 429 ", "\r\n\r\nlocal_rate_limited"),
                false => ("HTTP/1.1 200 ", "\r\n\r\nok"),
            };
            assert!(answer.starts_with(start) && answer.ends_with(end), "{answer}");
        }
        for (name, expected) in [("enabled", 4), ("ok", 2), ("rate_limited", 2), ("enforced", 2)] {
            assert_eq!(counter(&proxy, name), expected, "{name}");
        }
    });
}

#[test]
fn clients_are_told_of_the_limit() {
    let (answers, _) = ask("/told", "", 3);
    for (answer, remaining, refused) in [(0, "1", false), (1, "0", false), (2, "0", true)] {
        let answer = &answers[answer];
        assert_eq!(values(answer, "x-ratelimit-limit"), ["2"], "{answer}");
        assert_eq!(values(answer, "x-ratelimit-remaining"), [remaining], "{answer}");
        let reset: u64 = values(answer, "x-ratelimit-reset")[0].parse().unwrap();
        // Two grow back in a day.
        assert_eq!(reset > 43_000, remaining == "0", "{answer}");
        assert_eq!(values(answer, "x-rl").is_empty(), !refused, "{answer}");
        assert_eq!(values(answer, "retry-after").is_empty(), !refused, "{answer}");
    }
}

#[test]
fn the_answer_is_the_one_that_is_configured() {
    for (path, status) in [("/status", "503"), ("/low", "429"), ("/disabled", "200")] {
        let (answers, _) = ask(path, "", 1);
        assert!(answers[0].starts_with(&format!("HTTP/1.1 {status} ")), "{}", answers[0]);
    }
    for (path, status) in [("/exhausted", "8"), ("/low", "14")] {
        let (answers, _) = ask(path, "content-type: application/grpc\r\n", 1);
        assert_eq!(values(&answers[0], "grpc-status"), [status], "{}", answers[0]);
    }
}

#[test]
fn where_nothing_is_enforced_the_upstream_is_told_what_would_have_been() {
    let (answers, upstream) = ask("/unenforced", "", 2);
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ")), "{answers:?}");
    let requests: Vec<_> = upstream.split("GET ").skip(1).collect();
    assert!(values(requests[0], "x-would").is_empty(), "{upstream}");
    assert_eq!(values(requests[1], "x-would"), ["1"], "{upstream}");
}

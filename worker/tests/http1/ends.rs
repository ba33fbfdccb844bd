//! How exchanges and connections end when something does not come, comes too early or breaks off.

use std::time::Duration;

use baton_contract::message::DrainStrategy;

use super::{
    OK,
    harness::{self, Proxy, Script},
};

/// What a client of a silent upstream gets in answer to `request`, which is followed by `more`.
fn silence(request: &str, more: &str) -> String {
    harness::run(async {
        let proxy = Proxy::start_with(Script::silent(), |manager| {
            manager.stream_idle_timeout = Some(Duration::from_millis(100));
        })
        .await;
        let mut client = proxy.connect().await;
        client.send(request).await;
        let answer = client.read_until("stream timeout").await;
        assert_eq!(proxy.stats.downstream_rq_idle_timeout.value(), 1);
        assert_eq!(proxy.stats.downstream_rq_timeout.value(), 0, "it had no such limit");
        client.send(more).await;
        client.end().await;
        answer + &client.read_to_end().await
    })
}

#[test]
fn a_silent_upstream_of_a_whole_request_is_a_504_and_the_connection_goes_on() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let answer = silence(request, "GET /direct HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{answer}");
        assert!(
            !answer.split("stream timeout").next().unwrap().contains("connection:"),
            "{answer}"
        );
        assert!(answer.ends_with("hello"), "{answer}");
    }
}

#[test]
fn a_request_whose_rest_does_not_come_is_a_408_and_the_connection_ends() {
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let answer = silence(request, "GET /direct HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.ends_with("stream timeout"), "{answer}");
    }
}

#[test]
fn a_request_that_is_not_whole_in_time_is_a_408() {
    harness::run(async {
        let proxy = Proxy::start_with(Script::answer_once(OK), |manager| {
            manager.request_timeout = Some(Duration::from_millis(100));
            manager.request_headers_timeout = Some(Duration::from_secs(60));
        })
        .await;
        // The time for the head is longer, and does not count then.
        let heads = [
            "GET / HTTP/1.1\r\nHost",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
        ];
        for (count, part) in (1..).zip(heads) {
            let mut client = proxy.connect().await;
            client.send(part).await;
            let answer = client.read_to_end().await;
            assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\nrequest timeout"), "{answer}");
            assert_eq!(proxy.stats.downstream_rq_timeout.value(), count);
            assert_eq!(proxy.stats.downstream_rq_header_timeout.value(), 0);
        }
    });
}

const CLOSE: &str = "\r\nconnection: close\r\n";

/// What follows the framing of a response that is not whole, and what a client may get of it.
fn cut_responses() -> Vec<(String, String)> {
    let long = "0123456789".repeat(100_000);
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let mut all = Vec::new();
    for body in ["short", &long] {
        let size = body.len();
        all.push((format!("{head}content-length: 3000000\r\n\r\n{body}"), body.to_owned()));
        // In the middle of a chunk, behind one, in a size, and in a trailer.
        all.push((format!("{chunked}fffff\r\n{body}"), body.to_owned()));
        for end in ["", "\r", "\r\n", "\r\n4", "\r\n0\r\nx: y\r\n"] {
            all.push((format!("{chunked}{size:x}\r\n{body}{end}"), body.to_owned()));
        }
        // Broken encoding.
        for end in ["XX", "\rX", "\r\nzz\r\n", "\r\n0\r\nbad trailer\r\n\r\n"] {
            all.push((format!("{chunked}{size:x}\r\n{body}{end}"), body.to_owned()));
        }
    }
    all
}

/// Data of a chunked body that may be cut.
fn chunks(mut body: &str) -> String {
    let mut data = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        assert_ne!(size, 0, "the body looks whole");
        data.push_str(&rest[..size.min(rest.len())]);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    data
}

#[test]
fn what_came_of_a_cut_response_is_delivered_before_the_end() {
    for (response, expected) in cut_responses() {
        let what = response.chars().take(80).collect::<String>();
        let answer = harness::run(async {
            let proxy = Proxy::start(Script::answer_once(&response)).await;
            let mut client = proxy.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.read_to_clean_end().await
        });
        let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        let body = harness::body(&answer);
        let data = if answer.contains("chunked") { chunks(body) } else { body.to_owned() };
        assert!(data == expected, "{what}: {} of {} bytes", data.len(), expected.len());
    }
}

#[test]
fn a_client_that_knows_no_chunks_is_told_of_a_cut_by_a_reset_behind_the_data() {
    for (response, expected) in cut_responses().into_iter().filter(|(r, _)| r.contains("chunked")) {
        harness::run(async {
            let proxy = Proxy::start(Script::answer_once(&response)).await;
            let mut client = proxy.connect().await;
            client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
            let head = client.read_until("\r\n\r\n").await;
            assert!(!head.contains("chunked"), "{head}");
            assert!(client.read_exactly(expected.len()).await == expected, "other bytes");
            assert!(client.read_to_clean_end().await.is_err(), "it looks like a whole response");
        });
    }
}

/// Requests that are refused when their head was read, or not even that.
fn refused() -> Vec<(String, &'static str)> {
    let long = "x".repeat(66_000);
    let head = "HTTP/1.1\r\nHost: a\r\n";
    vec![
        (format!("GET / {head}X: {long}\r\n\r\n"), "431"),
        (format!("GET /{long}{long} {head}\r\n"), "414"),
        (format!("POST / {head}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), "400"),
        (format!("GET / {head}Host: b\r\n\r\n"), "400"),
        (format!("GET / {head}X: a\r\n b\r\n\r\n"), "400"),
        (format!("GET /%zz {head}\r\n"), "400"),
        (format!("POST / {head}Transfer-Encoding: br\r\n\r\n"), "501"),
        (format!("POST / {head}Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "400"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".into(), "505"),
        (format!("POST /direct {head}Content-Length: 70000000\r\n\r\n"), "200"),
    ]
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let rest = "y".repeat(4_000_000);
    for (request, status) in refused() {
        let what = request.chars().take(80).collect::<String>();
        for size in [70_000, rest.len()] {
            harness::run(async {
                let proxy = Proxy::start(Script::answer_once(OK)).await;
                let mut client = proxy.connect().await;
                // It reads only when it has sent everything.
                let sent = client.try_send(format!("{request}{}", &rest[..size]).as_bytes()).await;
                assert!(sent, "{what}: not all could be sent");
                let answer = client.read_to_clean_end().await;
                let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
                assert!(answer.contains(CLOSE), "{what}: {answer}");
            });
        }
    }
}

#[test]
fn a_client_that_never_ends_is_not_listened_to_for_ever() {
    harness::run(async {
        let proxy = Proxy::start(Script::answer_once(OK)).await;
        let mut client = proxy.connect().await;
        let piece = "z".repeat(1 << 20);
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        let mut pieces = 0;
        while client.try_send(piece.as_bytes()).await {
            pieces += 1;
            assert!(pieces < 1000, "all of it was read");
        }
        assert!(pieces > 32, "{pieces} MiB only");
    });
}

#[test]
fn without_a_delayed_close_nobody_waits_for_the_client() {
    harness::run(async {
        let proxy = Proxy::start_with(Script::answer_once(OK), |manager| {
            manager.delayed_close_timeout = None;
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        let answer = client.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(CLOSE), "{answer}");
        assert!(client.is_alone().await);
    });
}

const TOO_LARGE: &str = "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig";

#[test]
fn an_answer_before_the_request_is_whole_says_that_the_connection_ends() {
    let length = |length: usize| format!("Content-Length: {length}\r\n\r\n{}", "x".repeat(9));
    for rest in [
        length(10),
        length(10_000_000),
        "Transfer-Encoding: chunked\r\n\r\n9\r\nxxxxxxxxx\r\n".to_owned(),
        "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n".to_owned(),
    ] {
        harness::run(async {
            let proxy = Proxy::start(Script::Early(TOO_LARGE.into())).await;
            let mut client = proxy.connect().await;
            client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}")).await;
            let answer = client.read_to_clean_end().await.unwrap();
            assert!(answer.contains("HTTP/1.1 413 "), "{answer}");
            assert!(answer.contains(CLOSE), "{rest}: {answer}");
            assert!(answer.ends_with("\r\n\r\nbig"), "{answer}");
            assert_eq!(proxy.stats.downstream_rq_response_before_rq_complete.value(), 1);
        });
    }
}

#[test]
fn an_early_answer_reaches_a_client_that_reads_only_after_it_has_sent_everything() {
    harness::run(async {
        // All of it fits into the queue of the proxy: then nobody waits for anybody.
        let body = "answer ".repeat(30_000);
        let response = format!("HTTP/1.1 413 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let proxy = Proxy::start(Script::Early(response)).await;
        let mut client = proxy.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n";
        assert!(client.try_send((head.to_owned() + &"x".repeat(30_000_000)).as_bytes()).await);
        let answer = client.read_to_clean_end().await.unwrap();
        assert!(harness::body(&answer) == body, "other bytes");
    });
}

#[test]
fn an_answer_to_a_whole_request_keeps_the_connection() {
    harness::run(async {
        let proxy = Proxy::start(Script::Early(TOO_LARGE.into())).await;
        let mut client = proxy.connect().await;
        for _ in 0..3 {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
            let answer = client.read_until("big").await;
            assert!(!answer.contains("connection:"), "{answer}");
        }
    });
}

/// A client whose first request was answered, and the proxy that is told something then.
async fn served(proxy: &Proxy) -> harness::Client {
    let mut client = proxy.connect().await;
    client.send("GET /direct HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!client.read_until("hello").await.contains(CLOSE));
    client
}

#[test]
fn a_kept_connection_is_told_that_the_service_stops_or_ends_after_a_silence() {
    harness::run(async {
        let proxy = Proxy::start(Script::silent()).await;
        let (mut busy, mut idle) = (served(&proxy).await, served(&proxy).await);
        let mut new = proxy.connect().await;
        let now = baton_worker::clock::now();
        proxy.drain.start(DrainStrategy::Immediate, Duration::ZERO, now);
        proxy.drain.stop(now);
        for client in [&mut busy, &mut new] {
            client.send("GET /direct HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let answer = client.read_to_clean_end().await.unwrap();
            assert!(answer.contains(CLOSE) && answer.ends_with("hello"), "{answer}");
        }
        // A worker wakes its connections once a second while it stops.
        proxy.wake_connections();
        assert_eq!(idle.read_to_clean_end().await.unwrap(), "");
        assert!(now.elapsed() >= Duration::from_secs(1), "it had its chance");
    });
}

#[test]
fn a_connection_that_is_old_enough_is_told_or_ends_after_a_silence() {
    harness::run(async {
        let proxy = Proxy::start_with(Script::silent(), |manager| {
            manager.max_connection_duration = Some(Duration::from_millis(100));
        })
        .await;
        let began = baton_worker::clock::now();
        let (mut busy, mut idle) = (proxy.connect().await, proxy.connect().await);
        let mut told = String::new();
        while !told.contains(CLOSE) {
            busy.send("GET /direct HTTP/1.1\r\nHost: a\r\n\r\n").await;
            told = busy.read_until("hello").await;
        }
        assert_eq!(busy.read_to_clean_end().await.unwrap(), "");
        assert_eq!(idle.read_to_clean_end().await.unwrap(), "");
        assert!(began.elapsed() >= Duration::from_secs(1), "it had its chance");
        assert_eq!(proxy.stats.downstream_cx_max_duration_reached.value(), 2);
        assert_eq!(proxy.stats.downstream_cx_idle_timeout.value(), 0);
    });
}

/// The kernel has the request in time, but this thread gets no processor and does not look until the limit has
/// passed.
#[expect(clippy::disallowed_methods, reason = "a thread that stands still is the case")]
async fn answer_after_a_standstill(proxy: &Proxy, mut client: harness::Client) -> String {
    client.send("GET /direct HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    std::thread::sleep(Duration::from_millis(1100));
    proxy.wake_connections();
    client.read_to_clean_end().await.unwrap()
}

#[test]
fn a_request_that_came_before_a_standstill_is_served_when_the_service_stops() {
    harness::run(async {
        let proxy = Proxy::start(Script::silent()).await;
        let client = served(&proxy).await;
        let now = baton_worker::clock::now();
        proxy.drain.start(DrainStrategy::Immediate, Duration::ZERO, now);
        proxy.drain.stop(now);
        let answer = answer_after_a_standstill(&proxy, client).await;
        assert!(answer.ends_with("hello"), "{answer}");
    });
}

#[test]
fn a_request_that_came_before_a_standstill_is_served_although_the_connection_was_idle_for_long() {
    harness::run(async {
        let proxy = Proxy::start_with(Script::silent(), |manager| {
            manager.idle_timeout = Some(Duration::from_millis(1000));
        })
        .await;
        let client = served(&proxy).await;
        let answer = answer_after_a_standstill(&proxy, client).await;
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(proxy.stats.downstream_cx_idle_timeout.value(), 0);
    });
}

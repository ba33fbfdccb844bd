//! The HTTP connection manager against real sockets: a scripted client, a scripted upstream.
//!
//! The whole path runs in one thread; the peers are plain blocking-free tokio tasks. What the
//! upstream received and what the client received is compared byte by byte.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[path = "http1/bulk.rs"]
mod bulk;
#[path = "http1/client.rs"]
mod client;
#[path = "http1/cut.rs"]
mod cut;
#[path = "http1/ends.rs"]
mod ends;
#[path = "http1/filters.rs"]
mod filters;
#[path = "http1/harness.rs"]
mod harness;
#[path = "http1/message.rs"]
mod message;
#[path = "http1/mirror.rs"]
mod mirror;
#[path = "http1/retries.rs"]
mod retries;
#[path = "http1/retry.rs"]
mod retry;
#[path = "http1/scripts.rs"]
mod scripts;
#[path = "http1/seeds.rs"]
mod seeds;
#[path = "http1/shown.rs"]
mod shown;
#[path = "http1/upgrade.rs"]
mod upgrade;

use std::{cell::Cell, rc::Rc, time::Duration};

use harness::{Proxy, Script};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Runs a request through the proxy: what the upstream saw, what the client saw.
fn exchange(request: &str, response: &str) -> (String, String) {
    harness::run(async {
        let proxy = Proxy::start(Script::answer_once(response)).await;
        let mut client = proxy.connect().await;
        client.send(request).await;
        client.end().await;
        let seen = client.read_to_end().await;
        (proxy.upstream_saw(), seen)
    })
}

/// Sends a request that is not answered by the upstream, and does not end.
fn exchange_open(request: &str) -> (String, String) {
    harness::run(async {
        let proxy = Proxy::start(Script::silent()).await;
        let mut client = proxy.connect().await;
        client.send(request).await;
        let seen = client.read_to_end().await;
        (proxy.upstream_saw(), seen)
    })
}

#[test]
fn a_request_reaches_the_upstream_and_its_response_the_client() {
    let (upstream, client) =
        exchange("GET /a?b=c HTTP/1.1\r\nHost: Example.com\r\nX-A: 1\r\n\r\n", OK);
    assert!(upstream.starts_with("GET /a?b=c HTTP/1.1\r\nhost: Example.com\r\n"), "{upstream}");
    assert!(upstream.contains("\r\nx-a: 1\r\n"), "{upstream}");
    assert!(upstream.contains("\r\nx-forwarded-proto: http\r\n"), "{upstream}");
    assert!(client.starts_with("HTTP/1.1 200 OK\r\n"), "{client}");
    assert!(client.contains("\r\nserver: baton\r\n"), "{client}");
    assert!(client.ends_with("\r\n\r\nok"), "{client}");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    harness::run(async {
        let script = Script::new(|n, _| format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{n}"));
        let proxy = Proxy::start(script).await;
        let mut client = proxy.connect().await;
        client.send(&"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(5)).await;
        client.end().await;
        let seen = client.read_to_end().await;
        let bodies: String = seen
            .split("HTTP/1.1")
            .skip(1)
            .map(|response| response.chars().last().unwrap())
            .collect();
        assert_eq!(bodies, "01234");
    });
}

#[test]
fn a_client_that_reads_late_gets_every_answer() {
    const COUNT: usize = 1000;
    const BYTES: usize = 15_000;
    harness::run(async {
        let answer = |n| {
            let body = format!("{n:0BYTES$}");
            format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n{body}")
        };
        let answered = Rc::new(Cell::new(0));
        let counter = Rc::clone(&answered);
        let script = Script::new(move |n, _| {
            counter.set(n + 1);
            answer(n)
        });
        let proxy = Proxy::start(script).await;
        let mut client = proxy.connect().await;
        let mut stuck = false;
        for n in 1..=COUNT {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            // One after the other, until an answer does not fit and nothing more is read.
            let mut turns = 0;
            while !stuck && answered.get() < n {
                tokio::task::yield_now().await;
                turns += 1;
                stuck = turns > 100_000;
            }
        }
        assert!(stuck, "the socket took all answers");
        client.end().await;
        let seen = client.read_to_end().await;
        assert_eq!(proxy.stats.downstream_cx_tx_bytes_total.value(), seen.len() as u64);
        let bodies: Vec<_> = seen.split("HTTP/1.1").skip(1).map(harness::body).collect();
        assert_eq!(bodies.len(), COUNT);
        for (n, body) in bodies.into_iter().enumerate() {
            assert_eq!(body.len(), BYTES);
            assert_eq!(body.parse::<usize>().ok(), Some(n));
        }
    });
}

#[test]
fn a_chunked_body_is_framed_anew_in_both_directions() {
    let (upstream, client) = exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n",
    );
    assert!(upstream.contains("\r\ntransfer-encoding: chunked\r\n"), "{upstream}");
    assert_eq!(harness::unchunk(harness::body(&upstream)), "abcde");
    assert_eq!(harness::unchunk(harness::body(&client)), "wxyz");
}

#[test]
fn a_response_that_ends_with_the_connection_becomes_chunks() {
    let (_, client) =
        exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nuntil close");
    assert!(client.contains("\r\ntransfer-encoding: chunked\r\n"), "{client}");
    assert_eq!(harness::unchunk(harness::body(&client)), "until close");
}

#[test]
fn head_and_304_have_no_body() {
    let (_, client) = exchange(
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n",
    );
    assert!(
        client.contains("\r\ncontent-length: 99\r\n") && client.ends_with("\r\n\r\n"),
        "{client}"
    );
    let (_, client) =
        exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n");
    assert!(client.starts_with("HTTP/1.1 304") && client.ends_with("\r\n\r\n"), "{client}");
}

#[test]
fn http_10_is_answered_until_close() {
    let (upstream, client) = exchange(
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    assert!(upstream.starts_with("GET / HTTP/1.1\r\n"), "{upstream}");
    assert!(!client.contains("chunked") && client.ends_with("\r\n\r\nok"), "{client}");
}

#[test]
fn expect_continue_is_answered_by_the_proxy() {
    harness::run(async {
        let proxy = Proxy::start(Script::answer_once(OK)).await;
        let mut client = proxy.connect().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            .await;
        assert_eq!(client.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("abc").await;
        client.end().await;
        assert!(client.read_to_end().await.starts_with("HTTP/1.1 200 OK\r\n"));
        let upstream = proxy.upstream_saw();
        assert!(
            !upstream.contains("\r\nexpect:") && upstream.ends_with("\r\n\r\nabc"),
            "{upstream}"
        );
    });
}

#[test]
fn local_answers_carry_envoys_texts() {
    let (_, client) = exchange("GET /direct HTTP/1.1\r\nHost: a\r\n\r\n", "");
    assert!(
        client.starts_with("HTTP/1.1 200 OK\r\n") && client.ends_with("\r\n\r\nhello"),
        "{client}"
    );
    let (_, client) = exchange("GET /moved/x HTTP/1.1\r\nHost: a\r\n\r\n", "");
    assert!(client.contains("\r\nlocation: http://elsewhere/moved/x\r\n"), "{client}");
    let (_, client) = exchange("GET / HTTP/1.1\r\nHost: none.example\r\n\r\n", "");
    assert!(client.starts_with("HTTP/1.1 404 Not Found\r\n"), "{client}");
    let (_, client) = exchange("GET /dead HTTP/1.1\r\nHost: a\r\n\r\n", "");
    assert!(client.starts_with("HTTP/1.1 503 "), "{client}");
    assert!(client.ends_with("reset reason: remote connection failure"), "{client}");
    let (_, client) = exchange("GET /empty HTTP/1.1\r\nHost: a\r\n\r\n", "");
    assert!(client.ends_with("\r\n\r\nno healthy upstream"), "{client}");
}

#[test]
fn grpc_clients_get_answers_they_understand() {
    let call = |path: &str, kind: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n");
        exchange(&format!("{head}Content-Type: {kind}\r\n\r\n"), "junk").1
    };
    for (path, status, message) in [
        ("/direct", "2", "hello"),
        ("/empty", "14", "no healthy upstream"),
        ("/moved", "2", ""),
        ("/%zz", "13", ""),
        (
            "/",
            "14",
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
        ),
    ] {
        for kind in ["application/grpc", "application/grpc+proto"] {
            let answer = call(path, kind);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(answer.contains("\r\ncontent-type: application/grpc\r\n"), "{answer}");
            assert!(answer.contains(&format!("\r\ngrpc-status: {status}\r\n")), "{answer}");
            let line = format!("\r\ngrpc-message: {message}\r\n");
            assert_eq!(answer.contains(&line), !message.is_empty(), "{answer}");
            assert!(answer.contains("\r\ncontent-length: 0\r\n"), "{answer}");
            assert!(answer.ends_with("\r\n\r\n") && !answer.contains("text/plain"), "{answer}");
        }
    }
    assert!(call("/empty", "application/grpc-web").starts_with("HTTP/1.1 503 "));
    // What is no request is no call.
    let (_, answer) = exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: x\r\n\r\n",
        "",
    );
    assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("grpc"), "{answer}");
}

#[test]
fn only_an_upstreams_answer_tells_how_long_it_took() {
    let get = |path: &str, response| {
        let (_, client) = exchange(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"), response);
        (client.contains("x-envoy-upstream-service-time"), client)
    };
    for (path, response, status, expected) in [
        ("/", OK, "200", true),
        ("/", "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n", "503", true),
        ("/", "junk\r\n\r\n", "502", false),
        ("/", "", "503", false),
        ("/quick", "HTTP/1.1 ", "502", false),
        ("/dead", "", "503", false),
    ] {
        let (told, client) = get(path, response);
        assert!(client.starts_with(&format!("HTTP/1.1 {status} ")), "{client}");
        assert_eq!(told, expected, "{client}");
    }
}

#[test]
fn refusals_say_why() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(101));
    for (request, body) in [
        ("GET / HTTP/1.1\r\n\r\n", "Bad Request"),
        (&*many, "Request Header Fields Too Large"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "Not Implemented"),
        ("GET / HTTP/1.1\r\nHost", "request header timeout"),
    ] {
        let (_, client) = exchange_open(request);
        assert_eq!(harness::body(&client), body);
    }
}

#[test]
fn a_stale_pooled_connection_is_replaced_without_the_client_noticing() {
    harness::run(async {
        // The upstream closes each connection right after it saw the second request's head.
        let proxy = Proxy::start(Script::close_on_reuse(OK)).await;
        let mut client = proxy.connect().await;
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let head = client.read_until("\r\n\r\nok").await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        }
    });
}

#[test]
fn a_post_is_not_sent_twice() {
    harness::run(async {
        let proxy = Proxy::start(Script::close_on_reuse(OK)).await;
        let mut client = proxy.connect().await;
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        client.send(post).await;
        client.read_until("\r\n\r\nok").await;
        client.send(post).await;
        let answer = client.read_until("termination").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    });
}

#[test]
fn a_cut_response_is_cut_for_the_client_too() {
    let (_, client) = exchange(
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
    );
    assert!(client.len() < 1000 && !client.ends_with("complete"), "{client}");
}

#[test]
fn a_websocket_becomes_a_tunnel_both_ways() {
    harness::run(async {
        let proxy = Proxy::start(Script::websocket()).await;
        let mut client = proxy.connect().await;
        client
            .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
            .await;
        let head = client.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"), "{head}");
        // The request has no end from which it could be counted.
        assert!(!head.contains("x-envoy-upstream-service-time"), "{head}");
        assert_eq!(client.read_until("early").await, "early");
        client.send("more").await;
        assert_eq!(client.read_until("more").await, "more");
        client.end().await;
        assert_eq!(client.read_to_end().await, "");
    });
}

/// Asks for a tunnel to `authority` and sends bytes through it.
fn connect_and_echo(authority: &str, script: Script) -> String {
    harness::run(async {
        let proxy = Proxy::start(script).await;
        let mut client = proxy.connect().await;
        client.send(&format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await;
        let head = client.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        client.send("ping").await;
        assert_eq!(client.read_until("ping").await, "ping");
        client.end().await;
        assert_eq!(client.read_to_end().await, "");
        proxy.upstream_saw()
    })
}

#[test]
fn a_connect_is_sent_on_and_becomes_a_tunnel() {
    let upstream = connect_and_echo("sent-on.example:443", Script::Connect);
    assert!(upstream.starts_with("CONNECT sent-on.example:443 HTTP/1.1\r\n"), "{upstream}");
}

#[test]
fn a_connect_that_ends_here_carries_bytes_to_the_endpoint() {
    assert_eq!(connect_and_echo("ends-here.example:443", Script::Echo), "");
}

#[test]
fn trailers_pass_in_both_directions() {
    let (upstream, client) = exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\ny\r\n0\r\nX-Total: 2\r\n\r\n",
    );
    assert!(upstream.ends_with("0\r\nx-sum: 1\r\n\r\n"), "{upstream}");
    assert!(client.ends_with("0\r\nx-total: 2\r\n\r\n"), "{client}");
}

#[test]
fn an_upgrade_that_is_not_allowed_is_refused() {
    let (_, client) =
        exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: spdy\r\n\r\n", OK);
    assert!(client.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{client}");
}

#[test]
fn a_silent_upstream_is_a_504() {
    harness::run(async {
        let proxy = Proxy::start(Script::silent()).await;
        let mut client = proxy.connect().await;
        client.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.read_until("upstream request timeout").await;
        assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"), "{answer}");
    });
}

#[test]
fn a_slow_head_is_a_408() {
    harness::run(async {
        let proxy = Proxy::start(Script::answer_once(OK)).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHo").await;
        let answer = tokio::time::timeout(Duration::from_secs(30), client.read_to_end()).await;
        assert!(answer.unwrap().starts_with("HTTP/1.1 408 "));
    });
}

#[test]
fn a_large_body_passes_whole_in_both_directions() {
    let body: String =
        (0..300_000u32).map(|n| char::from(b"abcdefghijklmnopqrstuvw"[n as usize % 23])).collect();
    let (upstream, client) = exchange(
        &format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
    );
    assert_eq!(harness::body(&upstream), body);
    assert_eq!(harness::body(&client), body);
}

#[test]
fn a_client_that_said_it_is_done_is_not_waited_for() {
    harness::run(async {
        let proxy = Proxy::start(Script::answer_once(OK)).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(client.read_to_end().await.ends_with("\r\n\r\nok"));
        assert!(client.is_alone().await);
    });
}

#[test]
fn what_comes_after_the_last_request_does_not_cut_its_response() {
    let body = "0123456789".repeat(50_000);
    harness::run(async {
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let proxy = Proxy::start(Script::answer_once(&response)).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /more").await;
        let answer = client.read_to_end().await;
        assert_eq!(harness::body(&answer), body);
        assert!(!client.is_alone().await, "it was waited for");
    });
}

#[test]
fn bad_requests_are_answered_and_closed() {
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "505"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "404"),
        ("GET /..%zzx HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: bogus\r\nContent-Length: 0\r\n\r\n", "417"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
    ] {
        let (_, client) = exchange(request, OK);
        assert!(client.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {client:?}");
    }
}

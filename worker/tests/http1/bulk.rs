//! Bodies that are long enough for a pipe, and those beside them.

use std::fmt::Write as _;

use super::harness::{self, Proxy, Script};

/// Text whose every part is different.
fn text(length: usize, seed: usize) -> String {
    let mut text = String::with_capacity(length + 16);
    let mut number = seed;
    while text.len() < length {
        write!(text, "{number:x} ").unwrap();
        number += 1;
    }
    text.truncate(length);
    text
}

/// Below, at and above the limits: what is read at first, what is worth a pipe, what a pipe holds.
const LENGTHS: [usize; 14] = [
    2, 200_000, 65_536, 147_455, 147_456, 147_457, 2, 1_000_000, 0, 81_920, 100, 3_000_000,
    524_288, 70_000,
];

#[test]
fn long_and_short_responses_alternate_on_one_connection() {
    harness::run(async {
        let script = Script::new(|n, _| {
            let body = text(LENGTHS[n], n);
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        });
        let proxy = Proxy::start(script).await;
        let mut client = proxy.connect().await;
        let mut received = 0;
        for (n, length) in LENGTHS.into_iter().enumerate() {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let head = client.read_until("\r\n\r\n").await;
            assert!(head.contains(&format!("\r\ncontent-length: {length}\r\n")), "{head}");
            let body = client.read_exactly(length).await;
            assert!(body == text(length, n), "response {n} has other bytes");
            received += (head.len() + length) as u64;
        }
        assert_eq!(proxy.stats.downstream_cx_tx_bytes_total.value(), received);
    });
}

#[test]
fn long_and_short_requests_alternate_on_one_connection() {
    harness::run(async {
        let script = Script::new(|n, request| {
            assert!(harness::body(request) == text(LENGTHS[n], n), "request {n} has other bytes");
            "HTTP/1.1 204 No Content\r\n\r\n".into()
        });
        let proxy = Proxy::start(script).await;
        let mut client = proxy.connect().await;
        let mut sent = 0;
        for (n, length) in LENGTHS.into_iter().enumerate() {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let request = head + &text(length, n);
            client.send(&request).await;
            sent += request.len() as u64;
            let answer = client.read_until("\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        }
        assert_eq!(proxy.stats.downstream_cx_rx_bytes_total.value(), sent);
    });
}

#[test]
fn a_client_that_reads_late_gets_all_of_a_long_response() {
    const LENGTH: usize = 30_000_000;
    harness::run(async {
        let body = text(LENGTH, 1);
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n{body}");
        let proxy = Proxy::start(Script::answer_once(&response)).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let sent = &proxy.stats.downstream_cx_tx_bytes_total;
        // Until nothing fits into the client's socket any more.
        let (mut before, mut turns) = (0, 0);
        while turns < 10_000 {
            tokio::task::yield_now().await;
            turns = if sent.value() > before { 0 } else { turns + 1 };
            before = sent.value();
        }
        assert!(before > 0 && before < LENGTH as u64, "{before} bytes fit into the socket");
        client.read_until("\r\n\r\n").await;
        assert!(client.read_exactly(LENGTH).await == body, "other bytes");
    });
}

#[test]
fn a_long_response_that_is_cut_is_cut_for_the_client_too() {
    harness::run(async {
        let half = text(500_000, 1);
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{half}");
        let proxy = Proxy::start(Script::answer_once(&response)).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let seen = client.read_to_end().await;
        let body = harness::body(&seen);
        assert!(half.starts_with(body), "other bytes");
    });
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_long_request_ends_it() {
    harness::run(async {
        let proxy = Proxy::start(Script::silent()).await;
        let mut client = proxy.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
        client.send(&(head.to_owned() + &text(500_000, 1))).await;
        client.end().await;
        assert_eq!(client.read_to_end().await, "");
        assert_eq!(proxy.stats.downstream_rq_rx_reset.value(), 1);
    });
}

//! Responses of upstreams that are broken or hostile: 200 means passed on, 502 refused.

use crate::harness::{Outcome, read_response, same_however_split};
use baton_worker::http::h1::Limits;
use baton_worker::http::h1::response::Answers;

fn check(input: &str, answers: Answers, status: u16) -> Outcome {
    let limits = Limits::default();
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| read_response(pieces, &limits, answers);
    let outcome = same_however_split(input, input.as_bytes(), read);
    assert_eq!(outcome.status, status, "{input:?}");
    outcome
}

/// A 200 with these lines and this body.
fn ok(lines: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}")
}

#[test]
fn malformed_responses_are_refused() {
    let many = vec!["a: b"; 101].join("\r\n");
    let big = format!("a: {}", "b".repeat(64 * 1024));
    for input in [
        ok("Content-Length: 1\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ok("Transfer-Encoding: chunked\r\nContent-Length: 1", "0\r\n\r\n"),
        ok("Content-Length: 1\r\nContent-Length: 1", "x"),
        ok("Content-Length: 1\r\nContent-Length: 2", "xx"),
        ok("Content-Length: 1, 1", "x"),
        ok("Content-Length: +1", "x"),
        ok("Content-Length: -1", "x"),
        ok("Content-Length: 0x1", "x"),
        ok("Content-Length:", "x"),
        ok("Content-Length: 18446744073709551616", "x"),
        ok("Content-Length : 1", "x"),
        ok("Transfer-Encoding: gzip", ""),
        ok("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        ok("Transfer-Encoding: identity", ""),
        ok("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"),
        ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ok("Transfer-Encoding:", ""),
        ok("Content-Length: 2", "x"),
        ok("Transfer-Encoding: chunked", "1\r\nx\r\n"),
        ok("Transfer-Encoding: chunked", "1\nx\n0\n\n"),
        ok("Transfer-Encoding: chunked", "1 x\r\nx\r\n0\r\n\r\n"),
        ok("a: b\r\n c", ""),
        ok("a: b\rc", ""),
        ok("a: b\0", ""),
        ok(": b", ""),
        ok("a b: c", ""),
        ok("abc", ""),
        ok("Connection: content-length\r\nContent-Length: 0", ""),
        ok(&many, ""),
        ok(&big, ""),
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.2 200 OK\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
        "http/1.1 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 099 X\r\n\r\n".to_owned(),
        "HTTP/1.1 000 X\r\n\r\n".to_owned(),
        "HTTP/1.1 20 X\r\n\r\n".to_owned(),
        "HTTP/1.1 2000 X\r\n\r\n".to_owned(),
        "HTTP/1.1  200 X\r\n\r\n".to_owned(),
        "HTTP/1.1 -20 X\r\n\r\n".to_owned(),
        "HTTP/1.1 200 O\0K\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned(),
        " HTTP/1.1 200 OK\r\n\r\n".to_owned(),
        "SSH-2.0-OpenSSH\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "HTTP/1.1 200".to_owned(),
        "HTTP/1.1 200 OK\r\nA: b\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        String::new(),
    ] {
        check(&input, Answers::Plain, 502);
    }
}

/// Where a body ends, what leaves, and whether the upstream connection can be used again.
#[test]
fn bodies_end_where_the_standard_says() {
    use Answers::{Connect, Head, Plain, Upgrade};
    let early =
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    for (input, answers, head, body, reusable) in [
        (&*ok("Content-Length: 1", "xy"), Plain, "200 OK|content-length: 1||", "x", true),
        (&ok("Content-Length: 0", ""), Plain, "200 OK|content-length: 0||", "", true),
        (&ok("A: b", "xyz"), Plain, "200 OK|a: b||", "xyz", false),
        (
            &ok("Transfer-Encoding: Chunked", "1\r\nx\r\n0\r\n\r\n"),
            Plain,
            "200 OK|transfer-encoding: chunked||",
            "x",
            true,
        ),
        (
            &ok("Transfer-Encoding: chunked", "1 ;a\r\nx\r\n1\t \r\ny\r\n0 \r\n\r\n"),
            Plain,
            "200 OK|transfer-encoding: chunked||",
            "xy",
            true,
        ),
        (
            "HTTP/1.1 600 X\r\nContent-Length: 1\r\n\r\nx",
            Plain,
            "600 |content-length: 1||",
            "x",
            true,
        ),
        (
            "HTTP/1.1 999 X\r\nContent-Length: 1\r\n\r\nx",
            Plain,
            "999 |content-length: 1||",
            "x",
            true,
        ),
        (
            &ok("Connection: close\r\nContent-Length: 1", "x"),
            Plain,
            "200 OK|content-length: 1||",
            "x",
            false,
        ),
        (&ok("Content-Length: 9", ""), Head, "200 OK|content-length: 9||", "", true),
        (&ok("Transfer-Encoding: chunked", ""), Head, "200 OK||", "", true),
        (
            "HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n",
            Plain,
            "304 Not Modified|content-length: 9||",
            "",
            true,
        ),
        ("HTTP/1.1 204 X\r\n\r\n", Plain, "204 No Content||", "", true),
        ("HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", Plain, "204 No Content||", "", true),
        ("HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n", Plain, "204 No Content||", "", false),
        (
            "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n",
            Plain,
            "204 No Content||",
            "",
            false,
        ),
        (early, Plain, "200 OK|content-length: 1||", "x", true),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
            Plain,
            "200 OK|content-length: 1||",
            "x",
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
            Plain,
            "200 OK|content-length: 1||",
            "x",
            true,
        ),
        (
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            Plain,
            "200 OK|content-length: 0||",
            "",
            true,
        ),
        (
            "HTTP/1.1 200 \u{e9}t\u{e9}\r\nContent-Length: 0\r\n\r\n",
            Plain,
            "200 OK|content-length: 0||",
            "",
            true,
        ),
        (
            "HTTP/1.1 299 X\r\nContent-Length: 0\r\n\r\n",
            Plain,
            "299 |content-length: 0||",
            "",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            Connect,
            "200 OK|content-length: 5||",
            "",
            false,
        ),
        (
            "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            Upgrade,
            "101 Switching Protocols||",
            "",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: x-a\r\nX-A: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n",
            Plain,
            "200 OK|content-length: 0||",
            "",
            true,
        ),
    ] {
        let outcome = check(input, answers, 200);
        assert_eq!(outcome.head, format!("HTTP/1.1 {head}"), "{input:?}");
        assert_eq!(outcome.body, body.as_bytes(), "{input:?}");
        assert_eq!(outcome.reusable, reusable, "{input:?}");
    }
}

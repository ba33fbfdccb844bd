//! The request policy as a table: what comes in, which status the client gets (200: forwarded).

use crate::harness::{Outcome, read_request, same_however_split};
use crate::tables::{
    Case, case, chunk_cases, chunked, connection_cases, framing_cases, get, host, host_cases, line,
    line_cases, many, post, syntax_cases,
};
use baton_worker::config::hcm::UnderscoresAction;
use baton_worker::http::h1::Limits;

fn check(case: &Case, limits: &Limits) -> Outcome {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| read_request(pieces, limits);
    let outcome = same_however_split(&case.name, &case.input, read);
    let shown: String = case.input.iter().take(200).map(|b| char::from(*b)).collect();
    assert_eq!(outcome.status, case.status, "{}: {shown:?}", case.name);
    outcome
}

fn check_all(cases: &[Case]) {
    for case in cases {
        check(case, &Limits::default());
    }
}

#[test]
fn framing_is_never_ambiguous() {
    check_all(&framing_cases());
}

#[test]
fn chunked_bodies_are_read_strictly() {
    check_all(&chunk_cases());
}

#[test]
fn head_syntax_is_strict() {
    check_all(&syntax_cases());
}

#[test]
fn host_is_exactly_one_authority() {
    check_all(&host_cases());
}

#[test]
fn request_line_is_strict() {
    check_all(&line_cases());
}

#[test]
fn connection_options_cannot_take_essential_headers_away() {
    check_all(&connection_cases());
}

#[test]
fn control_characters_are_refused_everywhere() {
    let controls = (0_u8..32).chain([0x7f]).filter(|b| *b != b'\t');
    for byte in controls {
        // CR and LF have tables of their own.
        let c = char::from(byte);
        let mut cases = vec![
            case(format!("{byte:#x} in method"), line(&format!("G{c}T / HTTP/1.1")), 400),
            case(format!("{byte:#x} in target"), line(&format!("GET /{c} HTTP/1.1")), 400),
            case(format!("{byte:#x} in name"), get(&format!("a{c}b: c")), 400),
            case(format!("{byte:#x} in Host"), host(&format!("Host: a{c}b\r\n")), 400),
            case(format!("{byte:#x} before CL"), post(&format!("Content-Length:{c}1"), "x"), 400),
            case(format!("{byte:#x} in a size"), chunked(&format!("1{c}\r\nx\r\n0\r\n\r\n")), 400),
        ];
        if byte != b'\n' {
            cases.push(case(format!("{byte:#x} in value"), get(&format!("a: b{c}c")), 400));
        }
        check_all(&cases);
    }
}

/// The statuses are one half; this is what leaves when the answer is "forwarded".
#[test]
fn accepted_requests_leave_in_canonical_form() {
    let upgrade =
        "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nA: b";
    let both = get("Connection: x-a, TE\r\nX-A: 1\r\nTE: gzip, trailers\r\nKeep-Alive: 5\r\nX-B:2");
    for (input, head) in [
        (line("GET /../x HTTP/1.1"), "GET /x HTTP/1.1|host: a||"),
        (line("GET //x HTTP/1.1"), "GET //x HTTP/1.1|host: a||"),
        (line("GET http://b:8/x?y HTTP/1.1"), "GET /x?y HTTP/1.1|host: b:8||"),
        (host("Host:\r\n"), "GET / HTTP/1.1|host: ||"),
        ("GET http://b/x HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), "GET /x HTTP/1.1|host: b||"),
        (line("GET http://b?y HTTP/1.1"), "GET /?y HTTP/1.1|host: b||"),
        (line("OPTIONS http://b HTTP/1.1"), "OPTIONS * HTTP/1.1|host: b|content-length: 0||"),
        (get(upgrade), "GET / HTTP/1.1|host: a|a: b||"),
        (both, "GET / HTTP/1.1|host: a|x-b: 2|te: trailers||"),
        (post("Content-Length: 001", "x"), "POST / HTTP/1.1|host: a|content-length: 1||"),
        (line("POST / HTTP/1.1"), "POST / HTTP/1.1|host: a|content-length: 0||"),
        (line("OPTIONS / HTTP/1.1"), "OPTIONS / HTTP/1.1|host: a|content-length: 0||"),
        (line("PROPFIND / HTTP/1.1"), "PROPFIND / HTTP/1.1|host: a|content-length: 0||"),
        (line("X / HTTP/1.1"), "X / HTTP/1.1|host: a|content-length: 0||"),
        (line("DELETE / HTTP/1.1"), "DELETE / HTTP/1.1|host: a||"),
        (line("HEAD / HTTP/1.1"), "HEAD / HTTP/1.1|host: a||"),
        (get("Content-Length: 0"), "GET / HTTP/1.1|host: a|content-length: 0||"),
        (
            post("Transfer-Encoding: CHUNKED", "0\r\n\r\n"),
            "POST / HTTP/1.1|host: a|transfer-encoding: chunked||",
        ),
    ] {
        let outcome = check(&case(head, input, 200), &Limits::default());
        assert_eq!(outcome.head, head);
    }
}

#[test]
fn pipelined_requests_are_told_apart() {
    let input = chunked("3;x\r\nabc\r\n0\r\nX-T: 1\r\nHost: evil\r\n\r\n") + &get("X: y");
    let outcome = check(&case("pipelined", input, 200), &Limits::default());
    assert_eq!(outcome.body, b"abc");
    assert_eq!(outcome.trailers, "x-t: 1|");
    assert_eq!(outcome.rest, get("X: y").as_bytes());
}

#[test]
fn limits_decide_what_the_default_refuses() {
    let open = Limits {
        allow_connect: true,
        allow_trace: true,
        default_host_for_http_10: b"d".to_vec(),
        max_headers: 300,
        ..Limits::default()
    };
    let shut = Limits {
        accept_http_10: false,
        allow_absolute_url: false,
        max_headers: 1,
        underscores: UnderscoresAction::RejectRequest,
        ..Limits::default()
    };
    let drop = Limits { underscores: UnderscoresAction::DropHeader, ..Limits::default() };
    let old = "GET / HTTP/1.0\r\n\r\n";
    let connect = line("CONNECT a:80 HTTP/1.1");
    assert_eq!(
        check(&case("CONNECT", connect, 200), &open).head,
        "CONNECT a:80 HTTP/1.1|host: a:80||"
    );
    check(
        &case(
            "CONNECT body",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
        &open,
    );
    check(&case("TRACE", line("TRACE / HTTP/1.1"), 200), &open);
    assert_eq!(check(&case("1.0", old, 200), &open).head, "GET / HTTP/1.1|host: d||");
    check(&case("300 headers", many(300), 200), &open);
    check(&case("301 headers", many(301), 431), &open);
    check(&case("1.0 refused", line("GET / HTTP/1.0"), 426), &shut);
    check(&case("URL refused", line("GET http://a/ HTTP/1.1"), 400), &shut);
    check(&case("2 headers", get("a: b"), 431), &shut);
    check(&case("underscore", host("Ho_st: a\r\n"), 400), &shut);
    assert_eq!(
        check(&case("dropped", get("a_b: c\r\nd: e"), 200), &drop).head,
        "GET / HTTP/1.1|host: a|d: e||"
    );
}

#[test]
fn keep_alive_follows_version_and_connection() {
    for (input, reusable) in [
        (get("A: b"), true),
        (get("Connection: CLOSE"), false),
        (get("Connection: keep-alive, close"), false),
        (line("GET / HTTP/1.0"), false),
        ("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n".to_owned(), true),
    ] {
        let outcome = check(&case(input.clone(), input, 200), &Limits::default());
        assert_eq!(outcome.reusable, reusable);
    }
}

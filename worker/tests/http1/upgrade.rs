//! Changes of protocol: which are made, and what becomes of the connection when one is not.

use super::{
    OK,
    harness::{self, Proxy, Script},
};

const UPGRADE: &str = "HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: ";

/// A request for an upgrade, the upstream's answer to it, and all that the client gets.
fn ask(path: &str, protocol: &str, answer: &str) -> String {
    harness::run(async {
        let proxy = Proxy::start(Script::answer_once(answer)).await;
        let mut client = proxy.connect().await;
        // What follows may be meant as the other protocol.
        let next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(&format!("GET {path} {UPGRADE}{protocol}\r\n\r\n{next}")).await;
        let seen = client.read_to_end().await;
        assert!(!proxy.upstream_saw().contains("GET /next") || seen.contains(" 101 "), "{seen}");
        seen
    })
}

fn assert_closes(answer: &str, status: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[test]
fn an_upgrade_that_is_not_allowed_is_refused_on_every_route_and_ends_the_connection() {
    for path in ["/", "/direct", "/moved", "/empty"] {
        assert_closes(&ask(path, "spdy", OK), "403");
    }
}

#[test]
fn an_upgrade_that_is_not_made_ends_the_connection() {
    let answer = ask("/", "websocket", OK);
    assert_closes(&answer, "200");
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert_closes(&ask("/direct", "websocket", OK), "200");
    assert_closes(&ask("/empty", "websocket", OK), "503");
}

#[test]
fn a_switch_to_a_protocol_that_nobody_asked_for_is_a_502() {
    for protocol in ["", "upgrade: foo\r\n", "upgrade: \r\n", "upgrade: websocket/13\r\n"] {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n";
        assert_closes(&ask("/", "websocket", &format!("{head}{protocol}\r\nraw")), "502");
    }
}

#[test]
fn the_client_sees_the_name_of_the_protocol_as_the_upstream_writes_it() {
    for named in ["connection: Upgrade\r\n", ""] {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n";
        let answer = ask("/", "websocket", &format!("{head}{named}\r\nraw"));
        assert!(answer.contains("\r\nupgrade: WebSocket\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nraw"), "{answer}");
    }
}

#[test]
fn the_upstream_sees_the_name_of_the_protocol_as_the_client_writes_it() {
    harness::run(async {
        let proxy = Proxy::start(Script::answer_once(OK)).await;
        let mut client = proxy.connect().await;
        client.send(&format!("GET / {UPGRADE}WebSocket\r\n\r\n")).await;
        client.read_to_end().await;
        let upstream = proxy.upstream_saw();
        assert!(upstream.contains("\r\nupgrade: WebSocket\r\n"), "{upstream}");
    });
}

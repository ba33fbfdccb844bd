//! Requests that are sent again because a pooled connection ended before it had them.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::harness::{self, Proxy};

/// Answers one request with `name`, the name it was asked under and its body, and then resets the
/// connection, but only after the other tasks had so many turns.
async fn answer_once(mut socket: TcpStream, name: &str, turns: usize) {
    let mut bytes = Vec::new();
    let (host, body) = loop {
        if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let host = head.split_once("\r\nhost: ").unwrap().1.lines().next().unwrap();
        if !head.starts_with("POST") || body.len() == 4 {
            break (host.to_owned(), body.to_owned());
        }
    };
    let answer = format!("{name} {host} {body}.");
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
    socket.write_all((head + &answer).as_bytes()).await.unwrap();
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// An endpoint; its connections last for 0 turns, for 1, for 2 ...
async fn endpoint(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        for turns in (0..12).cycle() {
            let Ok((socket, _)) = listener.accept().await else { return };
            tokio::task::spawn_local(answer_once(socket, name, turns));
        }
    });
    address
}

/// Sends pipelined requests to endpoints of these names; the bodies of the answers.
fn answers(names: [&'static str; 2]) -> Vec<String> {
    const CLIENTS: usize = 40;
    harness::run(async move {
        let endpoints = [("e0", names[0]), ("e1", names[1])];
        let mut addresses = Vec::new();
        for (is, named) in endpoints {
            addresses.push((named, endpoint(is).await));
        }
        let seen = Rc::new(RefCell::new(String::new()));
        let proxy = Proxy::in_front_of(&addresses, seen, harness::manager()).await;
        let get = "GET /named HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST /named HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
        let mut bodies = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = proxy.connect().await;
            client.send(&[get, post, get, get, post, get].concat()).await;
            client.end().await;
            let all = client.read_to_end().await;
            assert_eq!(all.matches("HTTP/1.1 ").count(), 6, "{all}");
            let ok = all.split("HTTP/1.1 ").filter(|answer| answer.starts_with("200 "));
            bodies.extend(ok.map(|answer| harness::body(answer).to_owned()));
        }
        bodies
    })
}

/// What was said in the request's body, or nothing.
fn assert_named(answer: &str, expected: [&str; 2]) {
    let rest = expected.iter().find_map(|start| answer.strip_prefix(start));
    let rest = rest.unwrap_or_else(|| panic!("an endpoint was asked under another name: {answer}"));
    assert!(matches!(rest, "." | "body."), "{answer}");
}

#[test]
fn an_endpoint_gets_its_own_name_when_another_one_did_not_get_the_request() {
    for answer in answers(["one.example", "two.example"]) {
        assert_named(&answer, ["e0 one.example ", "e1 two.example "]);
    }
}

#[test]
fn an_endpoint_without_a_name_does_not_get_that_of_another_one() {
    for answer in answers(["one.example", ""]) {
        assert_named(&answer, ["e0 one.example ", "e1 a "]);
    }
}

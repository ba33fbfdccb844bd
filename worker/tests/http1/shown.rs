//! What formats show of the side of the endpoint.

use std::{net::SocketAddr, sync::Arc};

use baton_worker::{
    config::{
        hcm::{HttpConnectionManager, Routes},
        route::{AppendAction, HeaderAdd, RouteConfiguration},
    },
    format,
};
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::{
    OK,
    harness::{self, Client, Proxy, Script},
};

/// One more header for each message.
fn header(name: &str, value: &str) -> HeaderAdd {
    HeaderAdd {
        name: name.into(),
        value: format::parse(value).unwrap(),
        action: AppendAction::OverwriteIfExistsOrAdd,
        keep_empty: true,
    }
}

const OURS: &str =
    "%UPSTREAM_LOCAL_ADDRESS%|%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%|%UPSTREAM_LOCAL_PORT%";

/// The routes of a connection manager that nobody else has yet.
pub fn table(manager: &mut HttpConnectionManager) -> &mut RouteConfiguration {
    let Routes::Static(table) = &mut manager.routes else { panic!() };
    Arc::get_mut(table).unwrap()
}

/// Adds a header to each response.
pub fn show(manager: &mut HttpConnectionManager, name: &str, value: &str) {
    let routes = table(manager);
    routes.headers.response_add.push(header(name, value));
}

/// A proxy that shows its address towards the endpoint, and the endpoint's ends of its connections.
async fn showing() -> (Proxy, UnboundedReceiver<TcpStream>) {
    let (to, upstreams) = unbounded_channel();
    let proxy =
        Proxy::start_with(Script::ByHand(to), |manager| show(manager, "x-ours", OURS)).await;
    (proxy, upstreams)
}

/// The endpoint's end of the next connection, and where it comes from.
async fn accept(upstreams: &mut UnboundedReceiver<TcpStream>) -> (Client, SocketAddr) {
    let socket = upstreams.recv().await.unwrap();
    let from = socket.peer_addr().unwrap();
    (Client::from(socket), from)
}

/// Asks, answers as the endpoint, and says what was shown to the client.
async fn ask(client: &mut Client, upstream: &mut Client) -> String {
    upstream.read_until("\r\n\r\n").await;
    upstream.send(OK).await;
    let head = client.read_until("\r\n\r\n").await;
    client.read_exactly(2).await;
    shown(&head)
}

fn shown(head: &str) -> String {
    let (_, value) = head.split_once("\r\nx-ours: ").unwrap_or_else(|| panic!("{head}"));
    value.lines().next().unwrap().to_owned()
}

fn all_of(address: SocketAddr) -> String {
    format!("{address}|{}|{}", address.ip(), address.port())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn our_address_towards_the_endpoint_is_that_of_the_connection_which_carried_the_request() {
    harness::run(async {
        let (proxy, mut upstreams) = showing().await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let (mut first, from) = accept(&mut upstreams).await;
        assert_eq!(ask(&mut client, &mut first).await, all_of(from), "on a fresh one");
        client.send(GET).await;
        assert_eq!(ask(&mut client, &mut first).await, all_of(from), "on the kept one");
        // It is closed as the next request comes, so that this one needs another.
        client.send(GET).await;
        first.read_until("\r\n\r\n").await;
        drop(first);
        let (mut second, other) = accept(&mut upstreams).await;
        assert_ne!(from, other);
        assert_eq!(ask(&mut client, &mut second).await, all_of(other), "sent once more");
    });
}

#[test]
fn without_a_connection_there_is_no_address_of_ours() {
    harness::run(async {
        let (proxy, _upstreams) = showing().await;
        for path in ["/dead", "/empty", "/direct"] {
            let mut client = proxy.connect().await;
            client.send(&GET.replacen('/', path, 1)).await;
            assert_eq!(shown(&client.read_until("\r\n\r\n").await), "||", "{path}");
        }
    });
}

#[test]
fn tunnels_show_our_address_towards_the_endpoint() {
    let websocket =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let connect = |to: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let cases = [
        (websocket.to_owned(), switched),
        (connect("sent-on.example:443"), "HTTP/1.1 200 OK\r\n\r\n"),
        (connect("ends-here.example:443"), ""),
    ];
    for (request, answer) in cases {
        harness::run(async {
            let (proxy, mut upstreams) = showing().await;
            let mut client = proxy.connect().await;
            client.send(&request).await;
            let (mut upstream, from) = accept(&mut upstreams).await;
            if !answer.is_empty() {
                upstream.read_until("\r\n\r\n").await;
                upstream.send(answer).await;
            }
            let head = client.read_until("\r\n\r\n").await;
            assert_eq!(shown(&head), all_of(from), "{request}");
        });
    }
}

#[test]
fn headers_of_a_request_name_the_cluster_it_goes_to_and_its_first_attempt() {
    harness::run(async {
        let proxy = Proxy::start_with(Script::answer_once(OK), |manager| {
            let routes = table(manager);
            let value = "%UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_HOST%.";
            routes.headers.request_add.push(header("x-to", value));
        })
        .await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        client.read_until("\r\n\r\n").await;
        let seen = proxy.upstream_saw();
        assert!(seen.contains("\r\nx-to: main 1 .\r\n"), "{seen}");
    });
}

#[test]
fn answers_of_the_proxy_have_the_length_of_their_body() {
    harness::run(async {
        let proxy = Proxy::start_with(Script::silent(), |manager| {
            show(manager, "x-ours", "%RESP(CONTENT-LENGTH)%");
        })
        .await;
        for (path, length) in [("/direct", "5"), ("/empty", "19"), ("/moved", "")] {
            for method in ["GET", "HEAD"] {
                let mut client = proxy.connect().await;
                client.send(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
                let head = client.read_until("\r\n\r\n").await;
                assert_eq!(shown(&head), length, "{method} {path}");
                let sent = if length.is_empty() { "0" } else { length };
                assert!(head.contains(&format!("\r\ncontent-length: {sent}\r\n")), "{head}");
                assert_eq!(head.matches("content-length").count(), 1, "{head}");
            }
        }
    });
}

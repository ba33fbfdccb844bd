//! Copies of requests for other clusters.

use std::sync::Arc;

use baton_worker::config::{
    hcm::HttpConnectionManager,
    model::ClusterIndex,
    route::{Action, MirrorPolicy, MirrorTarget, RouteAction},
};
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::{
    OK,
    harness::{self, Client, Proxy, Script},
    shown,
};

/// The cluster all requests of these tests go to.
const MAIN: usize = 0;
/// One whose endpoint refuses connections.
const DEAD: usize = 1;

fn copies_to(manager: &mut HttpConnectionManager, clusters: &[usize]) {
    let policies: Vec<_> = clusters
        .iter()
        .map(|cluster| MirrorPolicy {
            target: MirrorTarget::Cluster(ClusterIndex(*cluster)),
            fraction_ppm: None,
            keep_host: false,
            host: None,
        })
        .collect();
    let routes = shown::table(manager);
    for host in &mut routes.virtual_hosts {
        for route in &mut host.routes {
            let route = Arc::make_mut(route);
            if let Action::Forward(action) = &mut route.action {
                **action = RouteAction { mirrors: policies.clone(), ..(**action).clone() };
            }
        }
    }
}

/// A proxy that sends copies to these clusters, and the endpoint's ends of its connections.
async fn copying(clusters: &[usize]) -> (Proxy, UnboundedReceiver<TcpStream>) {
    let (to, upstreams) = unbounded_channel();
    let start = Proxy::start_with(Script::ByHand(to), |manager| copies_to(manager, clusters));
    (start.await, upstreams)
}

/// The endpoint's ends of the connections of the request and of its copy.
async fn accept_both(upstreams: &mut UnboundedReceiver<TcpStream>, end: &str) -> [String; 2] {
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut socket = Client::from(upstreams.recv().await.unwrap());
        let message = socket.read_until(end).await;
        socket.send(OK).await;
        both.push(message);
    }
    both.sort_by_key(|message| message.contains("-shadow"));
    both.try_into().unwrap()
}

fn without_marks(copy: &str) -> String {
    let kept = copy.split_inclusive("\r\n").filter(|line| {
        !line.starts_with("x-envoy-internal: ") && !line.starts_with("x-forwarded-for: ")
    });
    kept.collect::<String>().replace("host: a-shadow", "host: a")
}

#[test]
fn a_copy_has_the_head_and_the_body_of_its_request() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\nx-end: 1\r\n\r\n";
    let cases = [
        ("GET /?a HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (chunked, "x-end: 1\r\n\r\n"),
    ];
    for (request, end) in cases {
        harness::run(async {
            let (proxy, mut upstreams) = copying(&[MAIN]).await;
            let mut client = proxy.connect().await;
            client.send(request).await;
            let [message, copy] = accept_both(&mut upstreams, end).await;
            assert!(copy.contains("\r\nx-envoy-internal: true\r\n"), "{copy}");
            assert_eq!(without_marks(&copy), message);
            client.read_until("\r\n\r\nok").await;
        });
    }
}

#[test]
fn nobody_waits_for_a_copy() {
    harness::run(async {
        let (proxy, mut upstreams) = copying(&[DEAD, MAIN]).await;
        let mut client = proxy.connect().await;
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut silent = Vec::new();
            loop {
                let mut socket = Client::from(upstreams.recv().await.unwrap());
                let is_copy = socket.read_until("\r\n\r\n").await.contains("-shadow");
                if !is_copy {
                    // It is not kept, so that each request comes on a connection of its own.
                    socket
                        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                        .await;
                    break;
                }
                silent.push(socket);
            }
            client.read_until("\r\n\r\nok").await;
        }
    });
}

#[test]
fn a_body_that_is_too_large_to_be_kept_goes_on_its_way_without_a_copy() {
    harness::run(async {
        let (proxy, mut upstreams) = copying(&[MAIN]).await;
        let mut client = proxy.connect().await;
        // More than the listener lets wait.
        let body = "x".repeat((1 << 20) + 1);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send(&(head + &body)).await;
        let mut upstream = Client::from(upstreams.recv().await.unwrap());
        upstream.read_until("\r\n\r\n").await;
        assert_eq!(upstream.read_exactly(body.len()).await, body);
        upstream.send(OK).await;
        client.read_until("\r\n\r\nok").await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        upstream.read_until("\r\n\r\n").await;
        upstream.send(OK).await;
        client.read_until("\r\n\r\nok").await;
        let mut copy = Client::from(upstreams.recv().await.unwrap());
        let first = copy.read_until("\r\n\r\n").await;
        assert!(first.starts_with("GET / ") && first.contains("-shadow"), "{first}");
    });
}

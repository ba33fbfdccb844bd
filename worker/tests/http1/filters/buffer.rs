//! `envoy.filters.http.buffer`.

use super::{
    super::harness::{Proxy, Script, run},
    configured, counter, exchange, route, routes, values,
};

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn manager() -> baton_worker::config::hcm::HttpConnectionManager {
    let filter =
        format!("{{ name: f, typed_config: {{ \"@type\": {TYPE}, max_request_bytes: 10 }} }}");
    let off = route("/off", &format!("{{ \"@type\": {TYPE}PerRoute, disabled: true }}"));
    let more = format!("{{ \"@type\": {TYPE}PerRoute, buffer: {{ max_request_bytes: 100000 }} }}");
    let direct = "{ match: { path: /direct }, direct_response: { status: 200, body: { \
                  inline_string: hello } } }"
        .to_owned();
    let plain = "{ match: { prefix: / }, route: { cluster: main } }".to_owned();
    configured(&filter, &routes(&[direct, off, route("/more", &more), plain]))
}

fn chunked(path: &str, body: &str) -> String {
    let end =
        if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
    format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{end}0\r\n\r\n")
}

#[test]
fn a_body_in_chunks_goes_on_whole_and_with_its_length() {
    for (path, body) in [("/", "0123456789"), ("/", ""), ("/more", &*"x".repeat(70_000))] {
        let (upstream, client) = exchange(manager(), &chunked(path, body), OK);
        assert!(client.starts_with("HTTP/1.1 200"), "{client}");
        assert_eq!(values(&upstream, "content-length"), [body.len().to_string()]);
        assert!(values(&upstream, "transfer-encoding").is_empty());
        assert!(upstream.ends_with(&format!("\r\n\r\n{body}")));
    }
    let (upstream, _) = exchange(manager(), &chunked("/off", "0123456789ab"), OK);
    assert_eq!(values(&upstream, "transfer-encoding"), ["chunked"], "{upstream}");
}

#[test]
fn nothing_reaches_the_upstream_before_the_body_is_here() {
    run(async {
        let proxy =
            Proxy::start_with(Script::new(|_, _| OK.to_owned()), |own| *own = manager()).await;
        let mut client = proxy.connect().await;
        client
            .send(
                "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n",
            )
            .await;
        let interim = client.read_until("\r\n\r\n").await;
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("01234").await;
        proxy.connect().await.pause().await;
        assert_eq!(proxy.upstream_saw(), "");
        client.send("56789").await;
        let response = client.read_until("ok").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(proxy.upstream_saw().ends_with("\r\n\r\n0123456789"), "{}", proxy.upstream_saw());
        // The connection serves another request.
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.read_until("ok").await;
    });
}

#[test]
fn a_body_that_was_held_is_sent_again_with_a_further_try() {
    let filter =
        format!("{{ name: f, typed_config: {{ \"@type\": {TYPE}, max_request_bytes: 10 }} }}");
    let retry =
        "{ match: { prefix: / }, route: { cluster: main, retry_policy: { retry_on: 5xx } } }";
    let manager = configured(&filter, &routes(&[retry.to_owned()]));
    run(async {
        let script = Script::new(|number, _| match number {
            0 => "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            _ => OK.to_owned(),
        });
        let proxy = Proxy::start_with(script, |own| *own = manager).await;
        let mut client = proxy.connect().await;
        client.send(&chunked("/", "0123456789")).await;
        let response = client.read_until("ok").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let upstream = proxy.upstream_saw();
        assert_eq!(upstream.matches("\r\n\r\n0123456789").count(), 2, "{upstream}");
    });
}

#[test]
fn a_body_that_is_too_large_is_answered_with_413() {
    let known = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n0123456789a".to_owned();
    for request in [known, chunked("/", "0123456789a")] {
        run(async {
            let script = Script::new(|_, _| OK.to_owned());
            let proxy = Proxy::start_with(script, |own| *own = manager()).await;
            let mut client = proxy.connect().await;
            client.send(&request).await;
            let response = client.read_until("Payload Too Large").await;
            assert!(response.starts_with("HTTP/1.1 413"), "{response}");
            assert_eq!(proxy.upstream_saw(), "");
            assert_eq!(counter(&proxy, "downstream_rq_too_large"), 1);
        });
    }
    // gRPC clients read it elsewhere.
    let call = "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 11\r\n\r\n0123456789a";
    let (_, client) = exchange(manager(), call, OK);
    assert_eq!(values(&client, "grpc-status"), ["2"], "{client}");
}

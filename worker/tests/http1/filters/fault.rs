//! `envoy.filters.http.fault`.

use std::time::Duration;

use baton_worker::clock;

use super::{
    super::harness::{Proxy, Script, run},
    configured, counter, exchange, route, routes, values,
};

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ALWAYS: &str = "percentage: { numerator: 100 }";

fn manager() -> baton_worker::config::hcm::HttpConnectionManager {
    let abort = |what: &str| format!("abort: {{ {what}, {ALWAYS} }}");
    let list = [
        ("/status", abort("http_status: 418")),
        ("/body", abort("http_status: 500, response_body: mine")),
        ("/grpc", abort("grpc_status: 9")),
        ("/asked", abort("header_abort: {}")),
        ("/never", "abort: { header_abort: {}, percentage: { numerator: 0 } }".to_owned()),
        ("/other", format!("{}, upstream_cluster: dead", abort("http_status: 500"))),
        ("/same", format!("{}, upstream_cluster: main", abort("http_status: 500"))),
        ("/node", format!("{}, downstream_nodes: [me, you]", abort("http_status: 500"))),
        (
            "/header",
            format!(
                "{}, headers: [{{ name: x-h, string_match: {{ exact: a }} }}]",
                abort("http_status: 500")
            ),
        ),
        ("/none", format!("{}, max_active_faults: 0", abort("http_status: 500"))),
        ("/delay", format!("delay: {{ fixed_delay: 0.05s, {ALWAYS} }}")),
        ("/wait", format!("delay: {{ header_delay: {{}}, {ALWAYS} }}, max_active_faults: 1")),
        (
            "/both",
            format!("delay: {{ fixed_delay: 0.02s, {ALWAYS} }}, {}", abort("http_status: 500")),
        ),
        ("/slow", format!("response_rate_limit: {{ header_limit: {{}}, {ALWAYS} }}")),
    ];
    let list: Vec<String> = list
        .iter()
        .map(|(prefix, settings)| route(prefix, &format!("{{ \"@type\": {TYPE}, {settings} }}")))
        .collect();
    let filter = format!("{{ name: f, typed_config: {{ \"@type\": {TYPE} }} }}");
    configured(&filter, &routes(&list))
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n")
}

#[test]
fn requests_are_answered_as_the_route_or_the_client_says() {
    for (path, headers, status) in [
        ("/status", "", "418"),
        ("/grpc", "", "200"),
        ("/asked", "", ""),
        ("/asked", "x-envoy-fault-abort-request: 429\r\n", "429"),
        ("/asked", "x-envoy-fault-abort-request: 200\r\n", "200"),
        ("/asked", "x-envoy-fault-abort-request: 199\r\n", ""),
        ("/asked", "x-envoy-fault-abort-request: 600\r\n", ""),
        ("/asked", "x-envoy-fault-abort-request: abc\r\n", ""),
        ("/asked", "x-envoy-fault-abort-grpc-request: 99\r\n", "200"),
        (
            "/asked",
            "x-envoy-fault-abort-request: 429\r\nx-envoy-fault-abort-request-percentage: 0\r\n",
            "",
        ),
        (
            "/never",
            "x-envoy-fault-abort-request: 429\r\nx-envoy-fault-abort-request-percentage: 100\r\n",
            "",
        ),
        ("/other", "", ""),
        ("/same", "", "500"),
        ("/node", "", ""),
        ("/node", "x-envoy-downstream-service-node: you\r\n", "500"),
        ("/header", "x-h: b\r\n", ""),
        ("/header", "x-h: a\r\n", "500"),
        ("/none", "", ""),
        ("/both", "", "500"),
    ] {
        let (upstream, client) = exchange(manager(), &get(path, headers), OK);
        assert_eq!(upstream.is_empty(), !status.is_empty(), "{path} {headers}: {client}");
        let expected = if status.is_empty() { "200" } else { status };
        assert!(client.starts_with(&format!("HTTP/1.1 {expected} ")), "{path} {headers}: {client}");
        let ours = client.ends_with("\r\n\r\nfault filter abort");
        assert_eq!(ours, !status.is_empty(), "{path} {headers}: {client}");
    }
    let (_, client) = exchange(manager(), &get("/body", ""), OK);
    assert!(client.ends_with("\r\n\r\nmine"), "{client}");
}

#[test]
fn clients_of_grpc_get_the_status_where_they_read_it() {
    for (path, headers, status) in [
        ("/status", "", "2"),
        ("/grpc", "", "9"),
        ("/asked", "x-envoy-fault-abort-grpc-request: 7\r\n", "7"),
    ] {
        let headers = format!("content-type: application/grpc\r\n{headers}");
        let (_, client) = exchange(manager(), &get(path, &headers), OK);
        assert!(client.starts_with("HTTP/1.1 200 "), "{client}");
        assert_eq!(values(&client, "grpc-status"), [status], "{client}");
        assert_eq!(values(&client, "grpc-message"), ["fault filter abort"], "{client}");
    }
}

#[test]
fn a_request_waits_and_then_goes_on_with_its_body() {
    run(async {
        let script = Script::new(|_, _| OK.to_owned());
        let proxy = Proxy::start_with(script, |own| *own = manager()).await;
        let mut client = proxy.connect().await;
        let began = clock::now();
        client.send("POST /delay HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
        client.read_until("ok").await;
        assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
        assert!(proxy.upstream_saw().ends_with("abc"), "{}", proxy.upstream_saw());
        client.send(&get("/delay", "")).await;
        client.read_until("ok").await;
        assert_eq!(counter(&proxy, "fault.delays_injected"), 2);
        assert_eq!(counter(&proxy, "fault.aborts_injected"), 0);
    });
}

#[test]
fn there_are_no_more_faults_at_once_than_allowed() {
    run(async {
        let script = Script::new(|_, _| OK.to_owned());
        let proxy = Proxy::start_with(script, |own| *own = manager()).await;
        let (mut first, mut second) = (proxy.connect().await, proxy.connect().await);
        let for_ever = get("/wait", "x-envoy-fault-delay-request: 1000000\r\n");
        first.send(&for_ever).await;
        while counter(&proxy, "fault.delays_injected") == 0 {
            tokio::task::yield_now().await;
        }
        second.send(&for_ever).await;
        second.read_until("ok").await;
        assert_eq!(counter(&proxy, "fault.faults_overflow"), 1);
        // The place is free when the client has gone.
        first.reset();
        loop {
            second.send(&get("/wait", "x-envoy-fault-delay-request: 1\r\n")).await;
            second.read_until("ok").await;
            if counter(&proxy, "fault.delays_injected") == 2 {
                break;
            }
        }
    });
}

#[test]
fn a_slow_response_arrives_whole() {
    let body = "x".repeat(8192);
    let length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let chunks = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    for response in [length, chunks] {
        let began = clock::now();
        let request = get("/slow", "x-envoy-fault-throughput-response: 32\r\n");
        let (_, client) = exchange(manager(), &request, &response);
        assert_eq!(
            client.matches('x').count(),
            body.len() + "x-envoy-upstream-service-time".matches('x').count(),
            "{client}"
        );
        // 8 KiB at 32 KiB/s, of which the first twentieth of a second is free.
        assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    }
}

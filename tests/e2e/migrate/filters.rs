//! HTTP filters over a reload: who is held stays and loses nothing, and limits hold for all generations.

use super::{AT_ONCE, config, get, read_exactly, read_head, receive_status, until_alone, upstream};
use crate::harness::client::connect;
use crate::harness::eventually::SOON;
use crate::harness::{Program, eventually, lab::free_address};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// A proxy with these filters before the router.
struct Bench {
    program: Program,
    http: SocketAddr,
    addresses: (SocketAddr, SocketAddr),
    listener: TcpListener,
    filters: String,
}

impl Bench {
    fn new(filters: &str) -> Self {
        let (http, tcp) = (free_address(), free_address());
        let (listener, upstream) = upstream();
        let addresses = (tcp, upstream);
        let text = with_filters(&config(http, tcp, upstream, "old"), filters);
        let arguments = [&AT_ONCE[..], &["--concurrency", "1"]].concat();
        let program = Program::start(&text, &arguments);
        Self { program, http, addresses, listener, filters: filters.to_owned() }
    }

    fn reload(&self) {
        let (tcp, upstream) = self.addresses;
        let text = with_filters(&config(self.http, tcp, upstream, "new"), &self.filters);
        self.program.write_config(&text);
        self.program.reload();
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("a connection of the proxy");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        stream
    }
}

fn with_filters(config: &str, filters: &str) -> String {
    let filters = format!(
        "          http_protocol_options: {{ enable_trailers: true }}\n          http_filters:\n          {filters}\n"
    );
    config.replace("          http_filters:\n", &filters)
}

#[test]
fn a_request_whose_body_a_filter_collects_stays_is_answered_and_then_its_connection_moves() {
    let buffer = format!(
        "- {{ name: b, typed_config: {{ \"@type\": {HTTP}.buffer.v3.Buffer, max_request_bytes: 100 }} }}"
    );
    let bench = Bench::new(&buffer);
    let mut client = connect(bench.http).expect("connect");
    let head = "POST /held HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n";
    client.write_all(head.as_bytes()).expect("send");
    eventually("the request is there", || {
        let open = bench.program.status()?["generations"][0]["connections"].as_u64();
        if open == Some(1) { Ok(()) } else { Err(format!("{open:?} connections")) }
    });
    bench.reload();
    client.write_all(b"5\r\n56789\r\n0\r\n\r\n").expect("send");
    let mut up = bench.accept();
    let head = read_head(&mut up);
    assert!(head.contains("\r\ncontent-length: 10\r\n"), "{head}");
    assert_eq!(read_exactly(&mut up, 10), b"0123456789");
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 204 ") && head.contains("\r\nx-mark: old\r\n"), "{head}");
    until_alone(&bench.program);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    assert!(read_head(&mut client).contains("\r\nx-mark: new\r\n"));
}

#[test]
fn a_request_that_a_filter_delays_is_answered_over_a_reload() {
    let fault = format!(
        "- {{ name: f, typed_config: {{ \"@type\": {HTTP}.fault.v3.HTTPFault, delay: {{ header_delay: {{}}, \
         percentage: {{ numerator: 100 }} }} }} }}"
    );
    let bench = Bench::new(&fault);
    let mut client = connect(bench.http).expect("connect");
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-envoy-fault-delay-request: 1000\r\n\r\n";
    client.write_all(request.as_bytes()).expect("send");
    eventually("the request is there", || {
        let open = bench.program.status()?["generations"][0]["connections"].as_u64();
        if open == Some(1) { Ok(()) } else { Err(format!("{open:?} connections")) }
    });
    bench.reload();
    let mut up = bench.accept();
    read_head(&mut up);
    // It is on its way, so the connection may move now.
    until_alone(&bench.program);
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    assert_eq!(receive_status(&mut client), 204);
}

#[test]
fn filters_see_the_end_of_a_response_that_moved() {
    let mutation = format!(
        "- {{ name: m, typed_config: {{ \"@type\": {HTTP}.header_mutation.v3.HeaderMutation, mutations: {{ \
         response_trailers_mutations: [{{ append: {{ header: {{ key: x-t, value: \"1\" }} }} }}] }} }} }}"
    );
    let bench = Bench::new(&mutation);
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        .expect("begin");
    read_head(&mut client);
    assert_eq!(read_exactly(&mut client, 7), b"2\r\nok\r\n");
    bench.reload();
    until_alone(&bench.program);
    up.write_all(b"0\r\na: b\r\n\r\n").expect("the end");
    assert_eq!(read_head(&mut client), "0\r\na: b\r\nx-t: 1\r\n\r\n");
}

#[test]
fn a_reload_does_not_fill_the_bucket_of_a_limit() {
    let always = "default_value: { numerator: 100 }";
    let limit = format!(
        "- {{ name: l, typed_config: {{ \"@type\": {HTTP}.local_ratelimit.v3.LocalRateLimit, stat_prefix: l, \
         token_bucket: {{ max_tokens: 2, fill_interval: 86400s }}, filter_enabled: {{ {always} }}, \
         filter_enforced: {{ {always} }}, status: {{ code: ServiceUnavailable }} }} }}"
    );
    let bench = Bench::new(&limit);
    let mut client = connect(bench.http).expect("connect");
    let mut ask = |up: &mut Option<TcpStream>| {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
        let up = up.get_or_insert_with(|| bench.accept());
        read_head(up);
        up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
        assert_eq!(receive_status(&mut client), 204);
    };
    let mut up = None;
    ask(&mut up);
    bench.reload();
    until_alone(&bench.program);
    ask(&mut up);
    assert_eq!(get(&mut client, "/").status, 503);
    bench.reload();
    until_alone(&bench.program);
    assert_eq!(get(&mut client, "/").status, 503);
}

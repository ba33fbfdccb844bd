//! Connections that move to the new generation: the client sees nothing, the old process is gone.

mod books;
mod filters;
mod retries;

use crate::harness::client::{self, connect, receive};
use crate::harness::eventually::{SOON, pause};
use crate::harness::{Lab, Program, eventually};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Moves begin at once after a switch.
const AT_ONCE: [&str; 2] = ["--probation-s", "0"];

/// Lines of a slow body, 100 bytes each.
const LINES: usize = 30;

/// Waits until only the serving generation lives.
fn until_alone(program: &Program) {
    eventually("the old generation is gone", || {
        let draining =
            program.generations("DRAINING")?.len() + program.generations("HANDING_OFF")?.len();
        if draining == 0 { Ok(()) } else { Err(format!("{draining} older generations live")) }
    });
}

fn get(stream: &mut TcpStream, path: &str) -> client::Response {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    receive(stream).expect("a response")
}

fn line(number: usize) -> Vec<u8> {
    format!("{number:099}\n").into_bytes()
}

/// An upstream whose every answer waits for the test.
fn upstream() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, address)
}

/// A configuration with one HTTP listener, one TCP listener and one upstream for both. `mark` comes
/// back in a header of every response.
fn config(http: SocketAddr, tcp: SocketAddr, upstream: SocketAddr, mark: &str) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: http
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          upgrade_configs: [{{upgrade_type: websocket}}]
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              response_headers_to_add: [{{header: {{key: x-mark, value: "{mark}"}}}}]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: up, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  - name: tcp
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: up}}
  clusters:
  - name: up
    connect_timeout: 5s
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]
"#,
        http.ip(),
        http.port(),
        tcp.ip(),
        tcp.port(),
        upstream.ip(),
        upstream.port()
    )
}

/// Everything a test of one connection needs.
struct Bench {
    program: Program,
    http: SocketAddr,
    tcp: SocketAddr,
    upstream: SocketAddr,
    listener: std::net::TcpListener,
}

impl Bench {
    fn new(arguments: &[&str]) -> Self {
        let (http, tcp) =
            (crate::harness::lab::free_address(), crate::harness::lab::free_address());
        let (listener, upstream) = upstream();
        let arguments = [&AT_ONCE[..], arguments].concat();
        let program = Program::start(&config(http, tcp, upstream, "old"), &arguments);
        Self { program, http, tcp, upstream, listener }
    }

    /// The proxy's next connection to the upstream.
    fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().expect("a connection of the proxy");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        stream
    }

    /// Reloads with another configuration and waits until the old process is gone.
    fn move_all(&self) {
        self.program.write_config(&config(self.http, self.tcp, self.upstream, "new"));
        self.program.reload();
        until_alone(&self.program);
    }
}

fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("the bytes");
    bytes
}

/// Reads to the end of a head.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(stream, 1));
    }
    String::from_utf8(head).expect("text")
}

#[test]
fn an_idle_connection_moves_and_its_next_request_has_the_new_configuration() {
    let bench = Bench::new(&["--concurrency", "1"]);
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("answer");
    let response = receive(&mut client).expect("a response");
    assert_eq!((response.header("x-mark"), response.header("connection")), (Some("old"), None));
    bench.move_all();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    // The pooled connection to the endpoint moved too, to the one thread there is.
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("answer");
    let response = receive(&mut client).expect("a response");
    assert_eq!((response.header("x-mark"), response.header("connection")), (Some("new"), None));
}

#[test]
fn a_head_in_pieces_moves_between_them() {
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET /half HTTP/1.1\r\nho").expect("send");
    eventually("the first half is there", || {
        let open = bench.program.status()?["generations"][0]["connections"].as_u64();
        if open == Some(1) { Ok(()) } else { Err(format!("{open:?} connections")) }
    });
    bench.move_all();
    client.write_all(b"st: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    assert!(read_head(&mut up).starts_with("GET /half HTTP/1.1\r\n"));
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    assert_eq!(receive_status(&mut client), 204);
}

fn receive_status(client: &mut TcpStream) -> u16 {
    let head = read_head(client);
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

#[test]
fn a_download_moves_in_the_middle_and_ends_under_its_own_configuration() {
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    write!(up, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", LINES * 100).expect("head");
    let head = read_head(&mut client);
    assert!(head.contains("x-mark: old\r\n"), "{head}");
    for number in 0..LINES {
        if number == LINES / 2 {
            bench.move_all();
        }
        up.write_all(&line(number)).expect("a line");
        assert_eq!(read_exactly(&mut client, 100), line(number));
    }
    // The connection and the one to the endpoint go on, under the new configuration.
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    assert!(read_head(&mut client).contains("x-mark: new\r\n"));
}

/// Bytes of some lines, from this byte of all of them on.
fn some_lines(from: usize) -> Vec<u8> {
    const LINES_AT_ONCE: usize = 700;
    let first = from / 100;
    (first..first + LINES_AT_ONCE).flat_map(line).skip(from % 100).collect()
}

/// Writes lines until nobody takes any more; the bytes that were written.
fn write_until_stuck(stream: &mut TcpStream) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a limit");
    let mut written = 0;
    while let Ok(count) = stream.write(&some_lines(written)) {
        written += count;
    }
    stream.set_write_timeout(None).expect("no limit");
    written
}

/// All of a body of which the first bytes are written already goes from one end to the other.
fn pass_the_rest(mut from: TcpStream, to: &mut TcpStream, (written, total): (usize, usize)) {
    let writer = std::thread::spawn(move || {
        // Piece by piece: while the whole were made, the reader would wait.
        let mut written = written;
        while written < total {
            let mut piece = some_lines(written);
            piece.truncate(total - written);
            from.write_all(&piece).expect("the rest");
            written += piece.len();
        }
        from
    });
    for number in 0..total / 100 {
        assert_eq!(read_exactly(to, 100), line(number));
    }
    writer.join().expect("the writer");
}

#[test]
fn a_download_whose_client_is_slow_moves_with_what_waits_in_the_kernel() {
    const TOTAL: usize = 100_000_000;
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    write!(up, "HTTP/1.1 200 OK\r\ncontent-length: {TOTAL}\r\n\r\n").expect("head");
    let written = write_until_stuck(&mut up);
    assert!(written < TOTAL, "all of it fits into sockets");
    bench.move_all();
    assert!(read_head(&mut client).contains("x-mark: old\r\n"));
    pass_the_rest(up, &mut client, (written, TOTAL));
}

#[test]
fn an_upload_whose_upstream_is_slow_moves_with_what_waits_in_the_kernel() {
    const TOTAL: usize = 100_000_000;
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    write!(client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {TOTAL}\r\n\r\n").expect("send");
    let mut up = bench.accept();
    let written = write_until_stuck(&mut client);
    assert!(written < TOTAL, "all of it fits into sockets");
    bench.move_all();
    read_head(&mut up);
    let mut answered = client.try_clone().expect("a copy");
    pass_the_rest(client, &mut up, (written, TOTAL));
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    assert_eq!(receive_status(&mut answered), 204);
}

#[test]
fn an_upload_in_chunks_moves_at_any_byte_and_its_response_has_the_old_configuration() {
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head).expect("send");
    let mut up = bench.accept();
    let body =
        [b"64\r\n".to_vec(), line(1), b"\r\n64\r\n".to_vec(), line(2), b"\r\n0\r\n\r\n".to_vec()];
    let body = body.concat();
    // In the size of the second chunk.
    let cut = 4 + 100 + 2 + 1;
    client.write_all(&body[..cut]).expect("send");
    read_head(&mut up);
    read_exactly(&mut up, 4 + 100 + 2);
    bench.move_all();
    client.write_all(&body[cut..]).expect("send");
    assert_eq!(read_exactly(&mut up, body.len() - 4 - 100 - 2), body[4 + 100 + 2..]);
    up.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answer");
    let response = receive(&mut client).expect("a response");
    assert_eq!(response.header("x-mark"), Some("old"));
}

#[test]
fn pipelined_requests_move_with_the_response_they_wait_for() {
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    let one = |n: u8| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n");
    client.write_all([one(1), one(2), one(3)].concat().as_bytes()).expect("send");
    let mut up = bench.accept();
    assert!(read_head(&mut up).starts_with("GET /1 "));
    bench.move_all();
    for number in 1..=3 {
        if number > 1 {
            assert!(read_head(&mut up).starts_with(&format!("GET /{number} ")));
        }
        write!(up, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}").expect("answer");
        let response = receive(&mut client).expect("a response");
        let mark = if number == 1 { "old" } else { "new" };
        assert_eq!((response.body, response.head.contains(mark)), (number.to_string(), true));
    }
}

#[test]
fn a_websocket_moves_through_many_generations() {
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    client
        .write_all(
            b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    up.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )
    .expect("answer");
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    let port = client.local_addr().expect("address").port();
    for round in 0..5_u8 {
        client.write_all(&[round; 1000]).expect("send");
        assert_eq!(read_exactly(&mut up, 1000), [round; 1000]);
        bench.move_all();
        up.write_all(&[round; 2000]).expect("send");
        assert_eq!(read_exactly(&mut client, 2000), [round; 2000]);
    }
    assert_eq!(client.local_addr().expect("address").port(), port);
    drop(client);
    let mut rest = Vec::new();
    up.read_to_end(&mut rest).expect("the end is passed on");
    assert!(rest.is_empty());
}

/// A download in the middle, with the listener it came through taken out of the configuration.
fn download_without_listener(policy: &str) -> (Bench, TcpStream, TcpStream) {
    let bench = Bench::new(&["--on-removed", policy]);
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n").expect("head");
    up.write_all(&line(1)).expect("a line");
    read_head(&mut client);
    assert_eq!(read_exactly(&mut client, 100), line(1));
    let text = config(bench.http, bench.tcp, bench.upstream, "new");
    let (before, rest) = text.split_once("  - name: http\n").expect("the listener");
    let (_, after) = rest.split_once("  - name: tcp\n").expect("the next listener");
    bench.program.write_config(&format!("{before}  - name: tcp\n{after}"));
    bench.program.reload();
    (bench, client, up)
}

#[test]
fn without_its_listener_a_download_moves_and_ends_and_then_the_connection_is_told_to_close() {
    let (bench, mut client, mut up) = download_without_listener("keep");
    until_alone(&bench.program);
    up.write_all(&line(2)).expect("a line");
    assert_eq!(read_exactly(&mut client, 100), line(2));
    // The last request on this connection: nobody has a configuration for a further one.
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answer");
    let response = receive(&mut client).expect("a response");
    assert_eq!(
        (response.header("x-mark"), response.header("connection")),
        (Some("old"), Some("close"))
    );
}

#[test]
fn with_on_removed_drain_a_download_stays_in_its_generation_to_the_end() {
    let (bench, mut client, mut up) = download_without_listener("drain");
    eventually("the connection is told to stay", || {
        let stats = bench.program.command(&["stats", "baton.migration.thawed"]);
        let text = String::from_utf8_lossy(&stats.stdout).into_owned();
        if text.trim().ends_with(": 0") { Err(text) } else { Ok(()) }
    });
    assert_eq!(bench.program.generations("DRAINING").map(|older| older.len()), Ok(1));
    up.write_all(&line(2)).expect("a line");
    assert_eq!(read_exactly(&mut client, 100), line(2));
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    assert!(read_head(&mut client).contains("x-mark: old\r\n"));
    drop(client);
    until_alone(&bench.program);
}

#[test]
fn with_on_removed_close_a_connection_ends_with_its_exchange() {
    let (bench, mut client, mut up) = download_without_listener("close");
    eventually("the connection is told to stay", || {
        let stats = bench.program.command(&["stats", "baton.migration.thawed"]);
        let text = String::from_utf8_lossy(&stats.stdout).into_owned();
        if text.trim().ends_with(": 0") { Err(text) } else { Ok(()) }
    });
    up.write_all(&line(2)).expect("a line");
    assert_eq!(read_exactly(&mut client, 100), line(2));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the end of the connection");
    assert!(rest.is_empty());
    until_alone(&bench.program);
}

#[test]
fn status_says_what_moved_and_settle_waits_for_it() {
    let bench = Bench::new(&[]);
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    let (code, text) = bench.program.reload_with(&["--settle"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("settled; connections since the start: moved 1 (1 http1)"), "{text}");
    let status = bench.program.status().expect("status");
    assert_eq!(status["past"]["moved_kinds"]["http1"], 1, "{status}");
    up.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("answer");
    assert_eq!(receive_status(&mut client), 204);
}

#[test]
fn all_clients_move_and_lose_nothing_with_a_short_parent_shutdown_time() {
    let lab = Lab::new();
    let program = lab.start_with(&["--probation-s", "0", "--parent-shutdown-time-s", "5"]);
    let load = lab.load();
    for _ in 0..4 {
        pause(Duration::from_millis(700));
        program.reload();
    }
    until_alone(&program);
    let seen = crate::harness::lab::assert_nothing_lost(load);
    assert!(seen.lost() == 0);
    let moved = &program.status().expect("status")["past"]["moved"];
    assert!(moved.as_u64() > Some(0), "nothing moved: {moved}");
    let stream = connect(lab.config.http).expect("connect");
    let mut stream = stream;
    assert_eq!(get(&mut stream, "/echo/2/10").status, 200);
}

//! Upgraded connections outlive the worker that served them, and so does what the log says of them.

use super::{Rig, client, send_all};
use crate::harness::eventually::eventually;
use crate::harness::lab::free_address;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

const WEBSOCKET: &str =
    "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const CONNECT: &str = "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n";

/// An HTTP listener beside the one of the rig, with a log of what its connections came to.
fn listener(http: SocketAddr, log: &Path) -> String {
    format!(
        r#"
  - name: upgrades
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: upgrades
          upgrade_configs: [{{upgrade_type: websocket}}, {{upgrade_type: CONNECT}}]
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {}
              log_format: {{text_format_source: {{inline_string: "%REQ(:METHOD)% %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT%\n"}}}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{connect_matcher: {{}}}}
                route: {{cluster: server, upgrade_configs: [{{upgrade_type: CONNECT, connect_config: {{}}}}]}}
              - match: {{prefix: "/"}}
                route: {{cluster: server}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#,
        http.ip(),
        http.port(),
        log.display()
    )
}

/// Reads to the end of a head.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.extend(byte);
    }
    String::from_utf8(head).expect("text")
}

fn write(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("send");
}

/// A WebSocket whose two ends the test has.
fn websocket(rig: &Rig, http: SocketAddr) -> (TcpStream, TcpStream) {
    let mut client = client::connect(http).expect("a client");
    write(&mut client, WEBSOCKET);
    let mut server = rig.accept();
    head(&mut server);
    write(&mut server, SWITCHED);
    assert!(head(&mut client).starts_with("HTTP/1.1 101 "));
    (client, server)
}

/// A CONNECT that ends here.
fn connect(rig: &Rig, http: SocketAddr) -> (TcpStream, TcpStream) {
    let mut client = client::connect(http).expect("a client");
    write(&mut client, CONNECT);
    let server = rig.accept();
    assert!(head(&mut client).starts_with("HTTP/1.1 200 "));
    (client, server)
}

fn exchange((client, server): &mut (TcpStream, TcpStream), round: u8) {
    send_all(client, server, &[round; 1000]);
    send_all(server, client, &[round; 3000]);
}

#[test]
fn upgraded_connections_outlive_crashes_and_moves_and_are_logged_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("access.log");
    let http = free_address();
    let mut rig = Rig::start_with(&[], &listener(http, &log));
    let mut pairs = [websocket(&rig, http), connect(&rig, http)];
    for pair in &mut pairs {
        exchange(pair, 0);
    }
    rig.wait_for_escrow(2);
    for round in 1..=4 {
        if round % 2 == 0 {
            // In the middle of the next message, once in each direction.
            rig.program.set_fault(&format!("tunnel.sent:kill:{}", round / 2));
        } else {
            rig.kill_worker();
        }
        for pair in &mut pairs {
            exchange(pair, round);
        }
        if round % 2 == 0 {
            rig.program.fired("tunnel.sent");
            rig.program.clear_fault();
            rig.program.wait_until_serving();
        }
        rig.program.reload();
        rig.program.wait_until_alone();
        for pair in &mut pairs {
            exchange(pair, round);
        }
    }
    drop(pairs);
    rig.wait_for_escrow(0);
    rig.assert_books(2);
    // Nine exchanges; the requests and responses that made the tunnels are not body bytes.
    let expected = ["CONNECT 200 9000 27000", "GET 101 9000 27000"];
    eventually("one line for each of them", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        if lines == expected { Ok(()) } else { Err(text) }
    });
}

#[test]
fn the_end_of_an_upgraded_connection_passes_though_the_supervisor_has_copies() {
    let directory = tempfile::tempdir().expect("a directory");
    let http = free_address();
    let rig = Rig::start_with(&[], &listener(http, &directory.path().join("access.log")));
    let (client, mut server) = websocket(&rig, http);
    rig.wait_for_escrow(1);
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).expect("the end"), 0);
    drop(server);
    rig.wait_for_escrow(0);
    rig.assert_books(1);
}

//! Names of endpoints over reloads: a generation that has no address for a cluster does not replace
//! one that has.

use crate::harness::eventually::eventually;
use crate::harness::lab::free_address;
use crate::harness::program::send;
use crate::harness::{Program, client};
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::{fs, thread};

/// An upstream that answers every request with 200 and closes.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).ok();
            }
        }
    });
    address
}

/// A configuration whose one cluster has this endpoint.
fn config(http: SocketAddr, host: &str, port: u16) -> String {
    let (ip, http) = (http.ip(), http.port());
    format!(
        r#"
static_resources:
  listeners:
  - name: http
    address: {{socket_address: {{address: {ip}, port_value: {http}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: up}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STRICT_DNS
    connect_timeout: 5s
    load_assignment:
      cluster_name: up
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}]}}]
"#
    )
}

#[test]
fn a_reload_while_dns_fails_goes_on_with_the_last_good_addresses_or_is_refused() {
    let (http, up) = (free_address(), upstream());
    let status = || client::get(http, "/").status;
    let options = ["--warm-timeout-s", "1", "--probation-s", "0"];
    let mut program = Program::start(&config(http, "127.0.0.1", up.port()), &options);
    let hosts = program.path("hosts");
    fs::write(&hosts, "127.0.0.1 up.test\n").expect("write the names");
    program.write_config(&config(http, "up.test", up.port()));
    program.reload();
    assert_eq!(status(), 200);

    fs::write(&hosts, "").expect("take the names away");
    let (code, text) = program.reload_with(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("cluster `up`: `up.test` does not resolve"), "{text}");
    assert!(text.contains("the last known addresses stay in use"), "{text}");
    assert_eq!(status(), 200);

    // The next one begins with what the dead one knew, and a new supervisor is told again.
    program.wait_until_alone();
    let (dead, process) = program.serving_now();
    send(process, Signal::SIGKILL);
    eventually("another generation serves", || match program.serving()? {
        Some((generation, _)) if generation > dead => Ok(()),
        other => Err(format!("{other:?} serves")),
    });
    assert_eq!(status(), 200);
    program.kill_supervisor();
    program.launch_again();
    program.wait_until_serving();
    eventually("a reload inherits from a worker of the dead supervisor", || {
        let (code, text) = program.reload_with(&[]);
        if code == 0 { Ok(()) } else { Err(text) }
    });
    assert_eq!(status(), 200);

    // Another supervisor program has what the one before had been told.
    let output = program.command(&["upgrade"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(status(), 200);

    let before = program.serving_now();
    program.write_config(&config(http, "other.test", up.port()));
    let (code, text) = program.reload_with(&[]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("cluster `up` has no address: `other.test` does not resolve"), "{text}");
    assert_eq!((program.serving_now(), status()), (before, 200));
    let (code, text) = program.reload_with(&["--force"]);
    assert_eq!((code, status()), (0, 503), "{text}");
    eventually("a reload is as good as what serves", || {
        let (code, text) = program.reload_with(&[]);
        let told = text.contains("cluster `up` has no address");
        if code == 0 && told { Ok(()) } else { Err(format!("{code}: {text}")) }
    });
    fs::write(&hosts, "127.0.0.1 other.test\n").expect("give a name");
    eventually("resolving goes on", || match status() {
        200 => Ok(()),
        other => Err(format!("status {other}")),
    });
}

#[test]
fn a_first_start_serves_without_the_address_of_a_name_that_does_not_resolve() {
    let http = free_address();
    let mut program = Program::start(&config(http, "127.0.0.1", 1), &[]);
    fs::write(program.path("hosts"), "").expect("no names");
    program.write_config(&config(http, "up.test", 1));
    program.signal(Signal::SIGTERM);
    program.wait();
    program.launch_again();
    program.wait_until_serving();
    assert_eq!(client::get(http, "/").status, 503);
    let text = "cluster `up` has no address: `up.test` does not resolve";
    assert!(program.log().contains(text), "{}", program.log());
}

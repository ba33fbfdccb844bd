//! Limits of connections over a reload: two generations have one limit.

use crate::harness::eventually::{eventually, until};
use crate::harness::program::send;
use crate::harness::{Lab, Program, client};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// A connection that was let in, kept open.
fn let_in(address: SocketAddr) -> Result<TcpStream, String> {
    let mut stream = client::connect(address).map_err(|error| error.to_string())?;
    let request = b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).map_err(|error| error.to_string())?;
    let response = client::receive(&mut stream).map_err(|error| error.to_string())?;
    assert_eq!(response.status, 200);
    Ok(stream)
}

/// A connection that is closed at once.
fn assert_refused(address: SocketAddr) {
    let mut stream = client::connect(address).expect("the kernel accepts");
    client::assert_ended(&mut stream);
}

/// The three of `held` are open, whoever has them now: a fourth is not let in, until one ends.
fn assert_full(lab: &Lab, mut held: Vec<TcpStream>, counter: &str) {
    assert_eq!(held.len(), 3);
    assert_refused(lab.config.http);
    let stats = client::get(lab.config.admin, "/stats").body;
    let counted = stats.lines().any(|line| line.contains(counter) && !line.ends_with(": 0"));
    assert!(counted, "`{counter}` did not count: {stats}");
    held.pop();
    // The end of a connection is seen a moment later.
    held.push(eventually("the place that became free is given away", || let_in(lab.config.http)));
    assert_refused(lab.config.http);
}

/// The program with at most three connections.
fn start(lab: &Lab, runtime: &str) -> Program {
    let text = format!(
        "{}\nlayered_runtime:\n  layers:\n  - name: limits\n    static_layer:\n      {runtime}: 3\n",
        lab.config.text()
    );
    Program::start(&text, &["--concurrency", "2"])
}

fn check(runtime: &str, counter: &str) {
    let lab = Lab::new();
    let program = start(&lab, runtime);
    let mut held: Vec<_> =
        (0..2).map(|_| let_in(lab.config.http).expect("below the limit")).collect();
    program.reload();
    held.push(let_in(lab.config.http).expect("the third one"));
    assert_full(&lab, held, counter);
    until("what ended is not counted", || let_in(lab.config.http).is_ok());
}

#[test]
fn the_limit_of_a_listener_holds_over_a_reload() {
    check("envoy.resource_limits.listener.http.connection_limit", ".downstream_cx_overflow");
}

#[test]
fn the_limit_of_all_listeners_holds_over_a_reload() {
    check("overload.global_downstream_max_connections", ".downstream_global_cx_overflow");
}

#[test]
fn a_killed_generation_leaves_no_place_taken() {
    let lab = Lab::new();
    let program = start(&lab, "envoy.resource_limits.listener.http.connection_limit");
    for _ in 0..3 {
        let (_, worker) = program.serving_now();
        let held: Vec<_> =
            (0..3).map(|_| let_in(lab.config.http).expect("below the limit")).collect();
        assert_refused(lab.config.http);
        send(worker, Signal::SIGKILL);
        until("another worker serves", || {
            program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
        });
        drop(held);
    }
}

/// The program with so many open files, and a limit of connections far above that.
fn start_with_open_files(lab: &Lab, limit: u32) -> Program {
    let text = format!(
        "{}\nlayered_runtime:\n  layers:\n  - name: limits\n    static_layer:\n      \
         overload.global_downstream_max_connections: 5000\n",
        lab.config.text()
    );
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("limited");
    let program = env!("CARGO_BIN_EXE_baton");
    fs::write(&script, format!("#!/bin/sh\nulimit -n {limit}\nexec {program} \"$@\"\n"))
        .expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    let mut program =
        Program::launch_from(&script, &text, &["--concurrency", "2", "--probation-s", "1"]);
    program.wait_until_serving();
    // The script is gone by now; it has become the program.
    program
}

/// One message to the echo server and back.
fn echoes(tunnel: &mut TcpStream, message: u8) -> bool {
    let mut answer = [0];
    tunnel.write_all(&[message]).is_ok()
        && tunnel.read_exact(&mut answer).is_ok()
        && answer == [message]
}

/// A tunnel to the echo server, if there is room.
fn tunnel(address: SocketAddr) -> Option<TcpStream> {
    let mut tunnel = client::connect(address).expect("the kernel accepts");
    (tunnel.write_all(b"e").is_ok() && echoes(&mut tunnel, 1)).then_some(tunnel)
}

fn statistic(lab: &Lab, name: &str) -> u64 {
    let stats = client::get(lab.config.admin, "/stats").body;
    let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn with_few_descriptors_who_is_let_in_is_served_and_the_admin_interface_answers() {
    let lab = Lab::new();
    let program = start_with_open_files(&lab, 256);
    let log = program.log();
    assert!(log.contains("the limit of open files, 256, is low for"), "no warning: {log}");

    let idle: Vec<TcpStream> =
        (0..400).map(|_| client::connect(lab.config.http).expect("the kernel accepts")).collect();
    until("clients are refused, and the log says why", || {
        program.log().contains("connections are refused, a limit is reached listener=\"http\"")
    });
    assert_eq!(client::get(lab.config.admin, "/ready").status, 200);
    // Those that were served keep their places: nobody is let in instead of them.
    let mut served = Vec::new();
    for mut stream in idle {
        let request = b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n";
        // Refused without a byte, or served: nobody is let in and then told 503.
        if stream.write_all(request).is_ok()
            && let Ok(response) = client::receive(&mut stream)
        {
            assert_eq!(response.status, 200, "the {}th", served.len());
            served.push(stream);
        }
        assert_eq!(client::get(lab.config.admin, "/ready").status, 200);
    }
    let served = served.len() as u64;
    assert!(served > 20, "only {served} were let in");
    assert!(statistic(&lab, "baton.descriptors.refused") > 0);
    assert_eq!(statistic(&lab, "baton.descriptors.limit"), 256);
    assert!(statistic(&lab, "baton.descriptors.connections_max") >= served);
}

#[test]
fn a_reload_at_the_limit_of_descriptors_moves_every_tunnel() {
    let lab = Lab::new();
    let program = start_with_open_files(&lab, 256);
    let mut held = Vec::new();
    while let Some(tunnel) = tunnel(lab.config.tcp) {
        held.push(tunnel);
    }
    assert!(held.len() > 20, "only {} were let in", held.len());
    for message in 2..4 {
        program.reload();
        // Whoever polls now, there is room for those that move and for nobody else.
        assert!(tunnel(lab.config.tcp).is_none(), "there is no room");
        program.wait_until_alone();
        for (at, tunnel) in held.iter_mut().enumerate() {
            assert!(echoes(tunnel, message), "tunnel {at} was lost");
        }
    }
    assert_eq!(client::get(lab.config.admin, "/ready").status, 200);
    drop(held);
    until("places become free", || tunnel(lab.config.tcp).is_some());
}

/// Sets the soft limit of a process that runs.
fn limit_open_files(process: u32, limit: u32) {
    let (limit, process) = (format!("--nofile={limit}:"), process.to_string());
    let limited = Command::new("prlimit").args([&limit, "--pid", &process]).status();
    assert!(limited.expect("util-linux is there").success());
}

/// Lets the worker open nothing more. The clients that come back fill what was free between its
/// descriptors: otherwise closing one of a high number would make no room below the limit.
fn take_all_descriptors(lab: &Lab, worker: u32) -> Vec<TcpStream> {
    let mut held = Vec::new();
    until("there is no gap between the worker's descriptors", || {
        let open: Vec<u32> = fs::read_dir(format!("/proc/{worker}/fd"))
            .expect("its descriptors")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        let end = open.iter().max().map_or(0, |highest| highest + 1);
        let gaps = end as usize - open.len();
        if gaps == 0 {
            limit_open_files(worker, end);
        }
        let fill = |_| client::connect(lab.config.http).expect("the kernel accepts");
        held.extend((0..gaps).map(fill));
        gaps == 0
    });
    held
}

/// Whether a client that connected is served; it is refused otherwise, and does not wait.
fn is_let_in(client: &mut TcpStream) -> bool {
    let request = b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    match client.write_all(request).and_then(|()| client::receive(client)) {
        Ok(_) => true,
        Err(error) => {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "it waits");
            false
        }
    }
}

#[test]
fn clients_that_cannot_be_accepted_do_not_wait_for_ever() {
    let lab = Lab::new();
    let program = lab.start();
    let (_, worker) = program.serving_now();
    let _held = take_all_descriptors(&lab, worker);
    let mut refused = 0;
    // Some are let in when a descriptor becomes free, and use it up again.
    for _wave in 0..5 {
        let connect = |_| client::connect(lab.config.http).expect("the kernel accepts");
        let waiting: Vec<TcpStream> = (0..8).map(connect).collect();
        refused +=
            waiting.into_iter().map(|mut client| is_let_in(&mut client)).filter(|in_| !in_).count();
    }
    assert!(refused > 0, "nothing was short");
    assert!(program.log().contains("open files of the process"), "the log says which limit");
}

#[test]
fn idle_connections_make_room_and_the_log_says_what_a_503_is_for() {
    let lab = Lab::new();
    let text = lab.config.text().replace(
        "- match: { prefix: / }",
        "- match: { prefix: /echo/4/ }\n                          route: { cluster: other }\n\
         \x20                       - match: { prefix: / }",
    );
    let other = format!(
        "  clusters:\n    - name: other\n      type: STATIC\n      load_assignment:\n        \
         cluster_name: other\n        endpoints:\n          - lb_endpoints:\n              \
         - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}\n",
        lab.config.upstream.http.port()
    );
    let text = text.replace("  clusters:\n", &other);
    let program = Program::start(&text, &["--concurrency", "1"]);
    let mut first = let_in(lab.config.http).expect("nothing is short");
    let mut second = let_in(lab.config.http).expect("nothing is short");
    let (_, worker) = program.serving_now();
    let _held = take_all_descriptors(&lab, worker);
    let ask = |client: &mut TcpStream, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).expect("open");
        client::receive(client).expect("a response").status
    };
    for path in ["/echo/4/0", "/echo/2/10", "/echo/4/0"] {
        assert_eq!(
            ask(&mut first, path),
            200,
            "the idle connection of the other cluster is closed"
        );
    }
    let download = b"GET /download/1/1000 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    first.write_all(download).expect("open");
    until("the only descriptor is in use", || ask(&mut second, "/echo/4/0") == 503);
    let log = program.log();
    assert!(log.contains("no connection to an endpoint can be begun"), "the reason is missing");
    limit_open_files(worker, 1000);
    assert!(statistic(&lab, "baton.descriptors.connect_failed") > 0);
}

//! Limits of connections over a reload: two generations have one limit.

use crate::harness::eventually::{eventually, until};
use crate::harness::program::send;
use crate::harness::{Lab, Program, client};
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

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
    match stream.read(&mut [0]) {
        Ok(0) | Err(_) => {}
        Ok(_) => panic!("a byte without a request"),
    }
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

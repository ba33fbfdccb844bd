//! `/drain_listeners`: clients are refused, those who are here are served and told, a reload takes it back.

use crate::harness::eventually::until;
use crate::harness::lab::free_address;
use crate::harness::program::send;
use crate::harness::{Lab, Program, client};
use crate::queue::{assert_all_served, fill, freeze};
use nix::sys::signal::Signal;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const REQUEST: &[u8] = b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn start(lab: &Lab, arguments: &[&str]) -> Program {
    lab.start_with(&[arguments, &["--admin-allow-mutations"]].concat())
}

/// Asks on a connection that is kept; the value of `connection`.
fn ask(stream: &mut TcpStream) -> Option<String> {
    stream.write_all(REQUEST).expect("the request is taken");
    let response = client::receive(stream).expect("a response");
    assert_eq!(response.status, 200);
    response.header("connection").map(str::to_owned)
}

fn drain(lab: &Lab, query: &str) {
    let answer = client::post(lab.config.admin, &format!("/drain_listeners{query}"));
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK\n"));
}

fn is_refused(address: SocketAddr) -> bool {
    client::connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn until_refused(address: SocketAddr) {
    until("clients are refused", || is_refused(address));
}

/// What `baton status` shows.
fn status(program: &Program) -> String {
    String::from_utf8_lossy(&program.command(&["status"]).stdout).into_owned()
}

#[test]
fn drained_listeners_refuse_clients_and_serve_those_they_have_until_a_reload() {
    let lab = Lab::new();
    let program = start(&lab, &[]);
    let mut kept = client::connect(lab.config.http).expect("a connection");
    assert_eq!(ask(&mut kept), None);
    drain(&lab, "");
    until_refused(lab.config.http);
    until_refused(lab.config.tcp);
    assert_eq!(ask(&mut kept).as_deref(), Some("close"), "who is here is served, and told");
    client::assert_ended(&mut kept);
    assert_eq!(client::get(lab.config.admin, "/ready").body.trim(), "LIVE");
    assert!(client::get(lab.config.admin, "/server_info").body.contains("\"LIVE\""));
    let stopped = client::get(lab.config.admin, "/stats?filter=listener_stopped").body;
    assert_eq!(stopped.trim(), "listener_manager.listener_stopped: 2");
    until("status says so", || {
        status(&program).contains("SERVING") && {
            let line = format!("refuses clients at tcp://{}: drained", lab.config.http);
            status(&program).contains(&line) && status(&program).contains("2 listeners drained")
        }
    });
    drain(&lab, "");
    assert!(is_refused(lab.config.http), "said again");

    program.reload();
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    assert!(client::connect(lab.config.tcp).is_ok());
    assert!(!status(&program).contains("refuses clients"), "{}", status(&program));
}

#[test]
fn inbound_listeners_drain_alone() {
    let lab = Lab::new();
    let other = free_address();
    let text = lab.with_second_listener(other).replacen(
        "    - name: http\n",
        "    - name: http\n      traffic_direction: INBOUND\n",
        1,
    );
    let program = start(&lab, &[]);
    program.write_config(&text);
    program.reload();
    let mut inbound = client::connect(lab.config.http).expect("a connection");
    let mut outbound = client::connect(other).expect("a connection");
    assert_eq!((ask(&mut inbound), ask(&mut outbound)), (None, None));
    drain(&lab, "?inboundonly");
    until_refused(lab.config.http);
    assert_eq!(ask(&mut inbound).as_deref(), Some("close"));
    assert_eq!(ask(&mut outbound), None, "it is not told to close");
    assert_eq!(client::get(other, "/echo/2/10").status, 200);
    assert!(status(&program).contains("1 listener drained"), "{}", status(&program));
    drain(&lab, "");
    until_refused(other);
    assert_eq!(ask(&mut outbound).as_deref(), Some("close"));
}

#[test]
fn a_graceful_drain_tells_first_and_closes_later_and_skip_exit_never_closes() {
    let lab = Lab::new();
    let program = start(&lab, &["--drain-time-s", "2", "--drain-strategy", "immediate"]);
    drain(&lab, "?skip_exit&graceful");
    drain(&lab, "?skip_exit");
    let mut told = client::connect(lab.config.http).expect("it listens");
    until("clients are told", || {
        let close = ask(&mut told);
        told = client::connect(lab.config.http).expect("it listens");
        close.is_some()
    });
    let mut kept = client::connect(lab.config.http).expect("it listens");
    drain(&lab, "?graceful");
    assert_eq!(ask(&mut kept).as_deref(), Some("close"), "told before anything is closed");
    until_refused(lab.config.http);
    program.reload();
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
}

#[test]
fn who_waits_in_a_queue_while_listeners_are_drained_is_served() {
    let lab = Lab::new();
    let program = start(&lab, &["--concurrency", "4"]);
    let (_, worker) = program.serving_now();
    freeze(worker);
    let streams = fill(lab.config.http);
    let mut admin = client::connect(lab.config.admin).expect("the kernel accepts");
    let request = b"POST /drain_listeners HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    admin.write_all(request).expect("the kernel takes the request");
    send(worker, Signal::SIGCONT);
    assert_all_served(streams, "drained");
    assert_eq!(client::receive(&mut admin).expect("a response").status, 200);
    until_refused(lab.config.http);
}

#[test]
fn while_listeners_are_drained_clients_are_served_or_refused() {
    let lab = Lab::new();
    let program = start(&lab, &[]);
    // A generation that could come back has sockets, too.
    program.reload();
    let refused = Arc::new(AtomicBool::new(false));
    let address = lab.config.http;
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let refused = Arc::clone(&refused);
            thread::spawn(move || {
                while !refused.load(Ordering::Relaxed) {
                    match client::request(address, "GET", "/echo/2/100") {
                        Ok(response) => assert_eq!(response.status, 200),
                        Err(error) => {
                            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
                            refused.store(true, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    drain(&lab, "");
    for client in clients {
        assert!(client.join().is_ok(), "a client lost something");
    }
    until("the older generation drains", || {
        program.generations("HANDING_OFF").is_ok_and(|list| list.is_empty())
    });
}

#[test]
fn listeners_that_are_drained_stay_so_when_the_supervisor_dies() {
    let lab = Lab::new();
    let mut program = start(&lab, &[]);
    drain(&lab, "?inboundonly");
    assert!(client::connect(lab.config.http).is_ok(), "no listener is inbound");
    drain(&lab, "");
    until_refused(lab.config.http);
    program.kill_supervisor();
    program.launch_again();
    program.wait_until_serving();
    assert!(is_refused(lab.config.http));
    until("status says so", || status(&program).contains("2 listeners drained"));
    program.reload();
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
}

#[test]
fn a_supervisor_that_dies_while_listeners_are_drained_leaves_nobody_waiting() {
    let points = [
        "supervisor.received.DRAIN_LISTENERS",
        "supervisor.deafened",
        "supervisor.sent.RELEASE",
        "supervisor.received.RELEASED",
        "supervisor.released",
    ];
    let rounds = points.map(|point| thread::spawn(move || dies_at(point)));
    for (round, point) in rounds.into_iter().zip(points) {
        assert!(round.join().is_ok(), "{point}");
    }
}

fn dies_at(point: &str) {
    let lab = Lab::new();
    let mut program = start(&lab, &[]);
    let mut kept = client::connect(lab.config.http).expect("a connection");
    assert_eq!(ask(&mut kept), None);
    program.set_fault(&format!("{point}:kill:1"));
    drain(&lab, "");
    program.wait();
    program.launch_again();
    program.wait_until_serving();
    until_refused(lab.config.http);
    assert_eq!(ask(&mut kept).as_deref(), Some("close"), "{point}");
    program.reload();
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
}

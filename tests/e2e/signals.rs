//! Signals to the supervisor, and how it ends.

use crate::harness::eventually::{now, until};
use crate::harness::program::send;
use crate::harness::{Lab, client, proc};
use crate::queue::{assert_all_served, fill};
use crate::reload::listeners::connect_until_refused;
use nix::sys::signal::Signal;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn term_and_int_end_an_idle_program_with_code_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let lab = Lab::new();
        let mut program = lab.start();
        let workers = proc::descendants(program.pid());
        program.signal(signal);
        assert_eq!(program.wait().code(), Some(0), "{signal}");
        assert!(!workers.iter().any(|worker| proc::is_alive(*worker)), "{signal}");
        assert!(TcpStream::connect(lab.config.http).is_err(), "{signal}");
    }
}

#[test]
fn term_lets_a_request_end_and_a_second_one_does_not_wait() {
    let lab = Lab::new();
    let mut program = lab.start();
    let mut stream = client::connect(lab.config.http).expect("a connection");
    stream
        .write_all(b"GET /download/1/20 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .expect("send a request");
    let mut first = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut first).expect("the response begins");
    program.signal(Signal::SIGTERM);
    let mut rest = vec![0; 20 * 4096];
    std::io::Read::read_exact(&mut stream, &mut rest).expect("the response goes on to its end");
    // Nobody has to wait for a connection without a request.
    std::io::Read::read_to_end(&mut stream, &mut rest).expect("the connection ends");
    assert_eq!(program.wait().code(), Some(0));

    let lab = Lab::new();
    let mut program = lab.start();
    let held = client::connect(lab.config.tcp).expect("a tunnel");
    let began = now();
    program.signal(Signal::SIGTERM);
    until("the program stops", || program.status().is_err() || began.elapsed().as_millis() > 300);
    program.signal(Signal::SIGTERM);
    program.wait();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(held);
}

#[test]
fn signals_meant_for_the_supervisor_do_nothing_to_a_worker() {
    let lab = Lab::new();
    let program = lab.start();
    let (_, worker) = program.serving_now();
    let meant = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM, Signal::SIGINT];
    for signal in meant.into_iter().chain(meant) {
        send(worker, signal);
    }
    until("the worker saw SIGTERM", || program.log().contains("are for the supervisor"));
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    assert_eq!(program.serving_now().1, worker);
}

#[test]
fn a_worker_without_a_supervisor_ends_on_term() {
    let lab = Lab::new();
    let program = lab.start();
    let (_, worker) = program.serving_now();
    send(program.pid(), Signal::SIGKILL);
    until("the worker is alone", || program.log().contains("no supervisor any more"));
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    send(worker, Signal::SIGTERM);
    until("the worker ends", || !proc::is_alive(worker));
}

/// Whoever got in before the end is served; the others are refused, and nobody is reset.
#[test]
fn clients_that_keep_connecting_while_the_service_stops_are_served_or_refused() {
    let lab = Lab::new();
    let mut program = lab.start();
    let address = lab.config.http;
    let clients: Vec<_> =
        (0..4).map(|_| std::thread::spawn(move || connect_until_refused(address))).collect();
    crate::harness::lab::let_clients_work();
    program.signal(Signal::SIGTERM);
    for client in clients {
        let (served, lost) = client.join().expect("the client ends");
        assert!(served > 0 && lost.is_empty(), "{served} served, {lost:?}");
    }
    assert_eq!(program.wait().code(), Some(0));
}

/// What the kernel has accepted is not reset because the service stops. The worker cannot accept
/// while it has no descriptors left; before it has some again it is told to stop.
#[test]
fn what_waits_in_the_queues_when_the_service_stops_is_served() {
    let lab = Lab::new();
    let mut program = lab.start();
    let (_, worker) = program.serving_now();
    limit_descriptors(worker, "3");
    let streams = fill(lab.config.http);
    program.signal(Signal::SIGTERM);
    program.wait_until_stopping();
    until("the worker was told", || TcpStream::connect(lab.config.admin).is_err());
    limit_descriptors(worker, "4096");
    assert_all_served(streams, "");
    assert_eq!(program.wait().code(), Some(0));
    assert!(TcpStream::connect(lab.config.http).is_err());
}

/// Sets the soft limit of descriptors of a running process.
fn limit_descriptors(pid: u32, limit: &str) {
    let status = std::process::Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")])
        .status()
        .expect("prlimit");
    assert!(status.success(), "prlimit: {status}");
}

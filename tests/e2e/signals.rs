//! Signals to the supervisor, and how it ends.

use crate::harness::eventually::{now, until};
use crate::harness::{Lab, client, proc};
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
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        crate::harness::program::send(worker, signal);
    }
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    assert_eq!(program.serving_now().1, worker);
}

//! The accept queues, with nobody accepting: what waits there must be served.

use crate::harness::eventually::until;
use crate::harness::program::send;
use crate::harness::{Lab, client, proc};
use nix::sys::signal::Signal;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

/// Connections that wait. Many more than there are shards, so that each shard has some.
const WAITING: usize = 200;

/// Stops all threads of a process and waits until they stand still.
pub fn freeze(pid: u32) {
    send(pid, Signal::SIGSTOP);
    until("the worker stands still", || proc::is_stopped(pid));
}

/// Connects and sends requests that nobody reads yet.
pub fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let request = b"GET /echo/2/100 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let connect = |_| {
        let mut stream = client::connect(address).expect("the kernel accepts");
        stream.write_all(request).expect("the kernel takes the request");
        stream
    };
    (0..WAITING).map(connect).collect()
}

pub fn assert_all_served(streams: Vec<TcpStream>, told: &str) {
    for (index, mut stream) in streams.into_iter().enumerate() {
        let response = client::receive(&mut stream);
        let response =
            response.unwrap_or_else(|error| panic!("connection {index}: {error}; {told}"));
        assert_eq!(response.status, 200, "connection {index}");
    }
}

#[test]
fn what_waits_in_the_queues_survives_a_reload_with_fewer_threads() {
    let lab = Lab::new();
    let program = lab.start_with(&["--concurrency", "4"]);
    let (_, old) = program.serving_now();
    freeze(old);
    let streams = fill(lab.config.http);
    // The stopped worker answers nothing, so the verdict is not the point here; the queues are.
    let (_, text) = program.reload_with(&["--concurrency", "1"]);
    send(old, Signal::SIGCONT);
    assert_all_served(streams, &text);
}

#[test]
fn what_waits_in_the_queues_survives_the_death_of_the_worker() {
    let lab = Lab::new();
    let program = lab.start_with(&["--concurrency", "4"]);
    let (_, worker) = program.serving_now();
    freeze(worker);
    let streams = fill(lab.config.http);
    send(worker, Signal::SIGKILL);
    assert_all_served(streams, "");
}

//! Listeners that come and go.

use crate::harness::eventually::until;
use crate::harness::lab::{assert_nothing_lost, free_address, let_clients_work};
use crate::harness::program::send;
use crate::harness::{Lab, client};
use crate::queue::{assert_all_served, fill, freeze};
use nix::sys::signal::Signal;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

#[test]
fn listeners_come_and_go_and_the_others_lose_nothing() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    let address = free_address();
    for _ in 0..3 {
        program.write_config(&lab.with_second_listener(address));
        program.reload();
        assert_eq!(client::get(address, "/echo/2/10").status, 200);
        let_clients_work();

        let mut kept = client::connect(address).expect("a connection to the second listener");
        ask(&mut kept);
        program.write_config(&lab.config.text());
        program.reload();
        ask(&mut kept);
        until("the removed listener is closed", || TcpStream::connect(address).is_err());
    }
    assert_nothing_lost(load);
}

/// A request on a connection that stays open.
fn ask(stream: &mut TcpStream) {
    let request = b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request).expect("send a request");
    assert_eq!(client::receive(stream).expect("a response").status, 200);
}

/// Connects for each request until it is refused three times; how many were served, and what those
/// saw that were let in and not served.
pub fn connect_until_refused(address: SocketAddr) -> (usize, Vec<String>) {
    let (mut refused, mut served, mut lost) = (0, 0, Vec::new());
    while refused < 3 {
        let Ok(mut stream) = client::connect(address) else {
            refused += 1;
            continue;
        };
        let request = b"GET /echo/2/10 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        match stream.write_all(request).and_then(|()| client::receive(&mut stream)) {
            Ok(response) if response.status == 200 => served += 1,
            Ok(response) => lost.push(format!("status {}", response.status)),
            Err(error) => lost.push(error.to_string()),
        }
    }
    (served, lost)
}

#[test]
fn clients_that_keep_connecting_to_a_removed_listener_are_served_or_refused() {
    let lab = Lab::new();
    let address = free_address();
    let program = lab.start();
    program.write_config(&lab.with_second_listener(address));
    program.reload();
    program.write_config(&lab.config.text());
    let clients = std::thread::spawn(move || connect_until_refused(address));
    until("the clients work", || client::get(address, "/echo/2/10").status == 200);
    program.reload();
    let (served, lost) = clients.join().expect("the clients end");
    assert!(served > 0);
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn connections_in_the_queue_of_a_removed_listener_are_served() {
    let lab = Lab::new();
    let address = free_address();
    let program = lab.start();
    program.write_config(&lab.with_second_listener(address));
    program.reload();
    let (_, old) = program.serving_now();
    freeze(old);
    let streams = fill(address);
    program.write_config(&lab.config.text());
    // The frozen worker answers nothing, so the verdict is not the point here; the queue is.
    let (_, text) = program.reload_with(&[]);
    send(old, Signal::SIGCONT);
    assert_all_served(streams, &text);
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_reload() {
    let lab = Lab::new();
    let program = lab.start();
    let before = program.serving_now();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    program.write_config(&lab.with_second_listener(address));
    let (code, text) = program.reload_with(&[]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains(&address.to_string()), "the address is named: {text}");
    assert_eq!(program.serving_now(), before);
    drop(taken);
    program.reload();
    assert_eq!(client::get(address, "/echo/2/10").status, 200);
}

//! Listeners that come and go.

use crate::harness::eventually::until;
use crate::harness::lab::{assert_nothing_lost, free_address, let_clients_work};
use crate::harness::program::send;
use crate::harness::{Lab, Program, client};
use crate::queue::{assert_all_served, fill, freeze};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

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
fn a_removed_listener_refuses_clients_while_older_generations_keep_connections() {
    let lab = Lab::new();
    let address = free_address();
    let program = lab.start_with(&["--probation-s", "1", "--drain-strategy", "gradual"]);
    program.write_config(&lab.with_second_listener(address));
    program.reload();
    // Without a request it is not told to close, and keeps its generation.
    let mut kept = client::connect(lab.config.http).expect("a connection");
    kept.write_all(b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    assert_eq!(client::receive(&mut kept).expect("a response").status, 200);
    program.reload();
    until("the generation drains", || {
        program.generations("DRAINING").is_ok_and(|list| !list.is_empty())
    });
    program.write_config(&lab.config.text());
    program.reload();
    until("clients are refused", || {
        let refused = client::connect(address).map_err(|error| error.kind());
        matches!(refused, Err(std::io::ErrorKind::ConnectionRefused))
    });
    assert!(!program.generations("DRAINING").expect("status").is_empty(), "it lives");
    drop(kept);
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

/// A cleaner of temporary files took the listener's socket file and the control socket, under
/// processes that use them.
#[test]
fn a_reload_brings_back_socket_files_that_somebody_removed() {
    let lab = Lab::new();
    let program = lab.start();
    let control = program.path("control.sock");
    let listener = listen_on_a_file(&lab, &program);
    for path in [&listener, &control] {
        fs::remove_file(path).expect("remove a socket file");
    }
    program.signal(Signal::SIGHUP);
    until("the listener accepts again", || UnixStream::connect(&listener).is_ok());
    program.reload();
    UnixStream::connect(&listener).expect("and goes on to");
}

/// A second listener, on a socket file.
fn listen_on_a_file(lab: &Lab, program: &Program) -> PathBuf {
    let listener = program.path("listener.sock");
    let second = free_address();
    let address =
        format!("socket_address: {{ address: 127.0.0.1, port_value: {} }}", second.port());
    let pipe = format!("pipe: {{ path: {} }}", listener.display());
    let config = lab.with_second_listener(second);
    assert!(config.contains(&address), "{config}");
    program.write_config(&config.replace(&address, &pipe));
    program.reload();
    UnixStream::connect(&listener).expect("it accepts");
    listener
}

/// The generation that serves again polls the socket that has the new file, and commands find the
/// supervisor again without a signal.
#[test]
fn socket_files_come_back_when_a_worker_dies_and_another_generation_takes_over() {
    let lab = Lab::new();
    let program = lab.start();
    let listener = listen_on_a_file(&lab, &program);
    program.reload();
    let (generation, _) = program.serving_now();
    // The first dies in its probation, so an older generation serves again. The next one is new.
    for _ in 0..2 {
        let (_, worker) = program.serving_now();
        fs::remove_file(&listener).expect("remove a socket file");
        send(worker, Signal::SIGKILL);
        until("another worker serves", || {
            program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
        });
        until("the listener accepts again", || UnixStream::connect(&listener).is_ok());
        let mut stream = UnixStream::connect(&listener).expect("it accepts");
        let request = b"GET /echo/2/10 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(request).expect("write");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    let (now, _) = program.serving_now();
    assert!(now > generation);
    let (_, worker) = program.serving_now();
    let control = program.path("control.sock");
    for path in [control.with_extension("work"), control.with_extension("lock")] {
        fs::remove_file(path).expect("remove");
    }
    fs::remove_file(&control).expect("remove");
    send(worker, Signal::SIGKILL);
    until("a command finds the supervisor", || program.status().is_ok());
    assert!(control.with_extension("work").exists() && control.with_extension("lock").exists());
}

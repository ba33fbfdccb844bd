//! Supervisors that die. Their workers serve on, and the next supervisor takes them back.

use crate::harness::eventually::{SOON, eventually, pause, until};
use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::program::send;
use crate::harness::{Lab, Program, client, proc};
use baton_contract::shm::{SegmentOwner, SegmentReader, find};
use nix::sys::signal::Signal;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Connections opened so far, by the segment.
fn opened(program: &Program) -> u64 {
    let name = find(program.base_id()).into_iter().next().expect("a segment");
    SegmentReader::open(&name).expect("open it").ledger().expect("read it").opened
}

/// A tunnel through which bytes come back.
fn tunnel(lab: &Lab) -> TcpStream {
    let mut tunnel = client::connect(lab.config.tcp).expect("a tunnel");
    tunnel.write_all(b"e").expect("ask for the echo");
    say(&mut tunnel, b"hello");
    tunnel
}

fn say(tunnel: &mut TcpStream, text: &[u8]) {
    tunnel.write_all(text).expect("send");
    let mut back = vec![0; text.len()];
    tunnel.read_exact(&mut back).expect("the echo");
    assert_eq!(back, text);
}

/// A request whose answer may take as long as a start of everything.
fn ask_patiently(http: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    client::receive(&mut stream).map(|response| response.status)
}

#[test]
fn a_new_supervisor_takes_workers_back_with_listeners_counters_and_connections() {
    let lab = Lab::new();
    let mut program = lab.start();
    program.reload();
    program.wait_until_alone();
    let (generation, worker) = program.serving_now();
    let load = lab.load();
    let_clients_work();
    let before = opened(&program);
    for _ in 0..3 {
        program.kill_supervisor();
        let_clients_work();
        program.launch_again();
        program.wait_until_serving();
        assert_eq!(program.serving_now(), (generation, worker), "the same worker serves");
        let_clients_work();
    }
    assert!(opened(&program) > before, "counters go on");
    program.reload();
    let (newer, _) = program.serving_now();
    assert_eq!(newer, generation + 1, "generations are counted on");
    let seen = assert_nothing_lost(load);
    drop(seen);
    assert_eq!(program.segments(), 1, "one segment for all of them");
}

#[test]
fn an_orphan_that_drains_comes_back_and_ends_with_its_last_connection() {
    let lab = Lab::new();
    let mut program = lab.start_with(&["--probation-s", "0", "--drain-strategy", "immediate"]);
    let mut held = tunnel(&lab);
    let (old, _) = program.serving_now();
    program.reload();
    let drains = |program: &Program| {
        eventually("the old generation drains", || {
            let draining = program.generations("draining")?;
            draining
                .iter()
                .any(|(g, _)| *g == old)
                .then_some(())
                .ok_or_else(|| format!("{draining:?}"))
        });
    };
    drains(&program);
    program.kill_supervisor();
    say(&mut held, b"nobody supervises");
    program.launch_again();
    program.wait_until_serving();
    drains(&program);
    say(&mut held, b"supervised again");
    drop(held);
    until("the old generation ends", || {
        program.generations("draining").is_ok_and(|draining| draining.is_empty())
    });
    program.reload();
}

#[test]
fn a_paused_orphan_serves_again_when_the_serving_one_died_with_the_supervisor() {
    let lab = Lab::new();
    let mut program = lab.start_with(&["--probation-s", "60"]);
    let mut held = tunnel(&lab);
    let (old, _) = program.serving_now();
    program.reload();
    let (_, new) = program.serving_now();
    program.kill_supervisor();
    send(new, Signal::SIGKILL);
    program.launch_again();
    program.wait_until_serving();
    assert_eq!(program.serving_now().0, old, "the paused one resumed");
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    say(&mut held, b"still here");
    program.reload();
}

#[test]
fn a_worker_that_hangs_keeps_nobody_from_being_served_and_is_drained_when_it_wakes() {
    let lab = Lab::new();
    let mut program = lab.start_with(&["--drain-strategy", "immediate"]);
    let (generation, worker) = program.serving_now();
    let mut held = tunnel(&lab);
    program.kill_supervisor();
    // Not before: the kernel wakes what is stopped in a process group that loses its parent.
    send(worker, Signal::SIGSTOP);
    until("every thread of it is stopped", || proc::is_stopped(worker));
    // They wait in the queues of the worker that hangs.
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            std::thread::spawn({
                let http = lab.config.http;
                move || ask_patiently(http)
            })
        })
        .collect();
    program.launch_again();
    program.wait_until_serving();
    let (newer, _) = program.serving_now();
    assert!(newer > generation);
    for client in waiting {
        assert_eq!(client.join().expect("a client").expect("a response"), 200);
    }
    send(worker, Signal::SIGCONT);
    say(&mut held, b"awake");
    drop(held);
    until("the worker that woke up ends", || !proc::is_alive(worker));
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
}

#[test]
fn without_workers_the_next_supervisor_counts_on() {
    let lab = Lab::new();
    let mut program = lab.start();
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    let (generation, worker) = program.serving_now();
    let before = opened(&program);
    assert!(before > 0);
    program.kill_supervisor();
    send(worker, Signal::SIGKILL);
    program.launch_again();
    program.wait_until_serving();
    assert!(program.serving_now().0 > generation, "no number is used twice");
    assert!(opened(&program) >= before, "counters go on");
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
}

#[test]
fn a_supervisor_whose_workers_another_one_took_ends_and_harms_nobody() {
    let lab = Lab::new();
    let mut program = lab.start();
    let (_, worker) = program.serving_now();
    let mut held = tunnel(&lab);
    let name = find(program.base_id()).into_iter().next().expect("a segment");
    let other = SegmentOwner::adopt(&name).expect("another supervisor");
    assert_eq!(program.wait().code(), Some(3), "it gives way");
    say(&mut held, b"served on");
    assert!(proc::is_alive(worker));
    other.leave();
}

#[test]
fn a_supervisor_killed_at_any_moment_of_a_reload_costs_nothing() {
    let lab = Lab::new();
    let mut program = lab.start_with(&["--probation-s", "1"]);
    let load = lab.load();
    // From before the new worker is there to after the older one was paused.
    for wait_ms in [0, 5, 20, 40, 60, 80, 120, 200] {
        program.signal(Signal::SIGHUP);
        pause(Duration::from_millis(wait_ms));
        program.kill_supervisor();
        program.launch_again();
        program.wait_until_serving();
        let serving = program.generations("serving").expect("status");
        assert_eq!(serving.len(), 1, "after {wait_ms} ms: {serving:?}");
    }
    program.reload();
    assert_nothing_lost(load);
    until("all older generations end", || {
        let status = program.status().unwrap_or_default();
        let rows = status.get("generations").and_then(|rows| rows.as_array().cloned());
        let lives = |state: &str| !["DEAD", "FAILED"].contains(&state);
        let states = rows.iter().flatten().filter_map(|row| row.get("state")?.as_str().map(lives));
        states.filter(|lives| *lives).count() == 1
    });
}

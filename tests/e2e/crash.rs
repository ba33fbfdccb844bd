//! Workers that die.

use crate::harness::eventually::until;
use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::program::send;
use crate::harness::{Lab, client, proc};
use baton_torture::Class;
use nix::sys::signal::Signal;

#[test]
fn a_killed_worker_is_replaced_and_no_connect_is_refused() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    for _ in 0..3 {
        let (_, worker) = program.serving_now();
        send(worker, Signal::SIGKILL);
        until("another worker serves", || {
            program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
        });
        let_clients_work();
    }
    let seen = load.finish();
    for class in [Class::ConnectFail, Class::WrongBytes] {
        assert_eq!(seen.total(class), 0, "{}", seen.failures_of(class).join("\n"));
    }
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    program.reload();
}

#[test]
fn a_new_generation_killed_in_probation_gives_way_to_the_old_one() {
    let lab = Lab::new();
    let program = lab.start();
    // Keeps the first generation alive, so that there is one to go back to.
    let held = client::connect(lab.config.tcp).expect("a tunnel");
    let (first, _) = program.serving_now();
    until("the tunnel is accepted", || {
        let status = program.status().unwrap_or_default();
        status.to_string().contains("\"connections\":") && held.peer_addr().is_ok()
    });
    let_clients_work();
    program.reload();
    let (second, worker) = program.serving_now();
    assert!(second > first);
    send(worker, Signal::SIGKILL);
    until("an older or newer generation serves", || {
        program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
    });
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    drop(held);
}

#[test]
fn the_worker_serves_on_when_the_supervisor_is_killed() {
    let lab = Lab::new();
    let program = lab.start();
    let (_, worker) = program.serving_now();
    let load = lab.load();
    send(program.pid(), Signal::SIGKILL);
    let_clients_work();
    let seen = load.finish();
    let alive = proc::is_alive(worker);
    send(worker, Signal::SIGKILL);
    assert!(alive, "the worker is an orphan and serves on");
    assert_eq!(seen.lost(), 0, "{}", seen.failures.join("\n"));
}

#[test]
fn a_draining_generation_that_is_killed_harms_the_new_one_in_nothing() {
    let lab = Lab::new();
    let program = lab.start();
    let mut held = client::connect(lab.config.tcp).expect("a tunnel");
    std::io::Write::write_all(&mut held, b"e").expect("send");
    let_clients_work();
    let (_, old) = program.serving_now();
    program.reload();
    send(old, Signal::SIGKILL);
    let load = lab.load();
    program.reload();
    assert_nothing_lost(load);
}

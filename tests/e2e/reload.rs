//! Reloads under the full load: nobody notices.

mod bad;
mod faults;
mod generations;
pub mod listeners;

use crate::harness::eventually::until;
use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::{Lab, client};
use nix::sys::signal::Signal;

#[test]
fn reloads_of_the_same_configuration_lose_nothing() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    for _ in 0..5 {
        program.reload();
        let_clients_work();
    }
    assert_nothing_lost(load);
}

#[test]
fn reloads_by_signal_lose_nothing() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    for _ in 0..5 {
        let (before, _) = program.serving_now();
        program.signal(Signal::SIGHUP);
        until("a newer generation serves", || {
            program.serving().is_ok_and(|now| now.is_some_and(|(now, _)| now > before))
        });
    }
    assert_nothing_lost(load);
}

#[test]
fn a_storm_of_signals_becomes_a_few_reloads_and_loses_nothing() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    for _ in 0..200 {
        program.signal(Signal::SIGHUP);
    }
    let mut last = lab;
    last.config.extra_route = true;
    program.write_config(&last.config.text());
    program.signal(Signal::SIGHUP);
    until("the last configuration serves", || {
        client::request(lab.config.http, "GET", "/added").is_ok_and(|got| got.body == "added")
    });
    assert_nothing_lost(load);
    let (generation, _) = program.serving_now();
    assert!(generation < 100, "201 signals made {generation} generations");
}

#[test]
fn changed_routes_are_there_after_the_reload_and_nothing_is_lost() {
    let mut lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    for _ in 0..4 {
        lab.config.extra_route = !lab.config.extra_route;
        program.write_config(&lab.config.text());
        program.reload();
        let expected = if lab.config.extra_route { 200 } else { 404 };
        assert_eq!(client::get(lab.config.http, "/added").status, expected);
        let_clients_work();
    }
    assert_nothing_lost(load);
}

#[test]
fn concurrency_goes_up_and_down_and_nothing_is_lost() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    for threads in ["1", "4", "1", "8", "2"] {
        let (code, text) = program.reload_with(&["--concurrency", threads]);
        assert_eq!(code, 0, "{text}");
        let_clients_work();
    }
    assert_nothing_lost(load);
}

//! The supervisor with real worker processes: this test program started again as a small worker.
//!
//! What a worker does is written in its configuration, one instruction a line:
//! `listen KEY`, `invalid TEXT`, `crash WHEN`, `hang WHEN` with WHEN one of `start`, `warm`,
//! `take`, `serving`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail"
)]

#[path = "processes/fake_worker.rs"]
mod fake_worker;
#[path = "processes/house.rs"]
mod house;

use std::{net::TcpListener, time::Duration};

use baton_contract::{
    control::{Answer, Reload, Request, Verdict},
    exit::Exit,
    generation::{Generation, State},
};
use baton_supervisor::{SupervisorError, run};
use house::{House, eventually};

/// Not a test: the entry of the worker processes. Without its variable it does nothing.
#[test]
#[expect(clippy::disallowed_methods, clippy::exit, reason = "a worker must not report as a test")]
fn fake_worker_entry() {
    if std::env::var_os(fake_worker::VARIABLE).is_some() {
        fake_worker::main();
        std::process::exit(0);
    }
}

#[test]
fn a_reload_switches_generations_and_no_client_notices() {
    let house = House::start("", |_| ());
    assert_eq!(house.asks(), "generation 0");
    let clients = house.clients();
    for expected in 1..=5 {
        let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
        assert_eq!(outcome.verdict, Verdict::Serving, "{}", outcome.text);
        assert_eq!(outcome.generation, Some(Generation(expected)));
        assert_eq!(house.asks(), format!("generation {expected}"));
    }
    let (answers, failures) = clients.stop();
    assert_eq!(failures, Vec::<String>::new());
    assert!(answers > 0);
    assert_eq!(house.stop(), Ok(Exit::Ok));
}

#[test]
fn a_bad_configuration_changes_nothing_and_the_next_good_one_works() {
    let house = House::start("", |_| ());
    house.write("invalid no such field");
    let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
    assert_eq!(outcome.verdict, Verdict::Invalid);
    assert_eq!(outcome.text, "no such field");
    assert_eq!(outcome.diagnostics, ["line 2: no such field"]);
    assert_eq!(house.asks(), "generation 0");
    house.write("");
    let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
    assert_eq!(outcome.verdict, Verdict::Serving);
    assert_eq!(house.asks(), "generation 2");
}

#[test]
fn a_worker_that_crashes_or_hangs_before_it_serves_is_refused() {
    let house = House::start("", |options| {
        options.start_timeout = Duration::from_millis(800);
        options.warm_timeout = Duration::ZERO;
    });
    for misbehaviour in ["crash start", "crash warm", "crash take", "hang start", "hang warm"] {
        house.write(misbehaviour);
        let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
        assert_eq!(outcome.verdict, Verdict::Refused, "{misbehaviour}");
        assert_eq!(house.asks(), "generation 0", "{misbehaviour}");
    }
    house.write("");
    let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
    assert_eq!(outcome.verdict, Verdict::Serving);
}

#[test]
fn a_worker_that_dies_in_probation_is_rolled_back_and_its_configuration_refused() {
    let house = House::start("", |_| ());
    let clients = house.clients();
    house.write("crash serving");
    // It may die before or after the answer.
    let switched = [Verdict::Serving, Verdict::RolledBack];
    let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
    assert!(switched.contains(&outcome.verdict), "{}", outcome.text);
    eventually(|| house.status().last_reload.is_some_and(|l| l.verdict == Verdict::RolledBack));
    assert_eq!(house.asks(), "generation 0");
    let again = house.reload(&Reload { wait: true, ..Reload::default() });
    assert_eq!(again.verdict, Verdict::Refused);
    assert!(again.text.contains("--force"), "{}", again.text);
    let forced = house.reload(&Reload { wait: true, force: true, ..Reload::default() });
    assert!(switched.contains(&forced.verdict), "{}", forced.text);
    let (_, failures) = clients.stop();
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn a_killed_worker_is_started_again_from_the_last_good_configuration() {
    let house = House::start("", |_| ());
    let clients = house.clients();
    // What is on disk now is not what ran.
    house.write("invalid in between");
    let pid = house.status().generations.first().expect("a generation").pid;
    house::kill(pid);
    eventually(|| house.status().respawns == 1 && house.serving() == Some(Generation(1)));
    assert_eq!(house.asks(), "generation 1");
    let (_, failures) = clients.stop();
    assert_eq!(failures, Vec::<String>::new(), "the accept queue must survive");
}

#[test]
fn a_dry_run_changes_nothing() {
    let house = House::start("", |_| ());
    let dry_run = Reload { dry_run: true, ..Reload::default() };
    assert_eq!(house.reload(&dry_run).verdict, Verdict::WouldServe);
    house.write("invalid nonsense");
    assert_eq!(house.reload(&dry_run).verdict, Verdict::Invalid);
    assert_eq!(house.asks(), "generation 0");
    assert_eq!(house.status().reloads, 0);
}

#[test]
fn an_added_listener_that_cannot_be_bound_refuses_the_reload_and_names_the_owner() {
    let house = House::start("", |_| ());
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    house.write(&format!("listen tcp://{address}"));
    let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
    assert_eq!(outcome.verdict, Verdict::Refused);
    assert!(outcome.text.contains(&address.to_string()), "{}", outcome.text);
    assert!(outcome.text.contains("Address already in use"), "{}", outcome.text);
    let owner = format!("process {}", std::process::id());
    assert!(outcome.text.contains(&owner), "{}", outcome.text);
    assert_eq!(house.asks(), "generation 0");
}

#[test]
fn added_and_removed_listeners_come_and_go() {
    let house = House::start("", |options| options.probation = Duration::from_millis(100));
    let added = house.path("added.sock");
    house.write(&format!("listen unix://{}", added.display()));
    let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
    assert_eq!(outcome.listeners.added, [format!("unix://{}", added.display())]);
    assert_eq!(house::ask(&added).expect("added"), "generation 1");
    house.write("");
    let outcome = house.reload(&Reload { wait: true, ..Reload::default() });
    assert_eq!(outcome.listeners.removed.len(), 1);
    eventually(|| !added.exists());
    eventually(|| house.status().listeners.len() == 1);
}

#[test]
fn status_shows_generations_and_a_draining_one_can_be_hurried() {
    let house = House::start("", |_| ());
    house.reload(&Reload { wait: true, ..Reload::default() });
    let states: Vec<State> = house.status().generations.iter().map(|row| row.state).collect();
    assert_eq!(states, [State::Serving, State::HandingOff]);
    let drain = |generation| house.request(&Request::Drain { generation, strategy: None });
    assert!(matches!(drain(Generation(1)), Answer::Refused { .. }));
    assert!(matches!(drain(Generation(0)), Answer::Done { .. }));
    eventually(|| house.status().generations.iter().any(|row| row.state == State::Dead));
}

#[test]
fn a_second_supervisor_is_refused() {
    let house = House::start("", |_| ());
    match run(house.options()) {
        Err(SupervisorError::AnotherInstance { pid, .. }) => {
            assert_eq!(pid, Some(std::process::id()));
        }
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn a_first_configuration_that_is_invalid_ends_the_supervisor() {
    let house = House::build("invalid from the start", |_| ());
    match run(house.options()) {
        Err(error @ SupervisorError::Config { .. }) => assert_eq!(error.exit(), Exit::Config),
        other => panic!("unexpected {other:?}"),
    }
    let mut options = house.options();
    options.config_path = "/nowhere/envoy.yaml".into();
    let error = run(options).expect_err("no file");
    assert_eq!(error.exit(), Exit::Config);
    assert!(error.to_string().contains("/nowhere/envoy.yaml"), "{error}");
}

#[test]
fn a_storm_of_reloads_ends_with_a_verdict_for_each() {
    let house = House::start("", |options| options.probation = Duration::from_millis(50));
    let verdicts: Vec<Verdict> = std::thread::scope(|scope| {
        let ask = || house.reload(&Reload { wait: true, ..Reload::default() }).verdict;
        let threads: Vec<_> = (0..40).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("client")).collect()
    });
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Serving), "{verdicts:?}");
    assert!(house.status().reloads < 40, "they are coalesced");
    eventually(|| house.status().generations.iter().filter(|row| row.pid != 0).count() >= 1);
}

#[test]
fn no_process_is_left_behind_by_forty_reloads() {
    let house = House::start("", |options| options.probation = Duration::ZERO);
    let wait = Reload { wait: true, ..Reload::default() };
    house.reload(&wait);
    for _ in 0..20 {
        house.write("crash warm");
        house.reload(&wait);
        house.write("");
        assert_eq!(house.reload(&wait).verdict, Verdict::Serving);
    }
    eventually(|| house.living() == 1);
}

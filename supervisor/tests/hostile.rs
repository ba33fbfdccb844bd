//! Workers that break the protocol, while a good one serves: the supervisor must not crash, hang,
//! keep their descriptors or disturb anybody.
//!
//! In a program of its own, because it counts the descriptors of this process, in which the
//! supervisor runs as a thread.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail, and this one does not need all of what it shares with another"
)]

#[path = "processes/evil_worker.rs"]
mod evil_worker;
#[path = "processes/fake_worker.rs"]
mod fake_worker;
#[path = "processes/house.rs"]
mod house;

use std::{fs, path::Path, time::Duration};

use baton_contract::{
    clock,
    control::{Reload, Verdict},
    exit::Exit,
};
use house::{House, eventually};

/// Evil workers to meet; each is another seed.
const SEEDS: u64 = 250;
/// Time after which no more are started than have to be. A slow machine meets fewer.
const TIME_MAX: Duration = Duration::from_secs(45);
/// Fewer than this prove nothing.
const SEEDS_MIN: u64 = 25;
/// The file with the seed of the next worker; without it workers are good.
const SEED_FILE: &str = "evil-seed";

/// Not a test: the entry of the worker processes. Without its variable it does nothing.
#[test]
#[expect(clippy::disallowed_methods, clippy::exit, reason = "a worker must not report as a test")]
fn fake_worker_entry() {
    let Some(place) = std::env::var_os(fake_worker::VARIABLE) else { return };
    let seed = fs::read_to_string(Path::new(&place).join(SEED_FILE)).ok();
    match seed.and_then(|seed| seed.parse().ok()) {
        Some(seed) => evil_worker::main(seed),
        None => fake_worker::main(),
    }
    std::process::exit(0);
}

/// Open descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("proc").count()
}

fn forced() -> Reload {
    Reload { wait: true, force: true, ..Reload::default() }
}

/// A reload with a good worker, after which nothing but its generation is left.
fn settle(house: &House, why: &str) {
    let outcome = house.reload(&forced());
    assert_eq!(outcome.verdict, Verdict::Serving, "after {why}: {}", outcome.text);
    let number = outcome.generation.expect("a generation");
    assert_eq!(house.asks(), format!("generation {number}"), "after {why}");
}

#[test]
fn evil_workers_disturb_nobody() {
    if std::env::var_os(fake_worker::VARIABLE).is_some() {
        return;
    }
    let house = House::start("", |options| {
        options.start_timeout = Duration::from_millis(500);
        options.warm_timeout = Duration::ZERO;
        // Longer than the life of an evil worker, or a believed lie about its listeners would be
        // a change of the configuration that clients notice.
        options.probation = Duration::from_secs(8);
        // One that took part in a switch and says nothing more is ended then.
        options.parent_shutdown_time = Duration::from_secs(10);
    });
    settle(&house, "the start");
    eventually(|| house.living() == 1);
    let before = descriptors();

    let clients = house.clients();
    let began = clock::now();
    let mut met = 0;
    for seed in 0..SEEDS {
        if met >= SEEDS_MIN && clock::now().duration_since(began) > TIME_MAX {
            break;
        }
        fs::write(house.path(SEED_FILE), seed.to_string()).expect("the seed");
        // Whatever it comes to: some lie so well that they serve for a moment.
        house.reload(&forced());
        fs::remove_file(house.path(SEED_FILE)).expect("the seed");
        met = seed + 1;
        settle(&house, &format!("seed {seed}"));
    }

    settle(&house, &format!("{met} evil workers"));
    let (answers, failures) = clients.stop();
    assert_eq!(failures, Vec::<String>::new());
    assert!(answers > met, "{answers} answers, {met} evil workers");
    eventually(|| house.living() == 1);
    eventually(|| descriptors() <= before);
    assert_eq!(house.stop(), Ok(Exit::Ok));
}

//! Sums and token buckets over all generations: never more than allowed, whatever threads and
//! processes ask at the same moment, and whoever is killed.
//!
//! The test binary runs itself again as the process to be killed, see [`role`].

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; a failure is the end of the test"
)]

use std::{
    env,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use baton_contract::{
    generation::Generation,
    shm::{
        Bucket, Geometry, Rate, SegmentOwner, SegmentReader, SegmentWorker, SlotIndex, Sum,
        ThreadSlab,
    },
};
use proptest::prelude::*;

/// A base id that no other test and no real supervisor has.
fn base_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_500_000_000 + std::process::id() % 1_000_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn owner() -> SegmentOwner {
    let geometry = Geometry { slots: 8, slabs: 32, ..Geometry::default() };
    SegmentOwner::create_with(base_id(), geometry).unwrap()
}

/// One thread of a new generation.
fn generation(owner: &mut SegmentOwner, number: u32) -> (SlotIndex, ThreadSlab) {
    let slot = owner.register(Generation(number), 1).unwrap();
    (slot, SegmentWorker::open(owner.os_id(), slot).unwrap().thread(0).unwrap())
}

fn start(role: &str, os_id: &str, slot: SlotIndex) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "role", "--nocapture", "--test-threads=1"])
        .env("BATON_TEST_ROLE", role)
        .env("BATON_TEST_SEGMENT", os_id)
        .env("BATON_TEST_SLOT", slot.0.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a started copy of this binary does. Without a role, nothing.
#[test]
fn role() {
    let Ok(role) = env::var("BATON_TEST_ROLE") else { return };
    let os_id = env::var("BATON_TEST_SEGMENT").unwrap();
    let slot = SlotIndex(env::var("BATON_TEST_SLOT").unwrap().parse().unwrap());
    let worker = SegmentWorker::open(&os_id, slot).unwrap();
    std::io::stderr().write_all(b"r").unwrap();
    match role.as_str() {
        "enter" => enter_and_leave(&worker.thread(0).unwrap().sums().sum("gate")),
        "take" => take_for_ever(&worker),
        other => panic!("no role {other}"),
    }
}

const MAX: u64 = 5;

/// Comes and goes until it is killed, three at a time.
fn enter_and_leave(sum: &Sum) {
    loop {
        let inside = (0..3).filter(|_| sum.add_up_to(MAX)).count();
        (0..inside).for_each(|_| sum.sub());
    }
}

/// The first time of the test; any would do.
const START: u64 = 77_000_000_000;

/// Tells of each token it got from the shared bucket, after it got it.
fn take_for_ever(worker: &SegmentWorker) {
    let bucket = worker.bucket("bucket").unwrap();
    let rate = Rate::new(100, 1_000_000_000, 10);
    loop {
        if bucket.take(rate, 1, START + 1_000_000_000).is_ok() {
            std::io::stderr().write_all(b"t").unwrap();
        } else {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_name_is_one_sum_for_all_generations() {
    let mut owner = owner();
    let (old_slot, old) = generation(&mut owner, 1);
    let old = old.sums();
    let (gate, other) = (old.sum("gate"), old.sum("other"));
    assert!(gate.is_shared());
    gate.add();
    assert!(gate.add_up_to(2));
    assert!(!gate.add_up_to(2));
    let (_, new) = generation(&mut owner, 2);
    let same = new.sums().sum("gate");
    assert_eq!((same.total(), same.own(), other.total()), (2, 0, 0));
    assert!(!same.add_up_to(2));
    assert!(same.add_up_to(3));
    assert_eq!(gate.total(), 3, "the older one learns of the newer one");
    owner.retire(old_slot).unwrap();
    assert_eq!(same.total(), 1, "what a dead generation had is gone with it");
    assert!(
        SegmentReader::open(owner.os_id())
            .unwrap()
            .snapshot()
            .unwrap()
            .iter()
            .all(|metric| !metric.name.name().contains("shared"))
    );
}

#[test]
fn without_a_segment_or_without_room_a_sum_is_of_the_thread_alone() {
    let detached = ThreadSlab::detached().sums().sum("gate");
    assert!(!detached.is_shared());
    assert!(detached.add_up_to(1) && !detached.add_up_to(1));
    let geometry = Geometry { slots: 2, slabs: 8, cells: 512, ..Geometry::default() };
    let mut owner = SegmentOwner::create_with(base_id(), geometry).unwrap();
    let (slot, small) = generation(&mut owner, 1);
    assert!(!small.sums().sum("gate").is_shared());
    assert!(SegmentWorker::open(owner.os_id(), slot).unwrap().bucket("bucket").is_none());
}

#[test]
fn names_that_find_no_place_are_counted_and_do_not_share_one() {
    let mut owner = owner();
    let (_, slab) = generation(&mut owner, 1);
    let sums = slab.sums();
    let made: Vec<Sum> = (0..2049).map(|i| sums.sum(&format!("listener.{i}"))).collect();
    made.iter().for_each(Sum::add);
    assert!(made.iter().all(|sum| sum.total() == 1));
    assert_eq!(made.iter().filter(|sum| sum.is_shared()).count(), 2048);
    assert_eq!(SegmentReader::open(owner.os_id()).unwrap().overflow(), 1);
}

/// Lets two threads go on at the same moment, again and again.
#[derive(Default)]
struct Meeting(AtomicU64);

impl Meeting {
    /// Waits for the other one; the `turn`th time, counted from 1.
    fn meet(&self, turn: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0_u32;
        while self.0.load(Ordering::SeqCst) < turn * 2 {
            spins += 1;
            // The other one may need this processor.
            if spins.is_multiple_of(1000) {
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn of_two_that_ask_for_the_last_place_at_once_at_most_one_gets_it() {
    let mut owner = owner();
    let slabs: Vec<_> = (0..2).map(|number| generation(&mut owner, number).1).collect();
    let (meeting, inside, granted) = (Meeting::default(), AtomicU64::new(0), AtomicU64::new(0));
    let ask = |slab: &ThreadSlab| {
        let sum = slab.sums().sum("gate");
        for round in 0..20_000 {
            meeting.meet(round * 3 + 1);
            let got = u64::from(sum.add_up_to(1));
            inside.fetch_add(got, Ordering::SeqCst);
            meeting.meet(round * 3 + 2);
            assert!(inside.load(Ordering::SeqCst) <= 1, "two got the last place");
            meeting.meet(round * 3 + 3);
            inside.fetch_sub(got, Ordering::SeqCst);
            granted.fetch_add(got, Ordering::SeqCst);
            (0..got).for_each(|_| sum.sub());
        }
    };
    std::thread::scope(|scope| {
        for slab in slabs {
            let ask = &ask;
            scope.spawn(move || ask(&slab));
        }
    });
    assert!(granted.load(Ordering::SeqCst) > 0, "somebody got in");
}

#[test]
fn generations_killed_at_any_moment_leave_nothing_in_a_sum() {
    let mut owner = owner();
    let (_, slab) = generation(&mut owner, 0);
    let sum = slab.sums().sum("gate");
    sum.add();
    for round in 1..=30_u32 {
        let mut killed = Vec::new();
        for part in 0..2 {
            let slot = owner.register(Generation(round * 2 + part), 1).unwrap();
            let mut child = start("enter", owner.os_id(), slot);
            owner.set_pid(slot, child.id());
            child.stderr.take().unwrap().read_exact(&mut [0]).unwrap();
            killed.push((slot, child));
        }
        for _ in 0..round * 997 {
            // Both others may have added one that they are about to take back.
            assert!(sum.total() <= MAX + 2, "more than they may");
        }
        for (slot, mut child) in killed {
            child.kill().unwrap();
            child.wait().unwrap();
            owner.retire(slot).unwrap();
        }
        assert_eq!(sum.total(), 1, "after round {round}");
    }
}

#[test]
fn killed_processes_take_no_token_twice_and_lose_at_most_one_each() {
    let mut owner = owner();
    let (slot, _slab) = generation(&mut owner, 0);
    let bucket = SegmentWorker::open(owner.os_id(), slot).unwrap().bucket("bucket").unwrap();
    let rate = Rate::new(100, 1_000_000_000, 10);
    let (mut told, mut kills) = (0_u64, 0_u64);
    assert!(bucket.take(rate, 10, START).is_ok(), "it begins full");
    for round in 0..4_u32 {
        let mut children = Vec::new();
        for part in 0..3 {
            let slot = owner.register(Generation(10 + round * 3 + part), 1).unwrap();
            let mut child = start("take", owner.os_id(), slot);
            let mut pipe = child.stderr.take().unwrap();
            pipe.read_exact(&mut [0]).unwrap();
            children.push((slot, child, pipe));
        }
        for (slot, mut child, mut pipe) in children {
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            let mut rest = Vec::new();
            pipe.read_to_end(&mut rest).unwrap();
            told += rest.len() as u64;
            owner.retire(slot).unwrap();
        }
    }
    let left = bucket.available(rate, START + 1_000_000_000);
    assert!(told + left <= 10, "{told} told and {left} left of a burst of 10");
    assert!(told + left + kills >= 10, "{told} told, {left} left, {kills} killed");
}

#[test]
fn a_bucket_grants_a_burst_and_then_its_rate() {
    let bucket = Bucket::detached();
    // Not a whole number of ns for each token.
    let rate = Rate::new(3, 1_000_000_000, 7);
    bucket.tune(rate, START);
    assert_eq!(bucket.available(rate, START), 7);
    assert_eq!((0..9).filter(|_| bucket.take(rate, 1, START).is_ok()).count(), 7);
    let wait = bucket.take(rate, 1, START).unwrap_err();
    assert!((333_000_000..334_000_000).contains(&wait), "{wait} ns");
    assert!(bucket.take(rate, 1, START + wait).is_ok(), "as long as it said");
    assert!(bucket.take(rate, 1, START + wait).is_err());
    assert!(bucket.take(rate, 7, START + 10_000_000_000).is_ok(), "all at once");
    assert_eq!(bucket.take(rate, 8, START + 99_000_000_000), Err(u64::MAX), "more than it holds");
}

#[test]
fn a_rate_of_nothing_grants_nothing_and_a_very_slow_one_never_more() {
    let (bucket, rate) = (Bucket::detached(), Rate::new(0, 1_000_000_000, 2));
    assert_eq!(bucket.take(rate, 1, START), Err(u64::MAX));
    assert_eq!(bucket.available(rate, START), 0);
    let (bucket, year) = (Bucket::detached(), 31_536_000_000_000_000);
    let rate = Rate::new(1, 3 * year, 1000);
    let granted = (0..5).filter(|tenth| bucket.take(rate, 1, year / 10 * tenth).is_ok()).count();
    assert!(granted <= 1000, "{granted}");
}

#[test]
fn a_new_rate_does_not_wait_for_what_a_slow_one_left() {
    let bucket = Bucket::detached();
    let (slow, fast) = (Rate::new(1, 3_600_000_000_000, 10), Rate::new(100, 1_000_000_000, 5));
    bucket.tune(slow, START);
    assert!(bucket.take(slow, 10, START).is_ok());
    bucket.tune(slow, START);
    assert!(bucket.take(slow, 1, START).is_err(), "the same rate changes nothing");
    bucket.tune(fast, START);
    assert!(bucket.take(fast, 1, START).is_err(), "and a new one gives nothing at once");
    assert!(bucket.take(fast, 1, START + 10_000_000).is_ok());
}

/// What a thread asks: tokens, and how many ns after its last time.
fn asks() -> impl Strategy<Value = Vec<Vec<(u64, u64)>>> {
    let ask = (1_u64..4, 0_u64..3_000_000);
    prop::collection::vec(prop::collection::vec(ask, 1..60), 2..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn over_any_interval_at_most_a_burst_and_the_rate_are_granted(
        tokens in 1_u64..5000,
        burst in 1_u64..20,
        threads in asks(),
    ) {
        let rate = Rate::new(tokens, 1_000_000_000, burst);
        let mut owner = owner();
        let slots: Vec<_> = (0..2).map(|number| generation(&mut owner, number)).collect();
        let os_id = owner.os_id().to_owned();
        let go = AtomicBool::new(false);
        let mut granted: Vec<(u64, u64)> = std::thread::scope(|scope| {
            let run = |(index, asks): (usize, Vec<(u64, u64)>)| {
                // Threads of two generations; each has its own clock, and they drift apart.
                let (slot, _) = slots.get(index % 2).unwrap();
                let bucket = SegmentWorker::open(&os_id, *slot).unwrap().bucket("b").unwrap();
                let go = &go;
                scope.spawn(move || {
                    while !go.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    let mut now = START;
                    let take = |(tokens, later): (u64, u64)| {
                        now += later;
                        bucket.take(rate, tokens, now).is_ok().then_some((now, tokens))
                    };
                    asks.into_iter().filter_map(take).collect::<Vec<_>>()
                })
            };
            let running: Vec<_> = threads.into_iter().enumerate().map(run).collect();
            go.store(true, Ordering::Release);
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        granted.sort_unstable();
        for (from, (first, _)) in granted.iter().enumerate() {
            let mut sum = 0;
            for (last, tokens_taken) in granted.iter().skip(from) {
                sum += tokens_taken;
                let grown = u128::from(last - first) * u128::from(tokens) / 1_000_000_000;
                prop_assert!(u128::from(sum) <= u128::from(burst) + grown);
            }
        }
    }
}

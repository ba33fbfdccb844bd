//! The segment while its writers and its supervisor are killed: real processes, real SIGKILL.
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
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use baton_contract::{
    generation::Generation,
    shm::{
        EndReason, Geometry, Kind, MetricName, SegmentOwner, SegmentReader, SegmentWorker,
        SlotIndex, Value, opened_metric,
    },
};

const THREADS: u32 = 2;

/// A base id that no other test and no real supervisor has.
fn base_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    2_000_000_000 + std::process::id() % 1_000_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn name(text: &str) -> MetricName {
    MetricName::plain(text)
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
    match role.as_str() {
        "count" => count(&os_id, slot),
        "define" => define(&os_id, slot),
        "retire" => retire(&os_id, slot),
        other => panic!("no role {other}"),
    }
}

/// Counts for ever on two threads, and tells before each step which thread takes it.
fn count(os_id: &str, slot: SlotIndex) {
    let worker = SegmentWorker::open(os_id, slot).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut slab = worker.thread(thread).unwrap();
            scope.spawn(move || {
                let counter = slab.cell(Kind::Counter, &name(&format!("steps of {thread}")));
                let opened = slab.cell(Kind::Counter, &opened_metric());
                let gauge = slab.cell(Kind::Gauge, &name("gauge"));
                let histogram = slab.histogram(&name(&format!("histogram of {thread}")));
                let mut err = std::io::stderr();
                loop {
                    err.write_all(&[u8::try_from(thread).unwrap()]).unwrap();
                    counter.add(1);
                    opened.add(1);
                    gauge.add(1);
                    histogram.record(3);
                }
            });
        }
    });
}

/// Defines the same metrics as everybody else at the same time, and some of its own.
fn define(os_id: &str, slot: SlotIndex) {
    let worker = SegmentWorker::open(os_id, slot).unwrap();
    std::io::stderr().write_all(b"r").unwrap();
    let mut byte = [0];
    std::io::stdin().read_exact(&mut byte).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut slab = worker.thread(thread).unwrap();
            scope.spawn(move || {
                for i in 0..150 {
                    slab.cell(Kind::Counter, &name(&format!("shared {i}"))).add(1);
                    let own = format!("own {} {thread} {i}", slot.0);
                    slab.cell(Kind::Counter, &name(&own)).add(1);
                }
            });
        }
    });
}

/// Retires a generation, then waits to be killed.
fn retire(os_id: &str, slot: SlotIndex) {
    let mut owner = SegmentOwner::adopt(os_id).unwrap();
    std::io::stderr().write_all(b"r").unwrap();
    owner.retire(slot).unwrap();
    std::io::stderr().write_all(b"d").unwrap();
    loop {
        std::thread::park();
    }
}

fn value(reader: &SegmentReader, metric: &str) -> u64 {
    let metrics = reader.snapshot().unwrap();
    let found = metrics.into_iter().find(|found| found.name.name() == metric);
    match found.map(|metric| metric.value) {
        Some(Value::Number(number)) => number,
        Some(Value::Histogram(values)) => values.count(),
        None => 0,
    }
}

#[test]
fn a_killed_writer_loses_at_most_one_step_of_each_thread() {
    let mut owner = SegmentOwner::create(base_id()).unwrap();
    let os_id = owner.os_id().to_owned();
    let reader = SegmentReader::open(&os_id).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&os_id, &stop));
        let mut told = [0_u64; THREADS as usize];
        for round in 0..50_u32 {
            let slot = owner.register(Generation(round), THREADS).unwrap();
            let mut child = start("count", &os_id, slot);
            owner.set_pid(slot, child.id());
            let mut pipe = child.stderr.take().unwrap();
            // An odd number of steps, different each time.
            let mut wanted = u64::from(round * 7919 % 4001) + 10;
            let mut bytes = [0; 4096];
            loop {
                let read = pipe.read(&mut bytes).unwrap();
                for byte in &bytes[..read] {
                    told[usize::from(*byte)] += 1;
                }
                if read == 0 {
                    break;
                }
                let before = wanted;
                wanted = wanted.saturating_sub(read as u64);
                if before > 0 && wanted == 0 {
                    child.kill().unwrap();
                }
            }
            child.wait().unwrap();
            let steps = [value(&reader, "steps of 0"), value(&reader, "steps of 1")];
            owner.retire(slot).unwrap();
            assert_eq!(value(&reader, "gauge"), 0);
            for thread in 0..THREADS as usize {
                let folded = value(&reader, &format!("steps of {thread}"));
                assert_eq!(folded, steps[thread], "the fold is exact");
                let lost = told[thread] - folded;
                assert!(lost <= u64::from(round) + 1, "{lost} lost in {} kills", round + 1);
                let recorded = value(&reader, &format!("histogram of {thread}"));
                assert!(folded - recorded <= u64::from(round) + 1);
            }
            let books = reader.ledger().unwrap();
            assert_eq!(books.opened, books.ended_for(EndReason::Crash));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 0);
    });
}

/// Reads as fast as it can and sees nothing go back; how often it read.
fn watch(os_id: &str, stop: &AtomicBool) -> u64 {
    let reader = SegmentReader::open(os_id).unwrap();
    let (mut last, mut reads) = ([0; 4], 0);
    while !stop.load(Ordering::Relaxed) {
        let names = ["steps of 0", "steps of 1", "histogram of 0", "histogram of 1"];
        let now = names.map(|name| value(&reader, name));
        for (now, last) in now.iter().zip(last) {
            assert!(*now >= last, "{now} after {last}");
        }
        let books = reader.ledger().unwrap();
        assert!(books.ended.iter().sum::<u64>() <= books.opened);
        (last, reads) = (now, reads + 1);
    }
    reads
}

#[test]
fn processes_that_define_the_same_metrics_at_once_add_up() {
    let mut owner = SegmentOwner::create(base_id()).unwrap();
    let os_id = owner.os_id().to_owned();
    let mut children: Vec<Child> = (0..4)
        .map(|generation| {
            let slot = owner.register(Generation(generation), THREADS).unwrap();
            let mut child = start("define", &os_id, slot);
            child.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            child
        })
        .collect();
    for child in &mut children {
        child.stdin.as_mut().unwrap().write_all(b"g").unwrap();
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let metrics = SegmentReader::open(&os_id).unwrap().snapshot().unwrap();
    let number = |prefix: &str, expected: u64| {
        let found = metrics.iter().filter(|metric| metric.name.name().starts_with(prefix));
        found.inspect(|metric| assert_eq!(metric.value, Value::Number(expected))).count()
    };
    assert_eq!(number("shared ", 4 * u64::from(THREADS)), 150);
    assert_eq!(number("own ", 1), 4 * THREADS as usize * 150);
    assert_eq!(number("stats.overflow", 0), 1);
}

#[test]
fn a_supervisor_killed_while_it_folds_can_be_followed_by_another() {
    let geometry = Geometry {
        slots: 4,
        connections: 512,
        escrow: 512,
        entries: 256,
        slabs: 12,
        cells: 64 * 1024,
    };
    let owner = SegmentOwner::create_with(base_id(), geometry).unwrap();
    let os_id = owner.os_id().to_owned();
    let mut owner = owner;
    let reader = SegmentReader::open(&os_id).unwrap();
    for round in 1..=40_u32 {
        let slot = owner.register(Generation(round), 1).unwrap();
        let worker = SegmentWorker::open(&os_id, slot).unwrap();
        let mut slab = worker.thread(0).unwrap();
        for i in 0..100 {
            slab.histogram(&name(&format!("h{i}"))).record(u64::from(round) * 37);
        }
        slab.cell(Kind::Counter, &name("c")).add(1);
        let mut child = start("retire", &os_id, slot);
        let mut pipe = child.stderr.take().unwrap();
        pipe.read_exact(&mut [0]).unwrap();
        for _ in 0..round * 20_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(value(&reader, "c"), u64::from(round), "whatever it had done");
        // It had finished when the row is free.
        if reader.generations().iter().any(|row| row.slot == slot) {
            owner.retire(slot).unwrap();
        }
        assert_eq!(value(&reader, "c"), u64::from(round));
        for i in [0, 50, 99] {
            assert_eq!(value(&reader, &format!("h{i}")), u64::from(round));
        }
        assert!(reader.generations().is_empty());
    }
}

//! The shared-memory segment as its users see it: one process in three roles, and segments that
//! are damaged.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; a failure is the end of the test"
)]

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use baton_contract::{
    generation::{Generation, State},
    shm::{
        ConnectionKind, EndReason, EscrowState, Geometry, Kind, MetricName, SegmentError,
        SegmentOwner, SegmentReader, SegmentWorker, SlotIndex, Value, find, opened_metric,
    },
};
use proptest::prelude::*;

/// A base id that no other test and no real supervisor has.
fn base_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_000_000_000 + std::process::id() % 1_000_000 * 1000 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn small() -> Geometry {
    Geometry { slots: 8, connections: 512, escrow: 512, entries: 128, slabs: 24, cells: 8 * 512 }
}

fn owner() -> SegmentOwner {
    SegmentOwner::create_with(base_id(), small()).unwrap()
}

fn path(os_id: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(os_id)
}

fn numbers(os_id: &str) -> HashMap<String, u64> {
    let metrics = SegmentReader::open(os_id).unwrap().snapshot().unwrap();
    let numbers = metrics.into_iter().filter_map(|metric| match metric.value {
        Value::Number(n) => Some((metric.name.name().to_owned(), n)),
        Value::Histogram(_) => None,
    });
    numbers.collect()
}

fn name(text: &str) -> MetricName {
    MetricName::plain(text)
}

#[test]
fn a_generation_without_shared_memory_counts_in_a_segment_that_nobody_else_sees() {
    let base_id = base_id();
    let worker = SegmentOwner::private(base_id, Generation(7), 2).unwrap();
    worker.thread(0).unwrap().cell(Kind::Counter, &name("requests")).add(2);
    worker.thread(1).unwrap().cell(Kind::Counter, &name("requests")).add(3);
    worker.main_thread().unwrap().cell(Kind::Counter, &name("requests")).add(1);
    let reader = SegmentReader::beside(&worker);
    let found = reader.snapshot().unwrap().into_iter().find(|m| m.name == name("requests"));
    assert_eq!(found.unwrap().value, Value::Number(6));
    let row = reader.generations().pop().unwrap();
    assert_eq!((row.generation, row.state), (Generation(7), State::Serving));
    assert_eq!((row.slot, reader.base_id()), (worker.slot(), base_id));
    worker.reset_counters().unwrap();
    assert!(find(base_id).is_empty(), "there is no file");
}

#[test]
fn connections_that_outlive_their_generation_count_as_migrated_and_the_others_as_crashed() {
    let mut owner = owner();
    let os_id = owner.os_id().to_owned();
    let slot = owner.register(Generation(1), 1).unwrap();
    let worker = SegmentWorker::open(&os_id, slot).unwrap();
    let opened = worker.thread(0).unwrap().cell(Kind::Counter, &opened_metric());
    // Three in escrow, one of them busy, and one that is not.
    opened.add(4);
    let ids: Vec<_> = (0..3).map(|hint| worker.escrow_claim(16, hint).unwrap()).collect();
    assert!(worker.escrow_set(ids[0], EscrowState::Kept));
    assert!(worker.escrow_set(ids[1], EscrowState::Kept));
    // A fourth has ended, which the supervisor does not know yet.
    let ended = worker.escrow_claim(16, 3).unwrap();
    assert!(worker.escrow_set(ended, EscrowState::Ended));
    let held = [ids[0], ids[1], ids[2], ended];
    owner.retire_holding(slot, &held).unwrap();
    let now = numbers(&os_id);
    assert_eq!(now["baton.connections.ended.migrated"], 2);
    assert_eq!(now["baton.connections.ended.crash"], 2);
    let states: Vec<_> = held.iter().map(|id| owner.escrow_state(*id).unwrap().0).collect();

    let (orphan, over) = (EscrowState::Orphan, EscrowState::Ended);
    assert_eq!(states, [orphan, orphan, over, over]);

    // The first adopter dies before it has counted one of them, the second one counts both.
    let first = owner.register(Generation(2), 1).unwrap();
    let worker = SegmentWorker::open(&os_id, first).unwrap();
    let opened = worker.thread(0).unwrap().cell(Kind::Counter, &opened_metric());
    assert!(owner.escrow_give(ids[0], first) && owner.escrow_give(ids[1], first));
    opened.add(1);
    assert!(worker.escrow_is_given(ids[0]) && worker.escrow_book(ids[0]));
    owner.retire_holding(first, &held[..2]).unwrap();
    let now = numbers(&os_id);
    assert_eq!(now["baton.connections.ended.migrated"], 3);
    assert_eq!(now["baton.connections.ended.crash"], 2);
    assert_eq!(now["baton.connections.opened"], 5);
    let second = owner.register(Generation(3), 1).unwrap();
    assert!(owner.escrow_give(ids[0], second) && owner.escrow_give(ids[1], second));
}

#[test]
fn counters_and_histograms_continue_and_gauges_go_with_their_generation() {
    let mut owner = owner();
    let os_id = owner.os_id().to_owned();
    for generation in 0..20 {
        let slot = owner.register(Generation(generation), 2).unwrap();
        let worker = SegmentWorker::open(&os_id, slot).unwrap();
        for thread in 0..2 {
            let mut slab = worker.thread(thread).unwrap();
            slab.cell(Kind::Counter, &name("c")).add(3);
            slab.cell(Kind::Gauge, &name("g")).add(5);
            slab.histogram(&name("h")).record(25);
        }
        worker.main_thread().unwrap().cell(Kind::LocalGauge, &name("l")).set(7);
        let now = numbers(&os_id);
        assert_eq!(now["c"], u64::from(generation + 1) * 6);
        assert_eq!((now["g"], now["l"]), (10, 7));
        owner.retire(slot).unwrap();
        let now = numbers(&os_id);
        assert_eq!(now["c"], u64::from(generation + 1) * 6);
        assert_eq!((now["g"], now["l"]), (0, 0));
    }
    let metrics = SegmentReader::open(&os_id).unwrap().snapshot().unwrap();
    let histogram = metrics.iter().find(|metric| metric.name.name() == "h").unwrap();
    let Value::Histogram(values) = &histogram.value else { panic!("a histogram") };
    assert_eq!((values.count(), values.sum), (40, 1000));
    assert_eq!((values.at_most(24), values.at_most(25)), (0, 40));
    assert_eq!(values.quantile(0.5), Some(25));
}

#[test]
fn a_local_gauge_is_that_of_the_newest_serving_generation() {
    let mut owner = owner();
    let os_id = owner.os_id().to_owned();
    let mut slots = Vec::new();
    for (generation, value) in [(0, 11), (1, 22)] {
        let slot = owner.register(Generation(generation), 1).unwrap();
        let worker = SegmentWorker::open(&os_id, slot).unwrap();
        worker.main_thread().unwrap().cell(Kind::LocalGauge, &name("l")).set(value);
        slots.push(slot);
    }
    owner.set_state(slots[0], State::Serving);
    assert_eq!(numbers(&os_id)["l"], 11, "the new one does not serve yet");
    owner.set_state(slots[1], State::Serving);
    owner.set_state(slots[0], State::Draining);
    assert_eq!(numbers(&os_id)["l"], 22);
}

#[test]
fn the_ledger_balances_when_a_generation_dies_with_open_connections() {
    let mut owner = owner();
    let os_id = owner.os_id().to_owned();
    let slot = owner.register(Generation(0), 1).unwrap();
    owner.set_pid(slot, std::process::id());
    let worker = SegmentWorker::open(&os_id, slot).unwrap();
    let mut slab = worker.thread(0).unwrap();
    slab.cell(Kind::Counter, &opened_metric()).add(10);
    slab.cell(Kind::Counter, &EndReason::Client.metric()).add(4);
    slab.cell(Kind::Counter, &EndReason::Migrated.metric()).add(1);
    slab.cell(Kind::Gauge, &ConnectionKind::Tcp.metric()).set(5);
    let reader = SegmentReader::open(&os_id).unwrap();
    let row = reader.generations().remove(0);
    assert_eq!((row.ledger.open(), row.open), (5, [0, 0, 5]));
    assert_eq!((row.pid, row.threads, row.state), (std::process::id(), 1, State::Starting));
    owner.retire(slot).unwrap();
    let books = reader.ledger().unwrap();
    assert_eq!((books.opened, books.open()), (10, 0));
    assert_eq!(books.ended_for(EndReason::Crash), 5);
    assert!(reader.generations().is_empty());
}

#[test]
fn a_row_says_what_the_supervisor_and_the_worker_wrote() {
    let mut owner = owner();
    let slot = owner.register(Generation(3), 4).unwrap();
    owner.set_state(slot, State::Draining);
    owner.set_drain_deadline(slot, 123);
    owner.set_config_hash(slot, 456);
    owner.set_error(slot, &format!("{}é", "x".repeat(255)));
    let worker = SegmentWorker::open(owner.os_id(), slot).unwrap();
    worker.heartbeat(789);
    assert_eq!((owner.heartbeat_of(slot), worker.drain_deadline()), (789, 123));
    let row = SegmentReader::open(owner.os_id()).unwrap().generations().remove(0);
    assert_eq!((row.generation, row.state, row.threads), (Generation(3), State::Draining, 4));
    assert_eq!((row.drain_deadline_ms, row.config_hash, row.heartbeat_ms), (123, 456, 789));
    assert_eq!(row.last_error, "x".repeat(255));
}

#[test]
fn counters_begin_again_on_demand_and_the_ledger_goes_on() {
    let mut owner = owner();
    let os_id = owner.os_id().to_owned();
    let slot = owner.register(Generation(0), 1).unwrap();
    let worker = SegmentWorker::open(&os_id, slot).unwrap();
    let mut slab = worker.thread(0).unwrap();
    let counter = slab.cell(Kind::Counter, &name("c"));
    counter.add(5);
    slab.cell(Kind::Counter, &opened_metric()).add(2);
    worker.reset_counters().unwrap();
    assert_eq!(numbers(&os_id)["c"], 0);
    counter.add(3);
    assert_eq!(numbers(&os_id)["c"], 3);
    owner.retire(slot).unwrap();
    assert_eq!(numbers(&os_id)["c"], 3);
    assert_eq!(numbers(&os_id)["baton.connections.opened"], 2);
}

#[test]
fn what_has_no_room_is_counted_and_works_for_itself() {
    let geometry =
        Geometry { slots: 2, connections: 512, escrow: 512, entries: 64, slabs: 6, cells: 512 };
    let mut owner = SegmentOwner::create_with(base_id(), geometry).unwrap();
    let os_id = owner.os_id().to_owned();
    let slot = owner.register(Generation(0), 1).unwrap();
    let worker = SegmentWorker::open(&os_id, slot).unwrap();
    let mut slab = worker.thread(0).unwrap();
    slab.histogram(&name("too large for this segment")).record(1);
    slab.cell(Kind::Counter, &name(&"long".repeat(1000))).add(1);
    for i in 0..100 {
        let cell = slab.cell(Kind::Counter, &name(&format!("c{i}")));
        cell.add(1);
        assert_eq!(slab.cell(Kind::Counter, &name(&format!("c{i}"))).get(), 1);
    }
    drop(worker.thread(7).unwrap());
    assert!(matches!(worker.thread(0), Err(SegmentError::ThreadTaken(0))));
    // No slabs are left for this one, and no rows for the next.
    let second = owner.register(Generation(1), 1).unwrap();
    SegmentWorker::open(&os_id, second).unwrap().main_thread().unwrap();
    assert!(matches!(owner.register(Generation(2), 1), Err(SegmentError::TableFull(2))));
    let overflow = numbers(&os_id)["stats.overflow"];
    assert!(overflow >= 2 + (100 - 53) + 3, "{overflow}");
    owner.retire(second).unwrap();
    owner.retire(slot).unwrap();
    assert!(owner.retire(slot).is_err());
}

#[test]
fn the_name_goes_with_its_owner_and_stale_ones_are_swept() {
    let base = base_id();
    let owner = SegmentOwner::create_with(base, small()).unwrap();
    let os_id = owner.os_id().to_owned();
    assert_eq!(find(base), std::slice::from_ref(&os_id));
    assert_eq!(SegmentOwner::sweep_stale(base), 0, "its supervisor lives");

    // The same segment under the name of a process that never lived.
    let parts: Vec<&str> = os_id.split('-').collect();
    let dead = format!("baton-{base}-{}-{}-4194305-00000000000000ff", parts[2], parts[3]);
    File::create(path(&dead)).unwrap();
    assert_eq!(find(base), [os_id.clone(), dead]);
    assert_eq!(SegmentOwner::sweep_stale(base), 1);
    drop(owner);
    assert!(find(base).is_empty());
    assert!(matches!(SegmentReader::open(&os_id), Err(SegmentError::Open { .. })));
}

#[test]
fn the_usual_segment_takes_little_memory() {
    use std::os::unix::fs::MetadataExt;
    let mut owner = SegmentOwner::create(base_id()).unwrap();
    let slot = owner.register(Generation(0), 4).unwrap();
    let worker = SegmentWorker::open(owner.os_id(), slot).unwrap();
    for thread in 0..4 {
        let mut slab = worker.thread(thread).unwrap();
        for i in 0..200 {
            slab.cell(Kind::Counter, &name(&format!("http.ingress.counter_number_{i}"))).add(1);
        }
        slab.histogram(&name("h")).record(7);
    }
    let bytes = fs::metadata(path(owner.os_id())).unwrap().blocks() * 512;
    assert!(bytes < 1024 * 1024, "{bytes}");
}

/// What a sequence of events does.
#[derive(Clone, Debug)]
enum Step {
    Register,
    Retire(usize),
    Count { generation: usize, metric: usize, by: u64 },
    Record { generation: usize, value: u64 },
    Adopt,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Register),
        1 => any::<usize>().prop_map(Step::Retire),
        6 => (any::<usize>(), 0..40_usize, 0..1000_u64)
            .prop_map(|(generation, metric, by)| Step::Count { generation, metric, by }),
        3 => (any::<usize>(), 0..20_000_000_u64)
            .prop_map(|(generation, value)| Step::Record { generation, value }),
        1 => Just(Step::Adopt),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_segment_counts_like_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let mut owner = owner();
        let os_id = owner.os_id().to_owned();
        let reader = SegmentReader::open(&os_id).unwrap();
        let (mut live, mut model) = (Vec::new(), BTreeMap::<String, u64>::new());
        let (mut records, mut sum, mut number) = (0, 0_u64, 0);
        for step in steps {
            match step {
                Step::Register if live.len() < 6 => {
                    let slot = owner.register(Generation(number), 1).unwrap();
                    let worker = SegmentWorker::open(&os_id, slot).unwrap();
                    live.push((slot, worker.thread(0).unwrap()));
                    number += 1;
                }
                Step::Retire(index) if !live.is_empty() => {
                    let (slot, _) = live.remove(index % live.len());
                    owner.retire(slot).unwrap();
                }
                Step::Count { generation, metric, by } if !live.is_empty() => {
                    let index = generation % live.len();
                    let metric = format!("metric {metric}");
                    live[index].1.cell(Kind::Counter, &name(&metric)).add(by);
                    *model.entry(metric).or_default() += by;
                }
                Step::Record { generation, value } if !live.is_empty() => {
                    let index = generation % live.len();
                    live[index].1.histogram(&name("histogram")).record(value);
                    (records, sum) = (records + 1, sum + value);
                }
                Step::Adopt => owner = {
                    owner.leave();
                    SegmentOwner::adopt(&os_id).unwrap()
                },
                Step::Register | Step::Retire(_) | Step::Count { .. } | Step::Record { .. } => {}
            }
            for metric in reader.snapshot().unwrap() {
                match metric.value {
                    Value::Number(n) => prop_assert_eq!(
                        n, model.get(metric.name.name()).copied().unwrap_or(0)
                    ),
                    Value::Histogram(values) => {
                        prop_assert_eq!((values.count(), values.sum), (records, sum));
                    }
                }
            }
        }
    }

    #[test]
    fn random_bytes_anywhere_are_refused_or_read_without_harm(
        damage in prop::collection::vec((0..20_000_u64, any::<u64>()), 1..40),
        repair in any::<bool>(),
    ) {
        let mut owner = owner();
        let os_id = owner.os_id().to_owned();
        let slot = owner.register(Generation(0), 2).unwrap();
        let worker = SegmentWorker::open(&os_id, slot).unwrap();
        let mut slab = worker.thread(0).unwrap();
        for i in 0..20 {
            slab.cell(Kind::Counter, &name(&format!("c{i}"))).add(1);
        }
        let file = OpenOptions::new().read(true).write(true).open(path(&os_id)).unwrap();
        for (word, value) in damage {
            // Mostly numbers that look like something.
            let value = if value % 4 == 0 { value } else { value % 600 };
            file.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
        }
        if repair {
            let mut header = [0; 120];
            file.read_exact_at(&mut header, 0).unwrap();
            header[..8].copy_from_slice(b"BATONSHM");
            header[8..16].copy_from_slice(&(1_u64 << 32).to_le_bytes());
            file.write_all_at(&header, 0).unwrap();
            let crc = u64::from(crc32fast::hash(&header));
            file.write_all_at(&crc.to_le_bytes(), 120).unwrap();
        }
        use_all(&os_id);
    }

    #[test]
    fn a_segment_that_was_cut_off_is_refused(bytes in 0..4_000_000_u64) {
        let owner = owner();
        let file = OpenOptions::new().write(true).open(path(owner.os_id())).unwrap();
        let whole = file.metadata().unwrap().len();
        // The owner touches nothing any more, so the cut cannot hit it.
        file.set_len(bytes.min(whole - 1)).unwrap();
        prop_assert!(SegmentReader::open(owner.os_id()).is_err());
    }
}

/// Everything every role does with a segment.
fn use_all(os_id: &str) {
    if let Ok(reader) = SegmentReader::open(os_id) {
        // Only that they return.
        reader.snapshot().ok();
        reader.ledger().ok();
        reader.generations();
    }
    for slot in 0..9 {
        if let Ok(worker) = SegmentWorker::open(os_id, SlotIndex(slot)) {
            if let Ok(mut slab) = worker.thread(0) {
                slab.cell(Kind::Counter, &name("c1")).add(1);
                slab.cell(Kind::Counter, &name("new")).add(1);
                slab.histogram(&name("new")).record(1);
            }
            worker.reset_counters().ok();
        }
    }
    if let Ok(mut owner) = SegmentOwner::adopt(os_id) {
        for slot in owner.rows().into_iter().map(|row| row.slot) {
            owner.retire(slot).ok();
        }
        owner.register(Generation(9), 3).ok();
    }
}

#[test]
fn a_segment_of_another_layout_or_program_is_refused() {
    let owner = owner();
    let file = OpenOptions::new().write(true).open(path(owner.os_id())).unwrap();
    file.write_all_at(&(99_u64 << 32).to_le_bytes(), 8).unwrap();
    let refused = SegmentReader::open(owner.os_id());
    assert!(matches!(refused, Err(SegmentError::Layout { found: 99, known: 2 })));
    file.write_all_at(b"NOTBATON", 0).unwrap();
    assert!(matches!(SegmentReader::open(owner.os_id()), Err(SegmentError::Alien(_))));
    assert!(matches!(SegmentReader::open("baton-there-is-none"), Err(SegmentError::Open { .. })));
}

#[test]
fn a_segment_in_a_memory_file_is_opened_by_its_name() {
    let base_id = base_id();
    let mut owner = SegmentOwner::in_memory_file(base_id).unwrap();
    assert_eq!(find(base_id), Vec::<String>::new(), "nothing is left behind");
    let os_id = owner.os_id().to_owned();
    for value in [3, 4] {
        let slot = owner.register(Generation(value), 1).unwrap();
        let worker = SegmentWorker::open(&os_id, slot).unwrap();
        let mut thread = worker.thread(0).unwrap();
        thread.cell(Kind::Counter, &name("things")).add(u64::from(value));
        owner.retire(slot).unwrap();
    }
    assert_eq!(numbers(&os_id).get("things"), Some(&7));
    let epoch = owner.epoch();
    owner.keep_over_exec(true).unwrap();
    drop(owner);
    drop(SegmentOwner::reopen(&os_id, epoch).unwrap());
    assert_eq!(numbers(&os_id).get("things"), Some(&7));
}

#[test]
fn a_memory_file_that_is_no_segment_is_refused_whatever_its_length() {
    let file = tempfile::tempfile().unwrap();
    let os_id = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    for length in [0, 1, 7, 8, 4095, 4096, 4097, 1 << 32] {
        file.set_len(length).unwrap();
        let error = SegmentReader::open(&os_id).unwrap_err();
        assert!(matches!(error, SegmentError::Alien(_)), "{length}: {error}");
    }
    let owner = SegmentOwner::in_memory_file(base_id()).unwrap();
    let whole = OpenOptions::new().write(true).open(owner.os_id()).unwrap();
    assert!(whole.set_len(4096).is_err(), "nobody can cut it off");
    let error = SegmentReader::open("/proc/1/fd/1000000").unwrap_err();
    assert!(matches!(error, SegmentError::MemoryFile { .. }), "{error}");
}

//! A segment outlives its supervisor: it is found, taken over, and its numbers go on, also in another
//! segment.
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure is the end of the test")]

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use baton_contract::{
    generation::{Generation, State},
    shm::{
        EndReason, Geometry, Kind, MetricName, SegmentOwner, SegmentReader, SegmentWorker, Totals,
        Value, find, opened_metric,
    },
};

/// Where the supervisors of these tests are found.
const HOME: u64 = 7;
/// Set in the process that plays the supervisor that dies.
const DIES: &str = "BATON_TEST_DIES";

/// A base id that no other test and no real supervisor has.
fn base_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    2_000_000_000 + std::process::id() % 1_000_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn small() -> Geometry {
    Geometry { slots: 8, connections: 512, escrow: 512, entries: 256, slabs: 24, cells: 8 * 512 }
}

fn name(text: &str) -> MetricName {
    MetricName::plain(text)
}

#[test]
fn only_the_segment_of_a_dead_supervisor_of_the_same_place_is_taken_over() {
    if let Some(base_id) = std::env::var(DIES).ok().and_then(|text| text.parse().ok()) {
        let mut owner = SegmentOwner::create_with(base_id, small()).unwrap();
        owner.set_origin(HOME, (11, 22));
        let slot = owner.register(Generation(4), 1).unwrap();
        owner.set_pid(slot, std::process::id());
        owner.set_state(slot, State::Serving);
        assert!(SegmentOwner::adoptable(base_id, HOME).is_empty(), "its supervisor lives");
        std::process::abort();
    }
    let base_id = base_id();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "only_the_segment_of_a_dead_supervisor_of_the_same_place_is_taken_over"])
        .env(DIES, base_id.to_string())
        .status()
        .unwrap();
    assert!(!status.success());
    let names = find(base_id);
    assert_eq!(names.len(), 1, "it was left behind");
    assert!(SegmentOwner::adoptable(base_id, HOME + 1).is_empty(), "another place");
    assert!(SegmentOwner::left_by_this_process(base_id, HOME).is_empty());
    assert_eq!(SegmentOwner::adoptable(base_id, HOME), names);
    let mut owner = SegmentOwner::adopt(&names[0]).unwrap();
    assert!(SegmentOwner::adoptable(base_id, HOME).is_empty(), "it has a supervisor again");
    assert_eq!(SegmentOwner::left_by_this_process(base_id, HOME), names);
    assert_eq!((owner.epoch(), owner.next_generation(), owner.started()), (2, 5, (11, 22)));
    let rows = owner.rows();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].generation, rows[0].state), (Generation(4), Some(State::Serving)));
    assert!(!rows[0].lives);
    owner.retire(rows[0].slot).unwrap();
    assert!(owner.rows().is_empty());
}

#[test]
fn whoever_raised_the_epoch_last_commands() {
    let mut first = SegmentOwner::create_with(base_id(), small()).unwrap();
    let os_id = first.os_id().to_owned();
    let slot = first.register(Generation(0), 1).unwrap();
    let worker = SegmentWorker::open(&os_id, slot).unwrap();
    assert_eq!((worker.command_epoch(), worker.commander().pid), (1, std::process::id()));
    assert!(first.commands());
    let second = SegmentOwner::adopt(&os_id).unwrap();
    assert!(!first.commands() && second.commands());
    assert_eq!(worker.command_epoch(), second.epoch());
    assert!(SegmentOwner::reopen(&os_id, first.epoch()).is_err(), "its time is over");
    let again = SegmentOwner::reopen(&os_id, second.epoch()).unwrap();
    again.leave();
    first.leave();
    assert_eq!(find_of(&os_id), 1, "the name stays for the one that commands");
    drop(second);
    assert_eq!(find_of(&os_id), 0);
}

fn find_of(os_id: &str) -> usize {
    usize::from(std::path::Path::new("/dev/shm").join(os_id).exists())
}

#[test]
fn another_segment_begins_with_all_numbers_so_far() {
    let mut old = SegmentOwner::create_with(base_id(), small()).unwrap();
    old.counter(&name("baton.supervisor.reload_success")).set(3);
    let slot = old.register(Generation(0), 1).unwrap();
    let worker = SegmentWorker::open(old.os_id(), slot).unwrap();
    let mut slab = worker.thread(0).unwrap();
    slab.cell(Kind::Counter, &name("c")).add(40);
    worker.reset_counters().unwrap();
    slab.cell(Kind::Counter, &name("c")).add(5);
    slab.cell(Kind::Gauge, &name("g")).add(5);
    slab.cell(Kind::Counter, &opened_metric()).add(9);
    slab.cell(Kind::Counter, &EndReason::Client.metric()).add(7);
    slab.histogram(&name("h")).record(25);
    let text = serde_json::to_string(&old.totals().unwrap()).unwrap();

    let mut new = SegmentOwner::create_with(base_id(), small()).unwrap();
    new.begin_with(serde_json::from_str::<Totals>(&text).unwrap()).unwrap();
    let reader = SegmentReader::open(new.os_id()).unwrap();
    let ledger = reader.ledger().unwrap();
    assert_eq!((ledger.opened, ledger.ended_for(EndReason::Client)), (7, 7), "nothing is open");
    let metrics = reader.snapshot().unwrap();
    let value = |wanted: &str| {
        metrics.iter().find(|metric| metric.name == name(wanted)).map(|metric| &metric.value)
    };
    assert_eq!(value("c"), Some(&Value::Number(5)));
    assert_eq!((value("g"), value("baton.supervisor.reload_success")), (None, None));
    let Some(Value::Histogram(histogram)) = value("h") else { unreachable!("a histogram") };
    assert_eq!((histogram.sum, histogram.count()), (25, 1));
}

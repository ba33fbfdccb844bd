//! The judgement of late threads, with what the kernel tells and without it; not real threads, which
//! `threads/tests.rs` has.

use super::*;
use crate::{activity::Work, server::books::Books};

const LIMIT: u64 = 3000;

#[expect(clippy::unnecessary_wraps, reason = "what `Task::look` returns")]
fn task(doing: Doing, used_ms: u64, switches: u64) -> Option<Task> {
    Some(Task { doing, used: Duration::from_millis(used_ms), switches })
}

fn watched() -> Watched {
    let signs = Arc::new(Signs::default());
    signs.pulse.begin();
    Watched::new(1, &signs, &Opinion::good())
}

/// Looks at a thread without a pulse each 250 ms from its last one on. `seen` says what the kernel
/// tells at that time. When it is blamed, and for what.
fn blamed(watched: &Watched, seen: impl Fn(u64) -> Option<Task>) -> Option<(u64, Fault)> {
    let looks = (250..60_000).step_by(250);
    looks.into_iter().find_map(|now| {
        let fault = watched.judge(now, LIMIT, || seen(now));
        fault.map(|fault| (now, fault))
    })
}

#[test]
fn a_thread_that_uses_a_processor_without_a_pulse_spins() {
    let found = blamed(&watched(), |now| task(Doing::Runs, now, 4));
    assert_eq!(found, Some((3250, Fault::Spins)));
    // Half of a processor is left for it.
    let found = blamed(&watched(), |now| task(Doing::Runs, now / 2, now));
    assert_eq!(found, Some((5250, Fault::Spins)));
}

#[test]
fn a_thread_that_waits_and_is_not_woken_hangs() {
    let found = blamed(&watched(), |_| task(Doing::Waits, 10, 4));
    assert_eq!(found, Some((3250, Fault::Hangs)));
}

#[test]
fn a_thread_without_a_processor_is_not_blamed() {
    // Not scheduled at all, or now and then for a moment.
    assert_eq!(blamed(&watched(), |_| task(Doing::Runs, 10, 4)), None);
    assert_eq!(blamed(&watched(), |now| task(Doing::Runs, 10 + now / 100, now / 500)), None);
    // It waits for memory from a disk, again and again.
    assert_eq!(blamed(&watched(), |now| task(Doing::Waits, 10, now / 500)), None);
    // Somebody stopped it, or all of the process.
    assert_eq!(blamed(&watched(), |_| task(Doing::Stopped, 10, 4)), None);
}

#[test]
fn a_thread_that_was_stopped_gets_a_new_chance() {
    let watched = watched();
    let found = blamed(&watched, |now| match now {
        0..20_000 => task(Doing::Stopped, 10, 4),
        _ => task(Doing::Waits, 10, 5),
    });
    assert_eq!(found, Some((22_000, Fault::Hangs)));
}

#[test]
fn a_main_thread_that_was_not_there_does_not_know_for_how_long_others_wait() {
    let watched = watched();
    let hangs = || task(Doing::Waits, 10, 4);
    assert_eq!(watched.judge(1250, LIMIT, hangs), None);
    watched.forgive(60_000);
    assert_eq!(watched.judge(60_000, LIMIT, hangs), None);
    assert_eq!(watched.judge(61_000, LIMIT, hangs), None);
    assert_eq!(watched.judge(62_000, LIMIT, hangs), Some(Fault::Hangs));
}

#[test]
fn without_the_word_of_the_kernel_a_thread_is_given_more_time() {
    assert_eq!(blamed(&watched(), |_| None), Some((15_250, Fault::Hangs)));
}

#[test]
fn a_pulse_ends_the_blame() {
    let watched = watched();
    assert!(blamed(&watched, |now| task(Doing::Runs, now, 4)).is_some());
    watched.opinion.fault.set(Some(Fault::Spins));
    let spins = |now| move || task(Doing::Runs, now, 4);
    assert_eq!(watched.judge(9000, LIMIT, spins(9000)), Some(Fault::Spins));
    watched.signs.pulse.show(&Books::default(), 9000);
    assert_eq!(watched.judge(9250, LIMIT, spins(9250)), None);
}

#[test]
fn the_supervisor_is_told_what_the_thread_began_last() {
    let watched = watched();
    assert_eq!(watched.report(), None);
    watched.signs.activity.begin_for(Work::Exchange, (1 << 48) + 9);
    watched.signs.pulse.show(&Books { opened: 5, ..Books::default() }, mono_ms());
    watched.opinion.fault.set(Some(Fault::Spins));
    let report = watched.report().unwrap();
    assert_eq!((report.thread, report.connections), (1, 5));
    assert!(report.text.starts_with("worker thread 1 spins for "), "{}", report.text);
    let began = "; it began last: request and response of connection 281474976710665";
    assert!(report.text.ends_with(began), "{}", report.text);
}

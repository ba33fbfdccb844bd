//! How the benchmarks measure: the best of many rounds, in nanoseconds of one call. The best one is
//! the one that was disturbed least. Not a benchmark itself; each one includes it as a module.

use baton_worker::clock;

/// Rounds of each case.
const ROUNDS: usize = 30;
/// What a round takes about, in ns: long enough for the clock, short enough to be undisturbed.
const ROUND_NS: u128 = 2_000_000;
/// Most calls of a round.
const CALLS_MAX: u128 = 1_000_000;

/// Calls `work` in rounds and prints what one call took in the best of them.
pub(crate) fn measure(name: &str, mut work: impl FnMut()) {
    let mut time = |calls: u32| {
        let start = clock::now();
        (0..calls).for_each(|_| work());
        start.elapsed()
    };
    let once = time(100).as_nanos() / 100;
    let calls = u32::try_from((ROUND_NS / once.max(1)).clamp(1, CALLS_MAX)).unwrap_or(1);
    let best = (0..ROUNDS).map(|_| time(calls)).min().unwrap_or_default();
    println!("{name:<58} {:>9.1} ns", best.as_secs_f64() * 1e9 / f64::from(calls));
}

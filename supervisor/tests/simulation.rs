//! The core of the supervisor in a world with a virtual clock, seeded faults and an eye on every
//! action. The same seed is the same run; a failure prints its seed and the last steps.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::struct_excessive_bools,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail"
)]

#[path = "simulation/rules.rs"]
mod rules;
#[path = "simulation/world.rs"]
mod world;

use world::World;

/// Runs in the normal tests. `BATON_SIMULATION_SEEDS` asks for another number.
const SEEDS: u64 = 512;

#[test]
fn invariants_hold_whatever_workers_and_people_do() {
    let seeds = std::env::var("BATON_SIMULATION_SEEDS").ok().and_then(|text| text.parse().ok());
    let mut seen = rules::Seen::default();
    for seed in 0..seeds.unwrap_or(SEEDS) {
        let mut world = World::new(seed);
        if let Err(error) = world.run() {
            panic!("seed {seed}: {error}\n{}", world.trace());
        }
        seen.add(&world.seen());
    }
    // A simulation in which nothing happens proves nothing.
    assert!(seen.everything(), "some situations never came up: {seen:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let trace = |seed| {
        let mut world = World::new(seed);
        world.run().expect("a good run");
        world.trace()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

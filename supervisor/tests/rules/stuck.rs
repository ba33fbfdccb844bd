//! Generations with threads that do not get on.

use std::time::Duration;

use baton_contract::{
    generation::State,
    message::{DrainStrategy, NeedListeners, Ready, Released, Status, StuckThread, ToWorker},
    version::ProtoRange,
};
use baton_supervisor::state::{
    Policy,
    action::{Action, Kill},
    event::Event,
};

use super::{Bench, G0, G1, hello, sent, spec};

/// STATUS of a worker with a stuck thread, and so many connections of its other threads.
fn stuck(served: u64) -> Status {
    let text = "worker thread 1 spins for 3 s".to_owned();
    let thread = StuckThread { thread: 1, for_ms: 3000, connections: 2, text };
    Status { connections: served + 2, served, stuck: vec![thread], ..Status::default() }
}

#[test]
fn a_generation_with_a_stuck_thread_is_replaced_and_killed_when_the_others_are_done() {
    let policy = Policy { drain_strategy: DrainStrategy::Gradual, ..Policy::default() };
    let mut bench = Bench::serving(policy, &[80]);
    bench.say(G0, stuck(3));
    bench.step(Event::Tick);
    assert!(bench.last.iter().any(|a| matches!(a, Action::Spawn { generation: G1, .. })));
    bench.step(Event::Spawned { generation: G1, pid: 101 });
    bench.say(G1, hello(ProtoRange::ours()));
    bench.say(G1, NeedListeners { listeners: vec![spec(80)], last: true, request: 0 });
    bench.step(Event::Bound { generation: G1, result: Ok(()) });
    bench.say(G1, Ready::default());
    bench.step(Event::Listening { generation: G1, result: Ok(()) });
    let (_, take) = bench.sent(G1, "TAKE");
    bench.step(Event::Answered { generation: G1, command: take, result: Ok(()) });
    // It cannot come back, so its connections need not wait for the end of the probation.
    let (_, pause) = bench.sent(G0, "PAUSE");
    let (drain, _) = bench.sent(G0, "DRAIN");
    assert!(matches!(drain, ToWorker::Drain(drain) if drain.strategy == DrainStrategy::Migrate));
    bench.step(Event::Answered { generation: G0, command: pause, result: Ok(()) });
    let killed = |actions: &[Action]| {
        let kill = Action::Signal { generation: G0, signal: Kill::Kill };
        actions.contains(&kill)
    };
    assert!(!killed(&bench.pass(Duration::from_secs(5))), "others have connections still");
    bench.say(G0, stuck(0));
    assert!(killed(&bench.pass(Duration::from_secs(1))));
    assert_eq!(bench.core.serving(), Some(G1));
}

#[test]
fn the_connections_of_working_threads_keep_a_replaced_generation_for_half_a_minute() {
    let mut bench = Bench::serving(Policy::default(), &[80]);
    bench.reload(G0, G1, 1, &[80]);
    bench.say(G0, stuck(3));
    let kill = Action::Signal { generation: G0, signal: Kill::Kill };
    assert!(!bench.pass(Duration::from_secs(29)).contains(&kill));
    assert!(bench.pass(Duration::from_secs(2)).contains(&kill));
}

#[test]
fn a_stuck_generation_lives_until_the_queues_of_removed_listeners_are_empty() {
    let mut bench = Bench::serving(Policy::default(), &[80, 81]);
    bench.reload(G0, G1, 1, &[80]);
    bench.say(G0, stuck(0));
    let kill = Action::Signal { generation: G0, signal: Kill::Kill };
    assert!(!bench.pass(Duration::from_secs(5)).contains(&kill));
    bench.say(G0, Released { keys: vec![spec(81).key] });
    assert!(bench.pass(Duration::from_secs(1)).contains(&kill));
}

#[test]
fn a_stuck_thread_on_probation_rolls_back_and_its_generation_drains() {
    let mut bench = Bench::serving(Policy::default(), &[80]);
    bench.reload(G0, G1, 1, &[80]);
    bench.say(G1, stuck(3));
    bench.step(Event::Tick);
    bench.sent(G0, "RESUME");
    bench.sent(G1, "DRAIN");
    assert!(sent(&bench.last, G1, "STOP").is_none(), "its other threads serve still");
    assert_eq!(bench.core.serving(), Some(G0));
    // A thread that gets on again changes nothing more.
    bench.say(G1, Status::default());
    assert_eq!(bench.state(G1), Some(State::Draining));
}

#[test]
fn a_thread_that_gets_on_again_in_time_is_forgiven() {
    let mut bench = Bench::serving(Policy::default(), &[80]);
    bench.say(G0, stuck(3));
    bench.say(G0, Status::default());
    let actions = bench.pass(Duration::from_secs(20));
    assert!(!actions.iter().any(|action| matches!(action, Action::Spawn { .. })));
}

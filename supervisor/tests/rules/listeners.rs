//! Listeners that are given up or removed.

use baton_contract::{
    control::Reload,
    generation::State,
    listener_key::ListenerKey,
    message::{DrainListeners, Released, ToWorker},
};
use baton_supervisor::state::{Policy, action::Action, event::Event};

use super::{Bench, G0, G1, G2, key, sent};

/// The listeners that were named to `Action::Deafen` in the last step.
fn deafened(bench: &Bench) -> Vec<ListenerKey> {
    let keys = bench.last.iter().filter_map(|action| match action {
        Action::Deafen(keys) => Some(keys.clone()),
        _ => None,
    });
    keys.flatten().collect()
}

#[test]
fn listeners_that_are_given_up_are_closed_when_nobody_has_them() {
    let mut bench = Bench::serving(Policy::default(), &[1, 2]);
    bench.say(G0, DrainListeners { keys: vec![key(2), key(9)], removed: false });
    assert_eq!(deafened(&bench), [key(2)], "it has no other");
    let (ToWorker::Release(release), _) = bench.sent(G0, "RELEASE") else { unreachable!() };
    assert_eq!(release.keys, [key(2)]);
    bench.say(G0, Released { keys: vec![key(2)] });
    assert!(bench.last.contains(&Action::Release(vec![key(2)])), "{:?}", bench.last);
    let report = bench.core.report(bench.now);
    assert_eq!(report.listeners, [key(1).to_string()]);
    let row = report.generations.first().expect("a generation");
    let drained = [key(2), key(9)].map(|key| key.to_string());
    assert_eq!((row.state, row.drained.as_slice()), (State::Serving, &drained[..]));
    bench.say(G0, DrainListeners { keys: vec![key(2)], removed: false });
    assert!(bench.last.is_empty(), "said again: {:?}", bench.last);
    bench.reload(G0, G1, 1, &[1, 2]);
    let report = bench.core.report(bench.now);
    assert_eq!(report.listeners.len(), 2, "the next generation binds it anew");
    let changes = report.last_reload.expect("a reload").listeners;
    assert_eq!((changes.kept, changes.added), (1, vec![key(2).to_string()]));
}

#[test]
fn listeners_that_are_given_up_end_the_probation_and_older_copies() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1, 2]);
    bench.reload(G0, G1, 1, &[1, 2]);
    bench.pass(policy.probation);
    assert_eq!(bench.state(G0), Some(State::Draining));
    bench.reload(G1, G2, 2, &[1, 2]);
    bench.say(G2, DrainListeners { keys: vec![key(1)], removed: false });
    for older in [G0, G1] {
        let (ToWorker::Drain(drain), _) = bench.sent(older, "DRAIN") else { unreachable!() };
        assert_eq!(drain.removed, [key(1)], "generation {older}");
    }
    for generation in [G0, G1] {
        bench.say(generation, Released { keys: vec![key(1)] });
        assert!(!bench.last.iter().any(|action| matches!(action, Action::Release(_))));
    }
    bench.say(G2, Released { keys: vec![key(1)] });
    assert!(bench.last.contains(&Action::Release(vec![key(1)])));
}

#[test]
fn listeners_are_not_taken_from_a_generation_that_is_about_to_take_over() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    let command = bench.warm_up(G1, 1, &[1]);
    bench.say(G0, DrainListeners { keys: vec![key(1)], removed: false });
    assert_eq!(deafened(&bench), []);
    bench.step(Event::Answered { generation: G1, command, result: Ok(()) });
    assert_eq!(bench.core.serving(), Some(G1));
    assert_eq!(deafened(&bench), [], "the older generation has nothing to give up any more");

    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    let command = bench.warm_up(G1, 1, &[1]);
    bench.say(G0, DrainListeners { keys: vec![key(1)], removed: false });
    bench.step(Event::Answered { generation: G1, command, result: Err("no".to_owned()) });
    assert_eq!(deafened(&bench), [key(1)], "it serves on, and wants it still");
}

#[test]
fn a_removed_listener_is_closed_in_generations_that_drained_before() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1, 2]);
    bench.reload(G0, G1, 1, &[1, 2]);
    bench.pass(policy.probation);
    bench.reload(G1, G2, 2, &[1]);
    let actions = bench.pass(policy.probation);
    let (ToWorker::Drain(drain), _) = sent(&actions, G0, "DRAIN").expect("DRAIN") else {
        unreachable!()
    };
    assert_eq!(drain.removed, [key(2)]);
}

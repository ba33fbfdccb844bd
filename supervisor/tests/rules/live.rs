//! Listeners that come and go with the configuration of a generation that serves.

use baton_contract::{
    control::Reload,
    generation::State,
    message::{DrainListeners, NeedListeners, Released, ToWorker},
};
use baton_supervisor::state::{
    Policy,
    action::Action,
    event::{Death, Event},
};

use super::{Bench, G0, G1, key, spec};

impl Bench {
    fn needs(&mut self, request: u64, ports: &[u16]) {
        let listeners = ports.iter().map(|port| spec(*port)).collect();
        self.say(G0, NeedListeners { listeners, last: true, request });
    }

    fn removes(&mut self, port: u16) {
        self.say(G0, DrainListeners { keys: vec![key(port)], removed: true });
    }

    /// Ports that are to be bound in addition.
    fn binds(&self) -> Vec<String> {
        let binds = self.last.iter().filter_map(|action| match action {
            Action::BindMore { listeners, .. } => Some(listeners),
            _ => None,
        });
        binds.flatten().map(|spec| spec.key.to_string()).collect()
    }

    fn bound(&mut self, failed: &[u16]) {
        let failed = failed.iter().map(|port| (key(*port), "taken".to_owned())).collect();
        self.step(Event::BoundMore { generation: G0, failed });
    }

    fn gives(&self, port: u16) -> bool {
        self.last.iter().any(|action| {
            matches!(action, Action::SendListeners { keys, .. } if keys.contains(&key(port)))
        })
    }

    fn answers(&self, number: u64) -> bool {
        self.last.iter().any(
            |action| matches!(action, Action::SendListeners { request, .. } if *request == number),
        )
    }

    fn listeners(&self) -> Vec<String> {
        self.core.report(self.now).listeners
    }
}

fn names(ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| key(*port).to_string()).collect()
}

#[test]
fn a_listener_that_cannot_be_bound_is_named_and_the_others_are_given() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.needs(7, &[2, 3]);
    assert_eq!(bench.binds(), names(&[2, 3]));
    bench.bound(&[3]);
    let (ToWorker::Unbound(unbound), _) = bench.sent(G0, "UNBOUND") else { unreachable!() };
    let told: Vec<_> = unbound.listeners.iter().map(|it| (&it.key, it.text.as_str())).collect();
    assert_eq!(told, [(&key(3), "taken")]);
    assert!(bench.gives(2) && !bench.gives(3) && bench.answers(7), "{:?}", bench.last);
    assert_eq!(bench.state(G0), Some(State::Serving));
    assert_eq!(bench.listeners(), names(&[1, 2]));
    let report = bench.core.report(bench.now);
    assert_eq!(report.generations.first().map(|row| row.listeners), Some(2));
    bench.reload(G0, G1, 1, &[1]);
    let changes = bench.core.report(bench.now).last_reload.expect("a reload").listeners;
    assert_eq!(changes.removed, names(&[2]), "the reload knows what it has now");
}

#[test]
fn a_listener_that_is_needed_again_before_it_is_closed_stays_held() {
    let mut bench = Bench::serving(Policy::default(), &[1, 2]);
    bench.removes(2);
    bench.sent(G0, "RELEASE");
    bench.needs(1, &[2, 3]);
    assert_eq!(bench.binds(), names(&[3]), "the worker is about to close its sockets of the other");
    bench.bound(&[]);
    assert!(bench.gives(3) && !bench.answers(1), "{:?}", bench.last);
    bench.say(G0, Released { keys: vec![key(2)] });
    assert!(!bench.last.iter().any(|action| matches!(action, Action::Release(_))));
    assert_eq!(bench.binds(), names(&[2]));
    bench.bound(&[]);
    assert!(bench.gives(2) && bench.answers(1), "{:?}", bench.last);
    assert_eq!(bench.listeners(), names(&[1, 2, 3]));
    // Once it is closed it is bound anew.
    bench.removes(2);
    bench.say(G0, Released { keys: vec![key(2)] });
    assert!(bench.last.contains(&Action::Release(vec![key(2)])), "{:?}", bench.last);
    let report = bench.core.report(bench.now);
    let row = report.generations.first().expect("a generation");
    assert_eq!(row.drained, [] as [&str; 0], "nobody asked to drain it");
    bench.needs(2, &[2]);
    assert_eq!(bench.binds(), names(&[2]));
}

#[test]
fn what_an_older_generation_could_come_back_to_is_given_up_after_the_probation() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1, 2]);
    bench.reload(G0, G1, 1, &[1, 2]);
    let removed = DrainListeners { keys: vec![key(2)], removed: true };
    bench.say(G1, removed);
    assert_eq!(bench.last, [], "it polls on");
    // The older one serves again with all that it had.
    bench.step(Event::Exited { generation: G1, how: Death::Killed(9) });
    bench.sent(G0, "RESUME");
    assert!(bench.gives(2), "{:?}", bench.last);
    assert_eq!(bench.listeners(), names(&[1, 2]));

    let mut bench = Bench::serving(policy, &[1, 2]);
    bench.reload(G0, G1, 1, &[1, 2]);
    bench.say(G1, DrainListeners { keys: vec![key(2)], removed: true });
    let actions = bench.pass(policy.probation);
    let release = super::sent(&actions, G1, "RELEASE");
    assert!(release.is_some(), "the older one cannot come back any more");
}

#[test]
fn what_a_paused_generation_needs_waits_until_it_serves_again() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.reload(G0, G1, 1, &[1]);
    bench.needs(1, &[2]);
    assert_eq!(bench.last, []);
    bench.step(Event::Exited { generation: G1, how: Death::Killed(9) });
    assert_eq!(bench.binds(), names(&[2]));
    bench.bound(&[]);
    assert!(bench.gives(2) && bench.answers(1));
}

#[test]
fn listeners_of_a_dead_generation_are_closed_when_its_successor_has_them_not() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.needs(1, &[2]);
    bench.bound(&[]);
    bench.step(Event::Exited { generation: G0, how: Death::Killed(9) });
    bench.step(Event::Tick);
    assert_eq!(bench.listeners(), names(&[1, 2]), "they are held while nobody serves");
    bench.bring_up(G1, 0, &[1]);
    assert!(bench.last.contains(&Action::Release(vec![key(2)])), "{:?}", bench.last);
}

#[test]
fn a_generation_that_begins_names_its_listeners_once() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    bench.warm_up(G1, 1, &[1]);
    let again = NeedListeners { listeners: vec![spec(5)], last: true, request: 0 };
    bench.say(G1, again);
    assert_eq!(bench.last, [], "an older program would not say this");
}

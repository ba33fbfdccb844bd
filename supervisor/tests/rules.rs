//! One test for each rule of the core that has a time or an order in it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail"
)]

#[path = "rules/listeners.rs"]
mod listeners;
#[path = "rules/live.rs"]
mod live;
#[path = "rules/resources.rs"]
mod resources;
#[path = "rules/stuck.rs"]
mod stuck;

use std::time::Duration;

use baton_contract::{
    control::{Reload, Verdict},
    generation::{Generation, State},
    listener_key::{ListenerKey, ListenerSpec, SocketOptions},
    message::{DrainStrategy, FromWorker, Hello, NeedListeners, Ready, Released, Status, ToWorker},
    version::ProtoRange,
};
use baton_supervisor::state::{
    Policy, Supervisor,
    action::{Action, Kill},
    event::{CommandId, ConfigId, Death, Event, StopKind, Time, Waiter},
};

const G0: Generation = Generation(0);
const G1: Generation = Generation(1);
const G2: Generation = Generation(2);

/// A core, its time, and what it wanted in the last step.
struct Bench {
    core: Supervisor,
    now: Time,
    last: Vec<Action>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self { core: Supervisor::new(policy), now: Time::ZERO, last: Vec::new() }
    }

    /// A core whose generation 0 serves `keys` and has passed its probation.
    fn serving(policy: Policy, keys: &[u16]) -> Self {
        let mut bench = Self::new(policy);
        bench.step(Event::Start);
        bench.bring_up(G0, 0, keys);
        bench.pass(policy.probation);
        bench
    }

    fn step(&mut self, event: Event) {
        self.last.clear();
        self.core.step(self.now, event, &mut self.last);
    }

    fn say(&mut self, generation: Generation, message: impl Into<FromWorker>) {
        self.step(Event::Message { generation, message: message.into() });
    }

    /// Time passes in turns of 500 ms; all workers but `silent` show signs of life.
    fn pass_without(&mut self, time: Duration, silent: &[Generation]) -> Vec<Action> {
        let end = self.now + time;
        let mut all = Vec::new();
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(500));
            for generation in (0..9).map(Generation).filter(|g| !silent.contains(g)) {
                self.step(Event::Beat { generation });
                all.append(&mut self.last);
            }
            self.step(Event::Tick);
            all.append(&mut self.last);
        }
        all
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.pass_without(time, &[])
    }

    /// From `ReadConfig` to READY; returns TAKE.
    fn warm_up(&mut self, generation: Generation, config: u128, keys: &[u16]) -> CommandId {
        if self.last.contains(&Action::ReadConfig) {
            self.step(Event::ConfigRead(Ok(ConfigId(config))));
        }
        self.step(Event::Spawned { generation, pid: 100 });
        self.say(generation, hello(ProtoRange::ours()));
        let listeners = keys.iter().map(|port| spec(*port)).collect();
        self.say(generation, NeedListeners { listeners, last: true, request: 0 });
        self.step(Event::Bound { generation, result: Ok(()) });
        self.say(generation, Ready::default());
        self.step(Event::Listening { generation, result: Ok(()) });
        self.sent(generation, "TAKE").1
    }

    /// Until it serves.
    fn bring_up(&mut self, generation: Generation, config: u128, keys: &[u16]) {
        let command = self.warm_up(generation, config, keys);
        self.step(Event::Answered { generation, command, result: Ok(()) });
    }

    /// A whole reload, with the answer to PAUSE.
    fn reload(&mut self, old: Generation, new: Generation, config: u128, keys: &[u16]) {
        self.step(Event::Reload { waiter: Some(Waiter(1)), reload: Reload::default() });
        self.bring_up(new, config, keys);
        let (_, command) = self.sent(old, "PAUSE");
        self.step(Event::Answered { generation: old, command, result: Ok(()) });
        assert_eq!(self.verdict(), Some(Verdict::Serving));
    }

    /// The message of this name sent in the last step.
    fn sent(&self, to: Generation, name: &str) -> (ToWorker, CommandId) {
        sent(&self.last, to, name).unwrap_or_else(|| panic!("no {name} in {:?}", self.last))
    }

    fn verdict(&self) -> Option<Verdict> {
        self.last.iter().find_map(|action| match action {
            Action::Verdict { outcome, .. } => Some(outcome.verdict),
            _ => None,
        })
    }

    fn state(&self, generation: Generation) -> Option<State> {
        let report = self.core.report(self.now);
        report.generations.iter().find(|row| row.generation == generation).map(|row| row.state)
    }
}

fn sent(actions: &[Action], to: Generation, name: &str) -> Option<(ToWorker, CommandId)> {
    actions.iter().find_map(|action| match action {
        Action::Send { generation, message, command }
            if *generation == to && message.name() == name =>
        {
            Some((message.clone(), command.unwrap_or(CommandId(u64::MAX))))
        }
        _ => None,
    })
}

fn hello(proto: ProtoRange) -> Hello {
    Hello { proto, shm_layout: 1, build_id: String::new(), features: Vec::new(), pid: 1 }
}

fn key(port: u16) -> ListenerKey {
    ListenerKey::tcp(([127, 0, 0, 1], port).into())
}

fn spec(port: u16) -> ListenerSpec {
    let options = SocketOptions::default();
    ListenerSpec { key: key(port), name: String::new(), options, min_shards: 1 }
}

#[test]
fn pause_is_sent_only_after_take_was_confirmed() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    let command = bench.warm_up(G1, 1, &[1]);
    assert!(sent(&bench.last, G0, "PAUSE").is_none());
    bench.step(Event::Answered { generation: G1, command: CommandId(77), result: Ok(()) });
    assert!(sent(&bench.last, G0, "PAUSE").is_none(), "another command was confirmed");
    bench.step(Event::Answered { generation: G1, command, result: Ok(()) });
    bench.sent(G0, "PAUSE");
    assert_eq!(bench.state(G0), Some(State::HandingOff));
}

#[test]
fn a_removed_listener_is_named_in_pause_and_closed_when_nobody_has_it() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1, 2]);
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    bench.bring_up(G1, 1, &[1]);
    let (ToWorker::Pause(pause), command) = bench.sent(G0, "PAUSE") else { unreachable!() };
    assert_eq!(pause.removed, [key(2)]);
    bench.step(Event::Answered { generation: G0, command, result: Ok(()) });
    let actions = bench.pass(policy.probation);
    let (ToWorker::Drain(drain), _) = sent(&actions, G0, "DRAIN").expect("DRAIN") else {
        unreachable!()
    };
    assert_eq!(drain.removed, [key(2)]);
    let released = Released { keys: vec![key(1), key(2)] };
    bench.say(G0, released);
    assert!(bench.last.contains(&Action::Release(vec![key(2)])), "{:?}", bench.last);
}

#[test]
fn each_step_before_the_switch_has_a_deadline() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1]);
    let reload = Event::Reload { waiter: Some(Waiter(1)), reload: Reload::default() };
    bench.step(reload.clone());
    bench.step(Event::ConfigRead(Ok(ConfigId(1))));
    let actions = bench.pass(policy.start_timeout);
    assert!(actions.iter().any(|a| matches!(a, Action::Verdict { .. })));
    assert!(sent(&actions, G1, "STOP").is_some());
    let actions = bench.pass(Duration::from_secs(5));
    let signals: Vec<Kill> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Signal { signal, .. } => Some(*signal),
            _ => None,
        })
        .collect();
    assert_eq!(signals, [Kill::Term, Kill::Kill], "STOP, then SIGTERM, then SIGKILL");
    bench.step(Event::Exited { generation: G1, how: Death::Killed(9) });
    bench.step(reload);
    bench.warm_up(G2, 1, &[1]);
    let actions = bench.pass(policy.take_timeout);
    assert!(sent(&actions, G2, "STOP").is_some());
    assert_eq!(bench.core.serving(), Some(G0));
}

#[test]
fn a_storm_of_reloads_is_one_that_runs_and_one_that_waits() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    for _ in 0..1000 {
        bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    }
    bench.step(Event::ConfigRead(Ok(ConfigId(1))));
    let spawned = |bench: &Bench| bench.last.iter().any(|a| matches!(a, Action::Spawn { .. }));
    assert!(spawned(&bench));
    bench.bring_up(G1, 1, &[1]);
    let (_, command) = bench.sent(G0, "PAUSE");
    bench.step(Event::Answered { generation: G0, command, result: Ok(()) });
    assert!(bench.last.contains(&Action::ReadConfig), "the one that waited reads the newest file");
    bench.bring_up(G2, 2, &[1]);
    let (_, command) = bench.sent(G1, "PAUSE");
    bench.step(Event::Answered { generation: G1, command, result: Ok(()) });
    assert!(!bench.last.contains(&Action::ReadConfig), "no third one");
}

#[test]
fn a_hung_generation_on_probation_is_rolled_back() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.reload(G0, G1, 1, &[1]);
    let actions = bench.pass_without(Duration::from_secs(4), &[G1]);
    assert!(sent(&actions, G0, "RESUME").is_some());
    let options = actions.iter().any(|action| {
        matches!(action, Action::Listen { generation: G0, listeners } if listeners.len() == 1)
    });
    assert!(options, "its listeners get their options back: {actions:?}");
    assert!(sent(&actions, G1, "STOP").is_some());
    assert_eq!(bench.core.serving(), Some(G0));
    let report = bench.core.report(bench.now);
    assert_eq!(report.last_reload.map(|last| last.verdict), Some(Verdict::RolledBack));
    bench.step(Event::Reload { waiter: Some(Waiter(2)), reload: Reload::default() });
    bench.step(Event::ConfigRead(Ok(ConfigId(1))));
    assert_eq!(bench.verdict(), Some(Verdict::Refused));
    let reload = Reload { force: true, ..Reload::default() };
    bench.step(Event::Reload { waiter: Some(Waiter(3)), reload });
    bench.step(Event::ConfigRead(Ok(ConfigId(1))));
    assert!(bench.last.iter().any(|action| matches!(action, Action::Spawn { .. })));
}

#[test]
fn the_same_configuration_with_a_bad_program_is_not_marked_as_bad() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.reload(G0, G1, 0, &[1]);
    bench.step(Event::Exited { generation: G1, how: Death::Killed(11) });
    bench.sent(G0, "RESUME");
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    bench.step(Event::ConfigRead(Ok(ConfigId(0))));
    assert!(bench.last.iter().any(|action| matches!(action, Action::Spawn { .. })));
}

#[test]
fn a_hung_generation_that_cannot_be_rolled_back_is_replaced_before_it_is_stopped() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1]);
    let actions = bench.pass_without(policy.replace_after * 9 / 10, &[G0]);
    assert!(actions.is_empty(), "{actions:?}");
    let actions = bench.pass_without(Duration::from_secs(2), &[G0]);
    assert!(actions.iter().any(|action| matches!(action, Action::Spawn { .. })));
    assert_eq!(bench.core.serving(), Some(G0));
    bench.bring_up(G1, 0, &[1]);
    assert_eq!(bench.core.serving(), Some(G1));
    bench.sent(G0, "PAUSE");
    bench.sent(G0, "DRAIN");
}

#[test]
fn a_hung_generation_that_was_replaced_is_killed_so_that_others_can_go_on_with_its_connections() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1]);
    assert_eq!(bench.core.adopter(), Some(G0));
    bench.pass_without(policy.replace_after + Duration::from_secs(1), &[G0]);
    assert_eq!(bench.core.adopter(), None, "nobody would answer");
    bench.bring_up(G1, 0, &[1]);
    let kill = |actions: &[Action], generation| {
        actions.contains(&Action::Signal { generation, signal: Kill::Kill })
    };
    assert!(!kill(&bench.last, G0));
    let all = bench.pass_without(policy.kill_after, &[G0]);
    assert!(kill(&all, G0) && !kill(&all, G1));
    bench.step(Event::Exited { generation: G0, how: Death::Killed(9) });
    assert_eq!((bench.core.serving(), bench.core.adopter()), (Some(G1), Some(G1)));
}

#[test]
fn a_draining_generation_that_shows_signs_of_life_is_left_alone() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1]);
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    bench.bring_up(G1, 1, &[1]);
    let all = bench.pass(policy.kill_after * 3);
    assert!(!all.iter().any(|action| matches!(action, Action::Signal { .. })));
}

#[test]
fn a_supervisor_that_slept_blames_nobody() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.reload(G0, G1, 1, &[1]);
    bench.now += Duration::from_mins(1);
    bench.step(Event::Tick);
    assert_eq!(bench.core.serving(), Some(G1));
    assert!(sent(&bench.last, G1, "STOP").is_none());
}

#[test]
fn a_generation_that_does_not_resume_is_replaced_from_the_last_good_configuration() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1]);
    bench.reload(G0, G1, 1, &[1]);
    bench.step(Event::Exited { generation: G1, how: Death::Killed(11) });
    let actions = bench.pass(policy.command_timeout);
    let spawned = actions.iter().find_map(|action| match action {
        Action::Spawn { recipe, .. } => Some(recipe.config),
        _ => None,
    });
    assert_eq!(spawned, Some(ConfigId(0)));
    assert!(sent(&actions, G0, "STOP").is_some());
}

#[test]
fn respawns_wait_longer_and_longer_and_a_reload_comes_first() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.step(Event::Exited { generation: G0, how: Death::Killed(9) });
    let spawned = |actions: &[Action]| actions.iter().any(|a| matches!(a, Action::Spawn { .. }));
    assert!(spawned(&bench.last), "the first one at once");
    bench.step(Event::Exited { generation: G1, how: Death::Killed(9) });
    assert!(!spawned(&bench.last));
    assert_eq!(bench.core.wake_at(), Some(bench.now + Duration::from_millis(100)));
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    assert!(bench.last.contains(&Action::ReadConfig));
    assert!(!bench.last.iter().any(|action| matches!(action, Action::Release(_))));
}

#[test]
fn a_reload_waits_for_room_and_the_oldest_generation_hurries() {
    let policy = Policy { max_generations: 2, ..Policy::default() };
    let mut bench = Bench::serving(policy, &[1]);
    bench.reload(G0, G1, 1, &[1]);
    bench.pass(policy.probation);
    assert_eq!(bench.state(G0), Some(State::Draining));
    bench.step(Event::Reload { waiter: Some(Waiter(5)), reload: Reload::default() });
    let (ToWorker::Drain(drain), _) = bench.sent(G0, "DRAIN") else { unreachable!() };
    assert_eq!(drain.strategy, DrainStrategy::Immediate);
    assert!(bench.last.iter().any(|action| matches!(action, Action::Progress { .. })));
    let actions = bench.pass(policy.hurry_time);
    assert!(sent(&actions, G0, "STOP").is_some());
    bench.step(Event::Exited { generation: G0, how: Death::Exited(0) });
    assert!(bench.last.contains(&Action::ReadConfig));
}

#[test]
fn connections_that_move_are_not_told_to_close_because_a_reload_waits_for_room() {
    let strategy = DrainStrategy::Migrate;
    let policy = Policy { max_generations: 2, drain_strategy: strategy, ..Policy::default() };
    let mut bench = Bench::serving(policy, &[1]);
    bench.reload(G0, G1, 1, &[1]);
    bench.pass(policy.probation);
    bench.step(Event::Reload { waiter: Some(Waiter(5)), reload: Reload::default() });
    let (ToWorker::Drain(drain), _) = bench.sent(G0, "DRAIN") else { unreachable!() };
    assert_eq!(drain.strategy, DrainStrategy::Migrate);
    assert_eq!(u128::from(drain.deadline_ms), policy.hurry_time.as_millis());
    assert!(drain.drain_ms <= drain.deadline_ms / 4, "those that stay are told in time");
}

#[test]
fn connections_that_are_cut_are_counted() {
    let policy = Policy { parent_shutdown_time: Duration::from_secs(20), ..Policy::default() };
    let mut bench = Bench::serving(policy, &[1]);
    bench.say(G0, Status { connections: 7, ..Status::default() });
    bench.reload(G0, G1, 1, &[1]);
    let last = bench.core.report(bench.now).last_reload.expect("a reload");
    assert_eq!((last.connections.draining, last.connections.cut), (7, 0));
    let actions = bench.pass(Duration::from_secs(20));
    assert!(sent(&actions, G0, "STOP").is_some());
    bench.step(Event::Exited { generation: G0, how: Death::Killed(9) });
    assert_eq!(bench.core.report(bench.now).past.cut, 7);
}

#[test]
fn a_worker_of_another_age_is_refused() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    bench.step(Event::Reload { waiter: None, reload: Reload::default() });
    bench.step(Event::ConfigRead(Ok(ConfigId(1))));
    bench.step(Event::Spawned { generation: G1, pid: 5 });
    bench.say(G1, hello(ProtoRange { min: 7, max: 9 }));
    assert_eq!(bench.verdict(), Some(Verdict::Refused));
    assert_eq!(bench.core.serving(), Some(G0));
}

#[test]
fn the_second_stop_cuts() {
    let policy = Policy::default();
    let mut bench = Bench::serving(policy, &[1]);
    bench.step(Event::Stop(StopKind::Graceful));
    let deaf = bench.last.iter().position(|action| matches!(action, Action::Deafen(_)));
    let closed = bench.last.iter().position(|action| matches!(action, Action::ReleaseAll));
    assert!(deaf.is_some() && deaf < closed, "the queues stop to fill: {:?}", bench.last);
    let (ToWorker::Stop(stop), _) = bench.sent(G0, "STOP") else { unreachable!() };
    assert_eq!(u128::from(stop.graceful_ms), policy.stop_time.as_millis());
    bench.step(Event::Stop(StopKind::Graceful));
    let (ToWorker::Stop(stop), _) = bench.sent(G0, "STOP") else { unreachable!() };
    assert_eq!(stop.graceful_ms, 0);
    bench.step(Event::Exited { generation: G0, how: Death::Exited(0) });
    assert!(bench.last.iter().any(|action| matches!(action, Action::Finish(Ok(_)))));
}

#[test]
fn a_command_to_stop_said_again_cuts_nothing() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    let stops = |bench: &Bench| {
        let stop =
            |action: &&Action| matches!(action, Action::Send { message: ToWorker::Stop(_), .. });
        bench.last.iter().filter(stop).count()
    };
    bench.step(Event::Stop(StopKind::Patient));
    assert_eq!(stops(&bench), 1);
    let left = bench.core.report(bench.now).generations.first().and_then(|row| row.cut_in_ms);
    assert!(left.is_some_and(|left| left > 0), "status says how long it may take");
    bench.step(Event::Stop(StopKind::Patient));
    assert_eq!(stops(&bench), 0, "a second command");
    bench.step(Event::Stop(StopKind::Graceful));
    assert_eq!(stops(&bench), 0, "the first signal");
    bench.step(Event::Stop(StopKind::Graceful));
    assert_eq!(stops(&bench), 1, "the second signal");
}

#[test]
fn everybody_who_waits_gets_a_verdict_when_the_supervisor_stops() {
    let mut bench = Bench::serving(Policy::default(), &[1]);
    for waiter in 1..4 {
        let reload = Reload { dry_run: waiter == 3, ..Reload::default() };
        bench.step(Event::Reload { waiter: Some(Waiter(waiter)), reload });
    }
    bench.step(Event::Stop(StopKind::Now));
    let told = bench.last.iter().filter_map(|action| match action {
        Action::Verdict { waiters, .. } => Some(waiters.len()),
        _ => None,
    });
    assert_eq!(told.sum::<usize>(), 3);
}

#[test]
fn a_generation_without_addresses_is_refused_only_where_another_serves_and_nobody_forces_it() {
    let line = "cluster `c` has no address: `c.test` does not resolve";
    let ready = || Ready { unresolved: vec![line.to_owned()], ..Ready::default() };
    let warm = |bench: &mut Bench, generation| {
        if bench.last.contains(&Action::ReadConfig) {
            bench.step(Event::ConfigRead(Ok(ConfigId(7))));
        }
        bench.step(Event::Spawned { generation, pid: 100 });
        bench.say(generation, hello(ProtoRange::ours()));
        bench.say(generation, NeedListeners { listeners: vec![spec(80)], last: true, request: 0 });
        bench.step(Event::Bound { generation, result: Ok(()) });
        bench.say(generation, ready());
    };
    let listens = |bench: &Bench| bench.last.iter().any(|a| matches!(a, Action::Listen { .. }));
    let mut first = Bench::new(Policy::default());
    first.step(Event::Start);
    warm(&mut first, G0);
    assert!(listens(&first), "{:?}", first.last);

    let mut bench = Bench::serving(Policy::default(), &[80]);
    for (force, refused) in [(false, true), (true, false)] {
        let reload = Reload { force, ..Reload::default() };
        bench.step(Event::Reload { waiter: Some(Waiter(1)), reload });
        let generation = if force { G2 } else { G1 };
        warm(&mut bench, generation);
        assert_eq!(bench.verdict(), refused.then_some(Verdict::Refused));
        assert_eq!(listens(&bench), !refused, "{:?}", bench.last);
        if refused {
            assert_eq!(bench.state(G0), Some(State::Serving));
            bench.step(Event::Exited { generation, how: Death::Exited(0) });
        }
    }
}

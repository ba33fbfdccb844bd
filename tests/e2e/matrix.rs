//! The matrix: at each step of a reload, SIGKILL or SIGSTOP for the old worker, the new worker or the
//! supervisor, under load.
//!
//! Every cell must end in a legal state: exactly one generation serves, clients are answered, and the
//! next reload works. What clients may lose is written at each test; what they lose is in the ledger.

mod books;

use self::books::{assert_everything_is_counted, assert_ledger, crashed};
use crate::escrow::crashes;
use crate::harness::eventually::{eventually, now, pause, until};
use crate::harness::lab::free_address;
use crate::harness::program::{is_sent, send};
use crate::harness::{Lab, Program, client, proc};
use baton_torture::Class;
use baton_torture::load::{Load, Seen};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::time::Duration;

/// Who is at a step, and who is hit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Party {
    Old,
    New,
    Supervisor,
}

/// What a reload changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Nothing,
    /// A listener that was there is not there any more.
    Removal,
}

/// One step of a reload.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Its fault point.
    point: &'static str,
    /// Who passes it.
    passes: Party,
    /// At which passing.
    passing: u32,
    /// Which reload comes there.
    change: Change,
}

const fn at(passes: Party, point: &'static str) -> Step {
    Step { point, passes, passing: 1, change: Change::Nothing }
}

const fn at_second(passes: Party, point: &'static str) -> Step {
    Step { point, passes, passing: 2, change: Change::Nothing }
}

/// When several connections are on their way.
const fn midway(passes: Party, point: &'static str) -> Step {
    Step { point, passes, passing: 7, change: Change::Nothing }
}

const fn at_removal(passes: Party, point: &'static str) -> Step {
    Step { point, passes, passing: 1, change: Change::Removal }
}

/// The steps in which nothing is served by the new generation yet.
const BEFORE: &[Step] = &[
    at(Party::Supervisor, "supervisor.config_read"),
    at(Party::Supervisor, "supervisor.spawned"),
    at(Party::New, "hello"),
    at(Party::Supervisor, "supervisor.received.HELLO"),
    at(Party::Supervisor, "supervisor.welcomed"),
    at(Party::New, "config"),
    at(Party::New, "listeners"),
    at(Party::Supervisor, "supervisor.received.NEED_LISTENERS"),
    at(Party::Supervisor, "supervisor.bound"),
    at(Party::Supervisor, "supervisor.listeners_sent"),
    at(Party::New, "warm"),
    at(Party::New, "ready"),
    at(Party::Supervisor, "supervisor.received.READY"),
    at(Party::Supervisor, "supervisor.listening"),
];

/// The steps in which both generations have connections.
const AFTER: &[Step] = &[
    at(Party::Supervisor, "supervisor.sent.TAKE"),
    at(Party::New, "take"),
    at(Party::New, "taken"),
    at(Party::Supervisor, "supervisor.received.ACK"),
    at(Party::Supervisor, "supervisor.sent.PAUSE"),
    at(Party::Old, "pause"),
    at(Party::Old, "paused"),
    at_removal(Party::Supervisor, "supervisor.deafened"),
    at(Party::Supervisor, "supervisor.sent.DRAIN"),
    at(Party::Old, "drain"),
    at(Party::Old, "draining"),
    at_removal(Party::Supervisor, "supervisor.released"),
    at(Party::Old, "drained"),
    at(Party::Supervisor, "supervisor.retired"),
];

/// The last step at which somebody else is, and the old one about to end.
const LAST: &str = "supervisor.released";

/// The steps of connections that move.
const MOVING: &[Step] = &[
    at(Party::Supervisor, "supervisor.introducing"),
    at_second(Party::Supervisor, "supervisor.introducing"),
    at(Party::Old, "migrate.old.frozen"),
    midway(Party::Old, "migrate.old.frozen"),
    midway(Party::Old, "migrate.old.offered"),
    at(Party::New, "migrate.new.offered"),
    midway(Party::New, "migrate.new.offered"),
    at(Party::New, "migrate.new.accepted"),
    at(Party::Old, "migrate.old.accepted"),
    midway(Party::Old, "migrate.old.decided"),
    at(Party::Old, "migrate.old.committed"),
    at(Party::New, "migrate.new.committed"),
    midway(Party::New, "migrate.new.booked"),
    midway(Party::Old, "migrate.old.ended"),
];

/// How long a new worker that has taken over is stopped: clients that connect wait as long.
const A_WHILE: Duration = Duration::from_secs(1);

/// Those of them at which the new generation is on probation, without the supervisor's.
const PROBATION: &[&str] = &["take", "taken", "pause", "paused"];

/// Points that no reload without a failure passes, and what has tests of its own.
const ELSEWHERE: &[&str] = &["stop", "request"];

/// Points of the table that are in no step and not explained.
#[test]
fn every_fault_point_is_a_step_of_the_matrix() {
    let table = include_str!("../../docs/FAULT_POINTS.md");
    let (_, rows) = table.split_once("| point |").expect("a table of points");
    let named: BTreeSet<&str> =
        rows.lines().filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0)).collect();
    let steps: Vec<&str> =
        BEFORE.iter().chain(AFTER).chain(MOVING).map(|step| step.point).collect();
    let has_step = |point: &&str| match point.strip_suffix('*') {
        Some(group) => steps.iter().any(|step| step.starts_with(group)),
        None => {
            steps.contains(point) || ELSEWHERE.contains(point) || crashes::POINTS.contains(point)
        }
    };
    let missing: Vec<&str> = named.iter().copied().filter(|point| !has_step(point)).collect();
    assert!(missing.is_empty(), "no step of the matrix is at {missing:?}");
}

/// One program with load, and what was done to it.
struct Matrix {
    lab: Lab,
    program: Program,
    load: Load,
    victim: Party,
    signal: Signal,
    /// When a stopped new worker goes on; `None` = it does not.
    stops_for: Option<Duration>,
    /// Cells whose victim died.
    killed: u64,
}

impl Matrix {
    fn start(victim: Party, signal: Signal) -> Self {
        Self::start_with("1", victim, signal)
    }

    fn start_with(probation_s: &str, victim: Party, signal: Signal) -> Self {
        let lab = Lab::new();
        // A process that never gets ready is found soon; one on a loaded machine gets ready.
        let hangs = (victim, signal) == (Party::New, Signal::SIGSTOP) && probation_s == "1";
        let start_s = if hangs { "3" } else { "30" };
        let mut arguments = vec!["--start-timeout-s", start_s, "--warm-timeout-s", start_s];
        // No cell waits for the connections of the cells before it.
        arguments.extend(["--max-generations", "32", "--probation-s", probation_s]);
        let program = lab.start_with(&arguments);
        let load = lab.load();
        Self { lab, program, load, victim, signal, stops_for: None, killed: 0 }
    }

    /// Every step in which the victim lives.
    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            // Before it is started and after it is gone nobody can hit it.
            let unborn = self.victim == Party::New && step.point == "supervisor.config_read";
            let gone = self.victim == Party::Old && step.point == "supervisor.retired";
            if !unborn && !gone {
                self.cell(step);
            }
        }
    }

    fn cell(&mut self, step: &Step) {
        let passing = (step.point, step.passing);
        let what = format!("{:?}, {} at {passing:?}", self.victim, self.signal);
        if step.change == Change::Removal {
            self.program.write_config(&self.lab.with_second_listener(free_address()));
            self.reload_works(&what);
            self.program.write_config(&self.lab.config.text());
        }
        // An older one that is told to drain would pass points that are meant for the old one.
        until("the older generation drains", || {
            self.program.generations("handing_off").is_ok_and(|found| found.is_empty())
        });
        // One that drains still gives its connections to the one that is going to be the old one here,
        // which would pass the points of a new one.
        if step.point.starts_with("migrate.") {
            self.program.wait_until_alone();
        }
        let (_, old) = self.program.serving_now();
        let began = now();
        let this: &Self = self;
        let hit = std::thread::scope(|scope| {
            let ask = || this.program.reload_with(&["--force"]);
            if this.victim == step.passes {
                let action = if this.signal == Signal::SIGKILL { "kill" } else { "stop" };
                this.program.set_fault(&format!("{}:{action}:{}", step.point, step.passing));
                let reload = scope.spawn(ask);
                let pid = this.program.fired(&what);
                this.settle(&what, pid, || drop(reload.join().expect("the reload command")));
            } else {
                let mut hold = this.program.hold_at(step.point, step.passing);
                let reload = scope.spawn(ask);
                let passing = hold.reached(&what);
                let pid = this.victim_pid(old);
                // What an old one still has to do at this point takes no time.
                let sent = is_sent(pid, this.signal);
                hold.release(passing);
                if !sent && step.point == LAST {
                    eprintln!("{what}: too late");
                    drop(reload.join().expect("the reload command"));
                    return false;
                }
                assert!(sent, "{what}: {pid} is gone");
                this.settle(&what, pid, || drop(reload.join().expect("the reload command")));
            }
            true
        });
        assert!(self.program.clear_fault(), "{what}: the order was not obeyed");
        // Shown when the test fails.
        eprintln!("{what}: {:?}", began.elapsed());
        if hit && self.signal == Signal::SIGKILL {
            self.killed += 1;
            if self.victim == Party::Supervisor {
                self.program.launch_again();
                self.program.wait_until_serving();
            }
        }
        self.reload_works(&what);
    }

    /// The process to hit, or that was hit.
    fn victim_pid(&self, old: u32) -> u32 {
        match self.victim {
            Party::Old => old,
            Party::New => {
                let workers = proc::descendants(self.program.pid());
                workers.into_iter().max_by_key(|pid| proc::started(*pid)).expect("workers")
            }
            Party::Supervisor => self.program.pid(),
        }
    }

    /// Waits for the legal state and the verdict, then ends the silence of a stopped victim: a new
    /// worker is given up and killed, the others go on.
    fn settle(&self, what: &str, pid: u32, verdict: impl FnOnce()) {
        let stopped = self.signal == Signal::SIGSTOP;
        match self.victim {
            Party::Supervisor => {
                self.clients_are_answered(what);
                if stopped {
                    send(pid, Signal::SIGCONT);
                }
                verdict();
            }
            Party::Old => {
                self.is_legal(what, pid);
                verdict();
                self.is_legal(what, pid);
                if stopped && proc::is_alive(pid) {
                    send(pid, Signal::SIGCONT);
                }
            }
            Party::New if stopped && self.stops_for == Some(A_WHILE) => {
                pause(A_WHILE);
                send(pid, Signal::SIGCONT);
                verdict();
                self.is_legal(what, pid);
            }
            Party::New => {
                verdict();
                self.is_legal(what, pid);
                until(what, || !proc::is_alive(pid));
            }
        }
    }

    fn clients_are_answered(&self, what: &str) {
        eventually(what, || match client::request(self.lab.config.http, "GET", "/echo/2/10") {
            Ok(response) if response.status == 200 => Ok(()),
            Ok(response) => Err(format!("status {}", response.status)),
            Err(error) => Err(error.to_string()),
        });
    }

    /// Exactly one generation serves, it can, and clients are answered.
    fn is_legal(&self, what: &str, victim: u32) {
        eventually(what, || {
            let serving = self.program.generations("serving")?;
            let [(_, pid)] = serving.as_slice() else { return Err(format!("{serving:?} serve")) };
            let state = proc::state(*pid);
            if matches!(state, None | Some('Z' | 'X' | 'T')) {
                return Err(format!("{pid} serves in state {state:?}, {victim} was hit"));
            }
            Ok(())
        });
        self.clients_are_answered(what);
    }

    fn reload_works(&self, what: &str) {
        let (code, text) = self.program.reload_with(&["--force"]);
        assert_eq!(code, 0, "the reload after {what}: {text}");
    }

    /// Ends the load; nobody lost anything.
    fn assert_nothing_lost(self) {
        let seen = self.load.finish();
        assert_eq!(seen.lost(), 0, "clients lost something:\n{}", seen.failures.join("\n"));
        assert_ledger(&self.lab, |ledger| ledger("crash") + ledger("cut_by_deadline"), 0..=0);
    }

    /// Ends the load; what clients lost was on connections of the killed processes, each of which is
    /// in the ledger.
    fn assert_only_crashes_lost(self) {
        let killed = self.killed;
        let (lab, seen, _program) = self.only_crashes_lost();
        assert_everything_is_counted(&lab, &seen, killed);
    }

    /// The same without the balance of the whole ledger.
    fn only_crashes_lost(self) -> (Lab, Seen, Program) {
        let seen = self.load.finish();
        for class in [Class::ConnectFail, Class::WrongBytes] {
            assert_eq!(seen.total(class), 0, "{}", seen.failures_of(class).join("\n"));
        }
        // Shown when the test fails.
        eprintln!("clients lost:\n{}", seen.failures.join("\n"));
        assert_ledger(&self.lab, |ledger| ledger("crash"), crashed(&seen, self.killed));
        assert_ledger(&self.lab, |ledger| ledger("cut_by_deadline"), 0..=0);
        (self.lab, seen, self.program)
    }
}

/// No loss: it has no connection yet.
#[test]
fn a_new_worker_that_dies_before_it_takes_over_costs_nothing() {
    let mut matrix = Matrix::start(Party::New, Signal::SIGKILL);
    matrix.run(BEFORE);
    matrix.assert_nothing_lost();
}

/// No loss: it has no connection yet.
#[test]
fn a_new_worker_that_stops_before_it_takes_over_costs_nothing() {
    let mut matrix = Matrix::start(Party::New, Signal::SIGSTOP);
    matrix.run(BEFORE);
    matrix.assert_nothing_lost();
}

/// The connections it had are lost with it.
#[test]
fn a_new_worker_that_dies_after_it_took_over_costs_its_own_connections() {
    let mut matrix = Matrix::start(Party::New, Signal::SIGKILL);
    matrix.run(AFTER);
    matrix.assert_only_crashes_lost();
}

/// The connections it had are lost when it is found to hang, which takes three seconds in probation.
/// Later it takes five.
#[test]
fn a_new_worker_that_stops_in_probation_costs_its_own_connections() {
    let mut matrix = Matrix::start_with("5", Party::New, Signal::SIGSTOP);
    let steps: Vec<Step> =
        AFTER.iter().filter(|step| PROBATION.contains(&step.point)).copied().collect();
    assert_eq!(steps.len(), PROBATION.len());
    matrix.run(&steps);
    matrix.killed = u64::try_from(steps.len()).unwrap_or(0);
    matrix.assert_only_crashes_lost();
}

/// The connections it had are lost with it.
#[test]
fn an_old_worker_that_dies_costs_its_own_connections() {
    let mut matrix = Matrix::start(Party::Old, Signal::SIGKILL);
    matrix.run(BEFORE);
    matrix.run(AFTER);
    matrix.assert_only_crashes_lost();
}

/// No loss: its connections wait until it goes on.
#[test]
fn an_old_worker_that_stops_for_a_while_costs_nothing() {
    let mut matrix = Matrix::start(Party::Old, Signal::SIGSTOP);
    matrix.run(BEFORE);
    matrix.run(AFTER);
    matrix.assert_nothing_lost();
}

/// No loss: it has no connection, and another one takes the workers back.
#[test]
fn a_supervisor_that_dies_costs_nothing() {
    let mut matrix = Matrix::start(Party::Supervisor, Signal::SIGKILL);
    matrix.run(BEFORE);
    matrix.run(AFTER);
    matrix.assert_nothing_lost();
}

/// No loss: it has no connection.
#[test]
fn a_supervisor_that_stops_for_a_while_costs_nothing() {
    let mut matrix = Matrix::start(Party::Supervisor, Signal::SIGSTOP);
    matrix.run(BEFORE);
    matrix.run(AFTER);
    matrix.assert_nothing_lost();
}

/// What had not moved yet is lost with it; what had moved is not.
#[test]
fn an_old_worker_that_dies_while_connections_move_costs_those_it_still_has() {
    let mut matrix = Matrix::start(Party::Old, Signal::SIGKILL);
    matrix.run(MOVING);
    matrix.assert_only_crashes_lost();
}

/// No loss: what is on its way waits, or was taken.
#[test]
fn an_old_worker_that_stops_while_connections_move_costs_nothing() {
    let mut matrix = Matrix::start(Party::Old, Signal::SIGSTOP);
    matrix.run(MOVING);
    matrix.assert_nothing_lost();
}

/// What it owns is lost with it; what was only offered stays with the old one.
#[test]
fn a_new_worker_that_dies_while_connections_move_costs_those_it_has() {
    let mut matrix = Matrix::start(Party::New, Signal::SIGKILL);
    matrix.run(MOVING);
    matrix.assert_only_crashes_lost();
}

/// No loss: what it did not accept in time stays with the old one.
#[test]
fn a_new_worker_that_stops_while_connections_move_costs_nothing() {
    let mut matrix = Matrix::start_with("2", Party::New, Signal::SIGSTOP);
    matrix.stops_for = Some(A_WHILE);
    matrix.run(MOVING);
    matrix.assert_nothing_lost();
}

/// No loss: connections do not pass through it.
#[test]
fn a_supervisor_that_dies_while_connections_move_costs_nothing() {
    let mut matrix = Matrix::start(Party::Supervisor, Signal::SIGKILL);
    matrix.run(MOVING);
    matrix.assert_nothing_lost();
}

/// No loss: connections do not pass through it.
#[test]
fn a_supervisor_that_stops_while_connections_move_costs_nothing() {
    let mut matrix = Matrix::start(Party::Supervisor, Signal::SIGSTOP);
    matrix.run(MOVING);
    matrix.assert_nothing_lost();
}

/// What it owns is lost when it is found to hang and is killed; what it was only offered stays with the
/// old one, and what had not been offered goes to the one that replaces it.
#[test]
fn a_new_worker_that_stops_for_good_while_connections_move_costs_those_it_has() {
    let mut matrix = Matrix::start_with("0", Party::New, Signal::SIGSTOP);
    let steps = [
        at(Party::New, "migrate.new.offered"),
        at(Party::New, "migrate.new.accepted"),
        midway(Party::New, "migrate.new.booked"),
    ];
    matrix.run(&steps);
    let killed = steps.len() as u64;
    matrix.killed = killed;
    let (lab, seen, program) = matrix.only_crashes_lost();
    assert_everything_is_counted(&lab, &seen, killed);
    // The old one is not busy with a new one that is silent: it says so once, and before that, once, that
    // the new one may be reading.
    let complaints = program.log().matches("connections wait").count();
    assert!((1..=8 * steps.len()).contains(&complaints), "{complaints} complaints");
}

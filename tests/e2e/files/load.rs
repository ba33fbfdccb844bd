//! Every file changes all the time, under the full load: nobody notices.

use crate::harness::eventually::until;
use crate::harness::lab::{assert_nothing_lost, free_address, let_clients_work};
use crate::harness::program::send;
use crate::harness::{Lab, Program, client};
use baton_torture::{DynamicConfig, Flipper};
use nix::sys::signal::Signal;
use std::sync::Arc;
use std::time::Duration;

/// Each file changes so often.
const PERIOD: Duration = Duration::from_millis(100);

struct Flipping {
    lab: Lab,
    program: Program,
    flipper: Flipper,
    _directory: tempfile::TempDir,
}

impl Flipping {
    fn start() -> Self {
        let lab = Lab::new();
        let directory = tempfile::tempdir().expect("a directory");
        let files = DynamicConfig::new(lab.config, free_address(), directory.path());
        let files = Arc::new(files.expect("the files"));
        let program = Program::start(
            &files.bootstrap(),
            &["--concurrency", "2", "--drain-time-s", "5", "--parent-shutdown-time-s", "60"],
        );
        let flipper = Flipper::start(files, PERIOD);
        Self { lab, program, flipper, _directory: directory }
    }

    /// Ends the changes; the last ones are what serves.
    fn finish(self) -> Program {
        let last = self.flipper.finish().expect("the files can be written").last;
        until("the last version serves", || {
            client::request(self.lab.config.http, "GET", "/version")
                .is_ok_and(|found| found.body == last.name())
        });
        self.program
    }
}

#[test]
fn files_that_change_all_the_time_cost_nobody_anything_also_while_generations_change() {
    let flipping = Flipping::start();
    let load = flipping.lab.load();
    for _ in 0..5 {
        let_clients_work();
        flipping.program.reload();
    }
    let_clients_work();
    assert_nothing_lost(load);
    flipping.finish();
}

#[test]
fn supervisors_that_die_meanwhile_cost_nobody_anything() {
    let mut flipping = Flipping::start();
    let load = flipping.lab.load();
    for _ in 0..3 {
        let_clients_work();
        flipping.program.kill_supervisor();
        let_clients_work();
        flipping.program.launch_again();
        flipping.program.wait_until_serving();
    }
    assert_nothing_lost(load);
    flipping.finish();
}

#[test]
fn a_worker_that_dies_meanwhile_is_replaced_and_no_connect_is_refused() {
    let flipping = Flipping::start();
    let load = flipping.lab.load();
    for _ in 0..3 {
        let_clients_work();
        let (_, worker) = flipping.program.serving_now();
        send(worker, Signal::SIGKILL);
        until("another worker serves", || {
            flipping.program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
        });
    }
    let seen = load.finish();
    for class in [baton_torture::Class::ConnectFail, baton_torture::Class::WrongBytes] {
        assert_eq!(seen.total(class), 0, "{}", seen.failures_of(class).join("\n"));
    }
    flipping.finish();
}

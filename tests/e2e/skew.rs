//! Builds of different versions meet. They are made from one source: debug builds believe what
//! `BATON_TEST_PROTO` and `BATON_TEST_SHM_LAYOUT` say about the versions they speak.

use crate::harness::eventually::until;
use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::{Lab, Program, client, proc};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program under test.
const BATON: &str = env!("CARGO_BIN_EXE_baton");

/// The same program as another version; without variables as its own.
fn build(path: PathBuf, variables: &str) -> PathBuf {
    let unset = "unset BATON_TEST_PROTO BATON_TEST_SHM_LAYOUT";
    let text = format!("#!/bin/sh\n{unset}\n{variables} exec '{BATON}' \"$@\"\n");
    let new = path.with_extension("new");
    fs::write(&new, text).expect("write a program");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("make it executable");
    fs::rename(&new, &path).expect("put it in its place");
    path
}

fn upgrade(program: &Program, binary: &Path) {
    let output = program.command(&["upgrade", "--binary", &binary.to_string_lossy()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}: {text}", binary.display());
}

/// The sum of all lines of `baton stats` whose name ends like this.
fn number(stats: &str, name: &str) -> u64 {
    let lines = stats.lines().filter_map(|line| line.split_once(": "));
    let lines = lines.filter(|(found, _)| found.ends_with(name));
    lines.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum()
}

fn requests_so_far(program: &Program) -> u64 {
    let output = program.command(&["stats"]);
    number(&String::from_utf8_lossy(&output.stdout), "downstream_rq_2xx")
}

/// From this version to another one and back, under load, with a reload of each.
fn there_and_back(variables: &[&str]) {
    let lab = Lab::new();
    let program = lab.start_with(&["--probation-s", "1"]);
    let load = lab.load();
    let_clients_work();
    let mut counted = requests_so_far(&program);
    for (turn, variables) in variables.iter().chain(&[""]).enumerate() {
        let (before, _) = program.serving_now();
        let binary = build(program.path(&format!("build-{turn}")), variables);
        upgrade(&program, &binary);
        let_clients_work();
        program.reload();
        let_clients_work();
        assert!(program.serving_now().0 > before, "generations are counted on");
        let stats = Command::new(&binary)
            .args(["stats", "--control-socket"])
            .arg(program.path("control.sock"))
            .output()
            .expect("the command runs");
        assert!(stats.status.success(), "{}", String::from_utf8_lossy(&stats.stderr));
        let requests = number(&String::from_utf8_lossy(&stats.stdout), "downstream_rq_2xx");
        assert!(requests >= counted && requests > 0, "{counted} requests, then {requests}");
        counted = requests;
    }
    assert_nothing_lost(load);
    assert_eq!(program.segments(), 1, "segments of other layouts are gone");
}

#[test]
fn a_newer_protocol_comes_and_goes_without_a_loss() {
    there_and_back(&["BATON_TEST_PROTO=1..2"]);
}

#[test]
fn a_protocol_without_a_common_version_comes_and_goes_without_a_loss() {
    there_and_back(&["BATON_TEST_PROTO=2..3"]);
}

#[test]
fn another_layout_of_the_segment_comes_and_goes_without_a_loss() {
    there_and_back(&["BATON_TEST_SHM_LAYOUT=99", "BATON_TEST_SHM_LAYOUT=98 BATON_TEST_PROTO=2..3"]);
}

#[test]
fn a_new_worker_under_an_older_supervisor_is_refused_or_counts_for_itself() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let binary = directory.path().join("baton");
    fs::copy(BATON, &binary).expect("a program that can be replaced");
    let mut program = Program::launch_from(&binary, &lab.config.text(), &["--concurrency", "2"]);
    program.wait_until_serving();
    let before = program.serving_now();
    let load = lab.load();
    build(binary.clone(), "BATON_TEST_PROTO=2..3");
    let (code, text) = program.reload_with(&[]);
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("no common handoff protocol") && text.contains("baton upgrade"),
        "{text}"
    );
    assert_eq!(program.serving_now(), before, "the running generation is untouched");
    build(binary, "BATON_TEST_SHM_LAYOUT=99");
    let (code, text) = program.reload_with(&[]);
    assert_eq!(code, 0, "a worker with another layout serves: {text}");
    let_clients_work();
    assert_nothing_lost(load);
}

#[test]
fn a_supervisor_of_another_version_takes_workers_back_and_replaces_them() {
    let lab = Lab::new();
    let mut program = lab.start();
    let (generation, worker) = program.serving_now();
    let load = lab.load();
    let_clients_work();
    program.kill_supervisor();
    program.launch_again_as(&[("BATON_TEST_PROTO", "2..3"), ("BATON_TEST_SHM_LAYOUT", "99")]);
    until("a generation of the new version serves", || {
        program.serving().is_ok_and(|now| now.is_some_and(|(now, _)| now > generation))
    });
    let_clients_work();
    assert_nothing_lost(load);
    until("the older one ends", || {
        program.generations("serving").is_ok_and(|serving| serving.len() == 1)
    });
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    assert!(proc::is_alive(program.pid()) && worker != program.serving_now().1);
}

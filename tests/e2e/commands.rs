//! Commands and their exit codes.

use crate::harness::{Lab, Program};
use std::fs;
use std::process::{Command, Output};

fn baton(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton")).args(arguments).output().expect("the command runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

#[test]
fn the_exit_codes_are_the_documented_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let good = directory.path().join("good.yaml");
    let bad = directory.path().join("bad.yaml");
    let nobody = directory.path().join("nobody.sock");
    let text = Lab::new().config.text();
    fs::write(&good, &text).expect("write");
    fs::write(&bad, text.replace("cluster: up,", "cluster: nowhere,")).expect("write");
    let good = good.to_string_lossy().into_owned();
    let bad = bad.to_string_lossy().into_owned();
    let nobody = nobody.to_string_lossy().into_owned();

    assert_eq!(code(&baton(&["validate", &good])), 0);
    assert_eq!(code(&baton(&["validate", &bad])), 1);
    assert_eq!(code(&baton(&["run", "--mode", "validate", "-c", &good])), 0);
    assert_eq!(code(&baton(&["run", "--mode", "validate", "-c", &bad])), 1);
    assert_eq!(code(&baton(&["run", "-c", &bad, "--control-socket", &nobody])), 1);
    assert_eq!(code(&baton(&["run", "--no-such-flag"])), 2);
    assert_eq!(code(&baton(&["status", "--control-socket", &nobody])), 5);
    assert_eq!(code(&baton(&["reload", "--control-socket", &nobody])), 5);
    assert_eq!(code(&baton(&["--version"])), 0);
}

#[test]
fn reload_prints_the_phases_and_what_happened_to_connections() {
    let lab = Lab::new();
    let program = lab.start();
    let (code, text) = program.reload_with(&[]);
    assert_eq!(code, 0, "{text}");
    for word in ["warmed", "took over", "cut 0"] {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

#[test]
fn a_second_supervisor_with_the_same_control_socket_is_refused() {
    let lab = Lab::new();
    let program = lab.start();
    let socket = program.path("control.sock");
    let other = Lab::new();
    let path = program.path("other.yaml");
    fs::write(&path, other.config.text()).expect("write");
    let output = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["run", "-c"])
        .arg(&path)
        .arg("--control-socket")
        .arg(&socket)
        .args(["--base-id", &program.base_id().to_string()])
        .output()
        .expect("the command runs");
    assert_ne!(code(&output), 0);
    program.reload();
}

#[test]
fn stop_ends_the_program() {
    let lab = Lab::new();
    let mut program: Program = lab.start();
    let output = program.command(&["stop"]);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(program.wait().code(), Some(0));
}

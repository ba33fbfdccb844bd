//! Commands and their exit codes.

use crate::harness::eventually::until;
use crate::harness::program::send;
use crate::harness::{Lab, Program, client, proc};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};

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
fn what_a_start_refuses_validate_refuses_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let config = place("envoy.yaml");
    fs::write(&config, Lab::new().config.text()).expect("write");
    let (missing, inside) = (place("missing/file"), place("envoy.yaml/file"));
    let (here, long, words) = (place(""), place(&"y".repeat(200)), "w".repeat(9000));
    let bad: [&[&str]; 13] = [
        &["--log-path", &missing],
        &["--log-path", &here],
        &["--log-path", &inside],
        &["--log-level", "junk"],
        &["--component-log-level", "junk"],
        &["--component-log-level", "http:junk"],
        &["--component-log-level", "junk:info"],
        &["--base-id-path", &missing],
        &["--admin-address-path", &here],
        &["--control-socket", &long],
        &["--service-node", &words],
        &["--use-dynamic-base-id", "--restart-epoch", "1"],
        &["--stats-tag", "junk"],
    ];
    for flags in bad {
        let starts: [&[&str]; 3] =
            [&["validate", &config], &["--mode", "validate", "-c", &config], &["-c", &config]];
        for start in starts {
            let output = baton(&[start, flags].concat());
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(code(&output), 2, "{start:?} {flags:?}: {text}");
            assert!(output.stdout.is_empty(), "{start:?} {flags:?}");
        }
    }
    let (log, id, home) = (place("log"), place("id"), place("own/control.sock"));
    let files = ["--log-path", &log, "--base-id-path", &id, "--admin-address-path", &id];
    let others = ["--control-socket", &home, "--component-log-level", "misc:error,http:info"];
    let flags = [&files[..], &others[..]].concat();
    for start in [["validate", "-c", &config], ["--mode=validate", "-c", &config]] {
        let output = baton(&[&start[..], &flags[..]].concat());
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    }
    let names: Vec<_> = fs::read_dir(directory.path()).expect("list").collect();
    assert_eq!(names.len(), 1, "{names:?}");
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
fn stop_waits_for_connections_and_only_now_cuts_them() {
    let lab = Lab::new();
    let mut program: Program = lab.start();
    let mut held = client::connect(lab.config.tcp).expect("a tunnel");
    held.write_all(b"e").expect("ask for the echo");
    let ask = |arguments: &[&str]| program.command_line(arguments).spawn().expect("the command");
    let first = ask(&["stop"]);
    program.wait_until_stopping();
    let quick = program.command(&["stop", "--no-wait"]);
    assert_eq!(code(&quick), 0);
    let mut back = [0];
    held.write_all(b"x").expect("the tunnel is open");
    held.read_exact(&mut back).expect("nobody cut it");
    let second = ask(&["stop", "--now"]);
    for command in [first, second] {
        let output = command.wait_with_output().expect("the command ends");
        assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.lines().next_back().is_some_and(|l| l.starts_with("stopped after")), "{text}");
    }
    assert_eq!(program.wait().code(), Some(0));
    assert_eq!(code(&program.command(&["stop"])), 5);
}

#[test]
fn reload_waits_unless_told_otherwise() {
    let lab = Lab::new();
    let program = lab.start();
    let (code_of, text) = program.reload_with(&["--wait"]);
    assert_eq!((code_of, text.contains("serves after")), (0, true), "{text}");
    program.write_config("no: such\n  configuration");
    assert_eq!(program.reload_with(&[]).0, 1);
    let (code_of, text) = program.reload_with(&["--no-wait"]);
    assert_eq!((code_of, text.trim()), (0, "a reload was requested"));
}

#[test]
fn the_demo_leaves_nothing_behind_whatever_ends_it() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP] {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_baton"))
            .args(["demo", "--seconds", "600"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the demo starts");
        let mark = format!("baton-demo-{}", demo.id());
        let mut started = Vec::new();
        until("supervisor and worker run", || {
            started = proc::descendants(demo.id());
            started.len() >= 2
        });
        send(demo.id(), signal);
        demo.wait().expect("the demo ends");
        until("nothing of it lives", || !started.iter().any(|pid| proc::is_alive(*pid)));
        drop(fs::remove_dir_all(std::env::temp_dir().join(mark)));
    }
}

#[test]
fn stop_ends_the_program() {
    let lab = Lab::new();
    let mut program: Program = lab.start();
    let output = program.command(&["stop"]);
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(program.wait().code(), Some(0));
}

//! `baton upgrade` and SIGUSR2: the supervisor goes on as another program.

use crate::harness::eventually::{eventually, until};
use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::{Lab, Program, client, proc};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The program under test.
const BATON: &str = env!("CARGO_BIN_EXE_baton");

/// `baton upgrade` with these arguments; exit code and everything it printed.
fn upgrade(program: &Program, arguments: &[&str]) -> (i32, String) {
    let output = program.command(&[&["upgrade"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// An executable file in the program's directory.
fn script(program: &Program, name: &str, text: &str) -> String {
    let path = program.path(name);
    fs::write(&path, text).expect("write a program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
    path.to_string_lossy().into_owned()
}

fn executable(pid: u32) -> String {
    fs::read_link(format!("/proc/{pid}/exe")).expect("its program").to_string_lossy().into_owned()
}

#[test]
fn an_upgrade_under_load_keeps_the_process_and_loses_nothing() {
    let lab = Lab::new();
    let program = lab.start_with(&["--probation-s", "1"]);
    let copy = program.path("baton-new");
    fs::copy(BATON, &copy).expect("a second program");
    let load = lab.load();
    let pid = program.pid();
    for (count, binary) in [copy.as_path(), Path::new(BATON), &copy].into_iter().enumerate() {
        let_clients_work();
        let (before, worker) = program.serving_now();
        let (code, text) = upgrade(&program, &["--binary", &binary.to_string_lossy()]);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("upgraded") && text.contains("took over"), "{text}");
        assert_eq!(executable(pid), binary.to_string_lossy(), "the supervisor is the new program");
        let (after, new_worker) = program.serving_now();
        assert_eq!(after, before + 1);
        assert_eq!(executable(new_worker), binary.to_string_lossy(), "and so is the new worker");
        let status = program.status().expect("status");
        let reloads = status.get("reloads").and_then(serde_json::Value::as_u64);
        assert_eq!(reloads, Some(count as u64 + 1), "the state went on: {status}");
        assert!(worker != new_worker);
    }
    program.reload();
    assert_nothing_lost(load);
    // Children stayed children, so none of them is left as a zombie.
    eventually("older generations are reaped", || {
        let zombies: Vec<u32> = proc::descendants(pid)
            .into_iter()
            .filter(|pid| proc::state(*pid) == Some('Z'))
            .collect();
        if zombies.is_empty() { Ok(()) } else { Err(format!("{zombies:?}")) }
    });
    assert_eq!(program.segments(), 1);
}

#[test]
fn connections_of_a_draining_generation_outlive_an_upgrade() {
    let lab = Lab::new();
    let program = lab.start_with(&["--probation-s", "0", "--drain-strategy", "immediate"]);
    let mut tunnel = client::connect(lab.config.tcp).expect("a tunnel");
    tunnel.write_all(b"e").expect("ask for the echo");
    let mut say = |text: &[u8]| {
        tunnel.write_all(text).expect("send");
        let mut back = vec![0; text.len()];
        tunnel.read_exact(&mut back).expect("the echo");
        assert_eq!(back, text);
    };
    say(b"first");
    let (old, _) = program.serving_now();
    program.reload();
    let (code, text) = upgrade(&program, &[]);
    assert_eq!(code, 0, "{text}");
    say(b"after the upgrade");
    let draining = program.generations("draining").expect("status");
    assert!(draining.iter().any(|(generation, _)| *generation == old), "{draining:?}");
}

#[test]
fn sigusr2_upgrades_and_a_signal_that_comes_meanwhile_is_not_lost() {
    let lab = Lab::new();
    let mut program = lab.start();
    let (before, _) = program.serving_now();
    program.signal(Signal::SIGUSR2);
    until("a newer generation serves", || {
        program.serving().is_ok_and(|now| now.is_some_and(|(now, _)| now > before))
    });
    program.signal(Signal::SIGUSR2);
    program.signal(Signal::SIGTERM);
    assert_eq!(program.wait().code(), Some(0));
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let lab = Lab::new();
    let program = lab.start();
    let before = program.serving_now();
    let refuses =
        script(&program, "refuses", "#!/bin/sh\necho 'format 7 is too new' >&2\nexit 9\n");
    let hollow = program.path("hollow");
    fs::write(&hollow, "not a program").expect("write a file");
    let text_file = script(&program, "text", "not a program either");
    let truncated = script(&program, "truncated", "");
    let head: Vec<u8> = fs::read(BATON).expect("baton").into_iter().take(4096).collect();
    fs::write(&truncated, head).expect("half a program");
    let silent = script(&program, "silent", "#!/bin/sh\nexit 0\n");
    let parrot = script(&program, "parrot", "#!/bin/sh\ncat <&3\ncat <&3 >&3\nexit 0\n");
    let liar = format!("#!/bin/sh\n[ \"$1\" = adopt-check ] && exec '{BATON}' \"$@\"\nexit 0\n");
    let liar = script(&program, "liar", &liar);
    let dies =
        format!("#!/bin/sh\n[ \"$1\" = adopt-check ] && exec '{BATON}' \"$@\"\nkill -SEGV $$\n");
    let dies = script(&program, "dies", &dies);
    let cases = [
        (silent, "did not check the state"),
        (parrot, "did not check the state"),
        ("/bin/true".to_owned(), "did not check the state"),
        ("/bin/echo".to_owned(), "did not check the state"),
        (liar, "did not start"),
        (dies, "signal 11"),
        (text_file, "cannot"),
        (truncated, "cannot"),
        (program.path("").to_string_lossy().into_owned(), "cannot execute"),
        (refuses, "format 7 is too new"),
        (hollow.to_string_lossy().into_owned(), "cannot execute"),
        ("/nowhere/baton".to_owned(), "cannot execute"),
        ("/bin/false".to_owned(), "cannot take over"),
    ];
    for (binary, expected) in cases {
        let (code, text) = upgrade(&program, &["--binary", &binary]);
        assert_eq!(code, 3, "{binary}: {text}");
        assert!(text.contains("not upgraded") && text.contains(expected), "{binary}: {text}");
        assert_eq!(program.serving_now(), before, "{binary}");
        assert_eq!(executable(program.pid()), BATON, "{binary}");
    }
    // A configuration counts as well.
    program.write_config("no: such\n  configuration");
    let (code, text) = upgrade(&program, &[]);
    assert_eq!(code, 3, "a configuration the new program refuses: {text}");
    assert_eq!(program.serving_now(), before);
    program.write_config(&lab.config.text());
    program.reload();
}

#[test]
fn a_program_that_hangs_instead_of_starting_is_ended_with_all_it_started() {
    let lab = Lab::new();
    let program = lab.start_with(&["--start-timeout-s", "4"]);
    let before = program.serving_now();
    let mark = program.path("hangs-here");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = adopt-check ] && exec '{BATON}' \"$@\"\n\
         HANGS='{}' sleep 1000\n",
        mark.display()
    );
    let hangs = script(&program, "hangs", &text);
    let (code, text) = upgrade(&program, &["--binary", &hangs]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("did not answer in time"), "{text}");
    assert_eq!(program.serving_now(), before);
    until("it is gone", || proc::with_environment(&mark.to_string_lossy()).is_empty());
    program.reload();
}

#[test]
fn a_program_of_a_version_without_proofs_shows_that_it_read_the_state() {
    let lab = Lab::new();
    let program = lab.start();
    // It gets a copy of the state, so its proof is not seen, but what it prints is.
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = adopt-check ] || exec '{BATON}' \"$@\"\n\
         cat <&3 > '{0}'\nexec '{BATON}' \"$@\" 3<> '{0}'\n",
        program.path("state").display()
    );
    let older = script(&program, "older", &text);
    let (code, text) = upgrade(&program, &["--binary", &older]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn when_the_state_cannot_be_used_the_workers_come_back_and_nothing_is_lost() {
    let lab = Lab::new();
    let program = lab.start();
    let text = format!("#!/bin/sh\nBATON_TEST_STATE_UNUSABLE=1 exec '{BATON}' \"$@\"\n");
    let forgets = script(&program, "forgets", &text);
    let load = lab.load();
    let (before, _) = program.serving_now();
    let_clients_work();
    let (code, text) = upgrade(&program, &["--binary", &forgets]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("come back"), "{text}");
    assert_eq!(program.serving_now().0, before + 1);
    let_clients_work();
    assert_nothing_lost(load);
}

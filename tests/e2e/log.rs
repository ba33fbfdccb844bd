//! What the program says about itself on stderr.

use crate::harness::eventually::until;
use crate::harness::program::send;
use crate::harness::{Lab, Program, client};
use nix::sys::signal::Signal;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

#[test]
fn a_start_and_a_reload_say_what_was_read_warned_of_and_listened_on() {
    let lab = Lab::new();
    let text = format!(
        "{}\nlayered_runtime:\n  layers:\n  - name: x\n    static_layer: {{ nobody.reads.this: 1 }}\n",
        lab.config.text()
    );
    let program = Program::start(&text, &["--concurrency", "1"]);
    let path = program.config_path().display().to_string();
    let expected = [
        format!("configuration read path={path}"),
        format!("[warning][main] {path}:"),
        format!("listening listener=\"http\" address=tcp://{}", lab.config.http),
        format!("listening listener=\"admin\" address=tcp://{}", lab.config.admin),
    ];
    for line in &expected {
        assert!(program.log().contains(line), "`{line}` is missing");
    }
    let reads = |program: &Program| program.log().matches(&expected[0]).count();
    let warnings = |program: &Program| program.log().matches(&expected[1]).count();
    let warned = warnings(&program);
    send(program.pid(), Signal::SIGHUP);
    until("the reload is in the log", || {
        program.log().contains("asked by a signal: reload signal=\"HUP\"")
            && reads(&program) == 2
            && warnings(&program) == 2 * warned
    });
}

#[test]
fn whoever_asks_for_a_change_is_in_the_log() {
    let lab = Lab::new();
    let program = lab.start_with(&["--admin-allow-mutations", "--on-removed", "keep"]);
    let line = "asked by a signal: open log files again signal=\"USR1\"";
    program.signal(Signal::SIGUSR1);
    until(line, || program.log().contains(line));
    let pages = [
        ("/logging?paths=http:warning", "log\" component=\"http\" level=\"warning\""),
        ("/logging?level=info", "log\" component=\"\" level=\"info\""),
        ("/reset_counters", "interface action=\"reset counters\""),
        ("/healthcheck/fail", "interface action=\"fail health checks\""),
        ("/healthcheck/ok", "interface action=\"pass health checks again\""),
        ("/reopen_logs", "interface action=\"open log files again\""),
    ];
    for (page, line) in pages {
        assert_eq!(client::post(lab.config.admin, page).status, 200, "{page}");
        until(line, || program.log().contains(line));
    }
    let commands: [(&[&str], &str); 6] = [
        (&["reload", "--dry-run"], "reload dry_run=true force=false"),
        (&["reload", "--force", "--concurrency", "2"], "force=true concurrency=2"),
        (&["upgrade", "--binary", "/bin/false"], "upgrade binary=/bin/false"),
        (&["drain", "0"], "drain generation=0 strategy=\"immediate\""),
        (&["drain", "0", "--strategy", "gradual"], "strategy=\"gradual\""),
        (&["stop", "--now"], "stop now=true"),
    ];
    for (command, line) in commands {
        // Some are refused, which is no matter here.
        drop(program.command(command));
        until(line, || program.log().contains(line));
    }
}

#[test]
fn debug_tells_the_life_of_a_request_for_the_components_that_were_chosen() {
    let lab = Lab::new();
    let levels = "http:debug,router:debug,upstream:debug,connection:debug";
    let program = lab.start_with(&["--component-log-level", levels]);
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    let steps = [
        ("connection", "accepted connection="),
        ("http", "request stream="),
        ("http", "path=/echo/2/10"),
        ("router", "routed stream="),
        ("upstream", "connecting stream="),
        ("upstream", "connected stream="),
        ("http", "response stream="),
        ("http", "request ended stream="),
        ("connection", "closed connection="),
    ];
    for (component, step) in steps {
        until(step, || {
            program
                .log()
                .lines()
                .any(|line| line.contains(&format!("[debug][{component}] ")) && line.contains(step))
        });
    }

    let lab = Lab::new();
    let program = lab.start_with(&["--component-log-level", "router:debug"]);
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    until("the route is told", || program.log().contains("[debug][router] routed"));
    assert!(!program.log().contains("[debug][http]"));
}

/// Whether lines begin with the time, like `[2026-`; the number of a process may look like its first half.
fn has_time(log: &str) -> bool {
    log.match_indices("[20").any(|(at, _)| log.get(at + 5..at + 6) == Some("-"))
}

#[test]
fn the_journal_gets_priorities_and_no_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let run = |stream: &dyn Fn(&std::fs::Metadata) -> String| {
        let log = std::fs::File::create(&path).expect("a file");
        let stream = stream(&log.metadata().expect("its numbers"));
        let status = Command::new(env!("CARGO_BIN_EXE_baton"))
            .args(["run", "-c", "/nowhere/envoy.yaml", "--control-socket"])
            .arg(directory.path().join("control.sock"))
            .env("JOURNAL_STREAM", stream)
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .expect("the program runs");
        assert!(!status.success());
        std::fs::read_to_string(&path).expect("the log")
    };
    let log = run(&|file| format!("{}:{}", file.dev(), file.ino()));
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    assert!(log.contains("\n<3>baton: error: ") || log.starts_with("<3>baton: error: "), "{log}");
    assert!(log.contains("[error][main] no new generation") && !has_time(&log), "{log}");
    // Somebody put another file there.
    let log = run(&|file| format!("{}:{}", file.dev(), file.ino() + 1));
    assert!(!log.contains('<') && has_time(&log), "{log}");
}

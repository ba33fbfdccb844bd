//! The access log file is written and can be rotated.

use crate::harness::eventually::until;
use crate::harness::{Lab, Program, client};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// The usual configuration with a log file.
fn with_log(lab: &Lab, path: &Path) -> String {
    let log = format!(
        "                stat_prefix: ingress_http
                access_log:
                  - name: envoy.access_loggers.file
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                      path: {}
",
        path.display()
    );
    lab.config.text().replace("                stat_prefix: ingress_http\n", &log)
}

#[test]
fn the_log_is_reopened_on_usr1_and_no_line_is_lost() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let rotated = directory.path().join("access.log.1");
    let program = Program::start(&with_log(&lab, &path), &["--concurrency", "2"]);
    for _ in 0..20 {
        assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    }
    until("20 lines are written", || lines(&path) == 20);
    fs::rename(&path, &rotated).expect("rotate the log");
    program.signal(Signal::SIGUSR1);
    until("a new file is there", || path.exists());
    for _ in 0..20 {
        assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    }
    until("40 lines are written in all", || lines(&path) + lines(&rotated) == 40);
    program.reload();
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    until("the next generation appends", || lines(&path) + lines(&rotated) == 41);
    let text = fs::read_to_string(&path).expect("the log");
    assert!(text.contains("\"GET /echo/2/10 HTTP/1.1\" 200"), "{text}");
}

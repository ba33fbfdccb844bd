//! Flags by which launchers find their proxy and its log.

use crate::harness::eventually::until;
use crate::harness::{Lab, client};
use nix::sys::signal::Signal;
use std::fs;

#[test]
fn the_log_goes_to_a_file_in_the_wanted_form_and_usr1_opens_it_again() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let (path, rotated) = (directory.path().join("log"), directory.path().join("log.1"));
    let flag = format!("--log-path={}", path.display());
    let program = lab.start_with(&[&flag, "--log-format", "%L|%n|%P|%v"]);
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let (_, worker) = program.serving_now();
    let lines_of = |pid: u32| format!("|main|{pid}|");
    until("supervisor and worker are in it", || {
        let log = text(&path);
        log.contains(&lines_of(program.pid())) && log.contains(&lines_of(worker))
    });
    assert!(text(&path).lines().all(|line| line.starts_with("I|")), "{}", text(&path));
    fs::rename(&path, &rotated).expect("rotate the log");
    program.signal(Signal::SIGUSR1);
    until("a new file is there", || path.exists());
    program.reload();
    let (_, second) = program.serving_now();
    until("both workers write to the new file", || {
        let log = text(&path);
        [program.pid(), worker, second].into_iter().all(|pid| log.contains(&lines_of(pid)))
    });
    assert_eq!(program.log(), "", "nothing is left on standard error");
}

#[test]
fn a_log_that_takes_no_more_is_told_and_counted() {
    let lab = Lab::new();
    let program = lab.start_with(&["--log-path", "/dev/full"]);
    let words = "baton: error: cannot write the log: No space left on device";
    until("both processes tell it", || program.log().matches(words).count() == 2);
    let lost = || {
        let stats = client::get(lab.config.admin, "/stats?filter=baton.log.lost.program").body;
        stats.split(": ").nth(1).and_then(|number| number.trim().parse().ok()).unwrap_or(0_u64)
    };
    until("it is counted", || lost() > 0);
    program.reload();
    until("a new worker tells it, too", || program.log().matches(words).count() == 3);
}

#[test]
fn the_addresses_and_the_zone_that_a_launcher_wants_are_told() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let (admin, id) = (directory.path().join("admin"), directory.path().join("id"));
    let flags = [
        format!("--admin-address-path={}", admin.display()),
        format!("--base-id-path={}", id.display()),
    ];
    let program = lab.start_with(&[&flags[0], &flags[1], "--service-zone", "west"]);
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    until("the address is written", || text(&admin) == lab.config.admin.to_string());
    assert_eq!(text(&id), program.base_id().to_string());
    let info = client::get(lab.config.admin, "/server_info").body;
    assert!(info.contains("\"west\""), "{info}");
}

#[test]
fn a_free_base_id_is_found_and_kept_by_an_upgrade() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("id");
    let flag = format!("--base-id-path={}", path.display());
    let mut program = lab.start_with(&["--use-dynamic-base-id", &flag]);
    let id: u32 = fs::read_to_string(&path).expect("the id").parse().expect("a number");
    assert_ne!(id, program.base_id());
    let shown = |lab: &Lab| client::get(lab.config.admin, "/server_info").body;
    assert!(shown(&lab).contains(&format!("\"base_id\": \"{id}\"")), "{}", shown(&lab));
    let output = program.command(&["upgrade"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown(&lab).contains(&format!("\"base_id\": \"{id}\"")), "{}", shown(&lab));
    program.signal(Signal::SIGTERM);
    assert!(program.wait().success());
}

//! Configurations that must be refused, and that nobody notices them.

use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::{Lab, client};
use std::fs;
use std::path::Path;

/// Reloads in a row that must be refused.
const BAD_RELOADS: usize = 1000;

#[test]
fn a_bad_configuration_changes_nothing_and_the_next_good_one_works() {
    let mut lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    let good = lab.config.text();
    for _ in 0..3 {
        let (before, _) = program.serving_now();
        program.write_config(&good.replace("cluster: up,", "cluster: nowhere,"));
        let (code, text) = program.reload_with(&[]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("nowhere"), "the reason is told: {text}");
        assert_eq!(program.serving_now().0, before);
        lab.config.extra_route = !lab.config.extra_route;
        program.write_config(&lab.config.text());
        program.reload();
        let_clients_work();
    }
    assert_nothing_lost(load);
}

#[test]
fn a_thousand_mistakes_are_refused_and_then_a_good_configuration_works() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    let before = program.serving_now();
    let mistakes = Path::new(env!("CARGO_MANIFEST_DIR")).join("worker/tests/data/mistakes");
    let entries = fs::read_dir(mistakes).expect("the curated mistakes");
    let files: Vec<_> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    assert!(files.len() >= 60, "only {} mistakes", files.len());
    for path in files.iter().cycle().take(BAD_RELOADS) {
        fs::copy(path, program.config_path()).expect("copy a mistake");
        let (code, text) = program.reload_with(&[]);
        assert_eq!(code, 1, "{} was not refused: {text}", path.display());
    }
    assert_eq!(program.serving_now(), before, "the generation that serves was left alone");
    program.write_config(&lab.config.text());
    program.reload();
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    assert_nothing_lost(load);
}

#[test]
fn a_missing_configuration_file_is_refused() {
    let lab = Lab::new();
    let program = lab.start();
    fs::remove_file(program.config_path()).expect("remove the configuration");
    let (code, text) = program.reload_with(&[]);
    assert_ne!(code, 0, "{text}");
    program.write_config(&lab.config.text());
    program.reload();
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let mut lab = Lab::new();
    let program = lab.start();
    let before = program.serving_now();
    lab.config.extra_route = true;
    program.write_config(&lab.config.text());
    let (code, text) = program.reload_with(&["--dry-run"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(program.serving_now(), before);
    assert_eq!(client::get(lab.config.http, "/added").status, 404);
}

//! Every file in `tests/data/mistakes` has a mistake; what baton says about it is kept next to it.
//!
//! `BLESS=1 cargo test -p baton-worker --test config_mistakes` writes the texts anew.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{fs, path::PathBuf};

use baton_worker::config::{
    diagnostics::{self, Diagnostic},
    load::{Source, load},
};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/mistakes")
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_none_or(|e| e != "txt")).collect();
    files.sort();
    files
}

fn diagnose(path: &std::path::Path) -> Vec<Diagnostic> {
    // Only the name, so that the texts do not depend on the place of the repository.
    let name = PathBuf::from(path.file_name().unwrap());
    let source = Source { path: name, bytes: fs::read(path).unwrap() };
    match load(&source, &baton_worker::extension::load_options()) {
        Ok(loaded) => loaded.warnings,
        Err(list) => list,
    }
}

#[test]
fn each_mistake_is_explained_as_before() {
    let mut wrong = Vec::new();
    for path in files() {
        let text = diagnostics::render(&diagnose(&path));
        let golden = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &text).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{}\n{text}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "set BLESS=1 to accept:\n{}", wrong.join("\n"));
}

#[test]
fn each_mistake_is_an_error_with_a_position() {
    let files = files();
    assert!(files.len() >= 60, "{}", files.len());
    for path in files {
        let list = diagnose(&path);
        assert!(list.iter().any(Diagnostic::is_error), "{} is accepted", path.display());
        let lines = fs::read(&path).unwrap().split(|b| *b == b'\n').count();
        for diagnostic in list {
            let line = usize::try_from(diagnostic.line).unwrap();
            assert!(line >= 1 && line <= lines && diagnostic.column >= 1, "{diagnostic}");
            let first = diagnostic.to_string();
            let first = first.lines().next().unwrap();
            let position = format!(":{}:{}: ", diagnostic.line, diagnostic.column);
            assert!(first.contains(&position), "{first}");
        }
    }
}

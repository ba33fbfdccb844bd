//! Rooms of the worker. A room is a directory with the file of its name: `cluster.rs` and what lies in
//! `cluster/`. A file of one room that uses another room must not be used by it in return, on whatever
//! way: such a circle can only be understood, changed and tested as a whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use super::source::Uses;

/// Circles that are still there. This list gets shorter only.
const HELD: &[(&str, &str)] = &[
    ("cluster", "cluster::discovery"),
    ("config", "config::decode"),
    ("config", "config::lower"),
    ("config", "config::schema"),
    ("config", "config::support"),
    ("config::decode", "config::schema"),
    ("config::schema", "config::support"),
    ("filter::network", "filter::network::hcm"),
    ("filter::network::hcm", "filter::network::hcm::retry"),
    ("server", "server::startup"),
    ("server", "server::threads"),
    ("server::startup", "server::threads"),
];

/// The files of a crate by module, and which of them each uses.
#[derive(Debug)]
pub(super) struct Crate {
    used: BTreeMap<String, BTreeSet<String>>,
    /// The paths that each file uses, from the root of the crate.
    pub(super) paths: BTreeMap<String, BTreeSet<String>>,
}

impl Crate {
    /// Reads all files, given by module and text. Those of tests are left out.
    pub(super) fn new(files: &[(String, String)]) -> Self {
        let read: Vec<_> = files.iter().map(|(module, text)| (module, Uses::of(text))).collect();
        let tests: Vec<String> = read
            .iter()
            .flat_map(|(module, uses)| uses.tests.iter().map(move |it| format!("{module}::{it}")))
            .collect();
        let is_test = |module: &str| {
            tests.iter().any(|test| {
                module
                    .strip_prefix(&**test)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            })
        };
        let modules = files.iter().map(|(module, _)| module.clone());
        let modules: BTreeSet<String> = modules.filter(|module| !is_test(module)).collect();
        let mut this = Self { used: BTreeMap::new(), paths: BTreeMap::new() };
        for (module, uses) in read {
            if !modules.contains(module) {
                continue;
            }
            let paths = uses.resolve(module, &modules);
            let files = paths.iter().filter_map(|path| file_of(path, &modules));
            let files = files.filter(|file| *file != module).map(str::to_owned).collect();
            this.used.insert(module.clone(), files);
            this.paths.insert(module.clone(), paths);
        }
        this
    }

    /// Whether there is a file for this module.
    pub(super) fn has(&self, module: &str) -> bool {
        self.used.contains_key(module)
    }

    /// The room of a file. A file at the top without a directory is a room of its own.
    fn room<'a>(&self, module: &'a str) -> &'a str {
        let inner = format!("{module}::");
        let is_room = self.used.keys().any(|other| other.starts_with(&inner));
        if is_room { module } else { module.rsplit_once("::").map_or(module, |(room, _)| room) }
    }

    /// The shortest way by which one file uses another.
    fn way<'a>(&'a self, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
        let mut before = BTreeMap::from([(from, from)]);
        let mut waiting = VecDeque::from([from]);
        while let Some(file) = waiting.pop_front() {
            if file == to {
                let mut way = vec![file];
                while let Some(last) = way.last().copied().filter(|last| *last != from) {
                    way.extend(before.get(last));
                }
                way.reverse();
                return Some(way);
            }
            for next in self.used.get(file).into_iter().flatten() {
                if !before.contains_key(&**next) {
                    before.insert(next, file);
                    waiting.push_back(next);
                }
            }
        }
        None
    }

    /// Pairs of rooms that use each other in a circle, with the ways.
    fn circles(&self) -> BTreeMap<(&str, &str), String> {
        let mut circles = BTreeMap::<(&str, &str), String>::new();
        for (file, used) in &self.used {
            for other in used {
                let (left, right) = (self.room(file), self.room(other));
                if left == right {
                    continue;
                }
                let Some(way) = self.way(other, file) else { continue };
                let pair = if left < right { (left, right) } else { (right, left) };
                let text = circles.entry(pair).or_default();
                write!(text, "\n    {file} → {}", way.join(" → ")).expect("a string takes all");
            }
        }
        circles
    }
}

/// The file that a path leads to: the longest part of it that is one.
fn file_of<'a>(path: &'a str, modules: &BTreeSet<String>) -> Option<&'a str> {
    let mut part = path;
    while !modules.contains(part) {
        part = part.rsplit_once("::")?.0;
    }
    Some(part)
}

#[test]
fn rooms_of_the_worker_do_not_use_each_other_in_circles() {
    let worker = super::worker();
    let circles = worker.circles();
    let mut violations = Vec::new();
    for (pair, ways) in &circles {
        if !HELD.contains(pair) {
            violations.push(format!("{} and {}:{ways}", pair.0, pair.1));
        }
    }
    for pair in HELD.iter().filter(|pair| !circles.contains_key(*pair)) {
        violations.push(format!("{} and {} do not any more: take them off `HELD`", pair.0, pair.1));
    }
    super::report(
        "no circle of imports between rooms but those in tests/tidy/rooms.rs",
        &violations,
    );
}

#[test]
fn a_circle_of_rooms_is_found_on_whatever_way() {
    let files = [
        ("a", "use own::X; use crate::c::Y;"),
        ("a::own", "use super::Z;"),
        ("a::other", "use crate::c::inner::far;"),
        ("c", "mod inner;"),
        ("c::inner", "fn f() { crate::single::g() }"),
        ("single", "use crate::a::other::T;"),
        ("c::tests", "use crate::a::X;"),
    ];
    let files = files.map(|(module, text)| (module.to_owned(), text.to_owned()));
    let found = Crate::new(&files);
    let pairs: Vec<_> = found.circles().into_keys().collect();
    assert_eq!(pairs, [("a", "c"), ("a", "single"), ("c", "single")]);
}

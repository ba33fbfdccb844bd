//! Rules of the house that no compiler lint can express. `docs/STYLE.md` gives the reasons.
#![allow(clippy::expect_used, clippy::panic, reason = "a test tells what is wrong by ending")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/arguments.rs"]
mod arguments;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/source.rs"]
mod source;

/// Longest file before its tests, in lines.
const FILE_LINES_MAX: usize = 500;

/// The only files that may contain `unsafe` code.
const UNSAFE_FILES: &[&str] = &[
    "contract/src/channel.rs",
    "contract/src/shm/map.rs",
    "supervisor/src/sys.rs",
    "worker/src/sys/",
];

/// Modules of the worker by layer, lowest first. A module uses its own layer and lower ones. A
/// submodule may have a layer of its own; the longest name that fits decides.
const LAYERS: &[&[&str]] = &[
    &[
        "sys",
        "clock",
        "buffer",
        "deadline",
        "file_watch",
        "log_control",
        "progress",
        "activity",
        "seldom",
    ],
    &["config", "format", "stats", "http::head", "http::headers", "http::stream_info"],
    &["transport", "outbox", "drain", "escrow"],
    &["http", "access_log", "tunnel", "migrate"],
    &["cluster", "upstream"],
    &["route"],
    &["thread", "filter", "extension"],
    &["listener"],
    &["handoff"],
    &["admin", "server"],
];

/// What each package of ours may use of the others.
const PACKAGES: &[(&str, &[&str])] =
    &[("contract", &[]), ("supervisor", &["baton_contract"]), ("worker", &["baton_contract"])];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the repository with this extension, relative to the root, without build output.
fn files(extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" && name != "corpus" {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                // Some test data is not UTF-8 on purpose.
                let bytes = fs::read(&path).expect("a readable file");
                found.push((relative(&path), String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

/// Whether a file is part of the program.
fn is_shipped(name: &str) -> bool {
    let places = ["src/", "supervisor/src/", "worker/src/", "contract/src/"];
    places.into_iter().any(|place| name.starts_with(place))
}

/// Ends the test with every violation at once.
fn report(rule: &str, violations: &[String]) {
    let mut text = String::new();
    for violation in violations {
        writeln!(text, "  {violation}").expect("a string takes all");
    }
    assert!(violations.is_empty(), "{rule}:\n{text}");
}

/// The code of a file without the tests at its end. Modules of tests in other files end nothing.
fn before_tests(text: &str) -> &str {
    for (at, mark) in text.match_indices("\n#[cfg(test)]\n") {
        let (code, rest) = text.split_at(at);
        let item = rest.split_at(mark.len()).1.lines().find(|line| !line.starts_with("#["));
        if item.is_some_and(|item| item.starts_with("mod ") && item.ends_with('{')) {
            return code;
        }
    }
    text
}

#[test]
fn code_goes_on_behind_a_module_of_tests_in_another_file() {
    let head = "mod a;\n#[cfg(test)]\nmod tests;\nuse a::B;\n#[cfg(test)]\nfn only_in_tests() {}";
    assert_eq!(before_tests(head), head);
    let inline = format!("{head}\n#[cfg(test)]\n#[expect(unused)]\nmod tests {{\n}}\n");
    assert_eq!(before_tests(&inline), head);
}

#[test]
fn every_file_says_what_it_is() {
    let violations: Vec<String> = files("rs")
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| format!("{name} does not begin with `//! `"))
        .collect();
    report("the head of a file says what it is and what it is not", &violations);
}

#[test]
fn no_file_is_too_long() {
    let violations: Vec<String> = files("rs")
        .into_iter()
        .filter(|(name, _)| !name.ends_with("/tests.rs") && !name.contains("/tests/"))
        .map(|(name, text)| (name, before_tests(&text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(name, lines)| format!("{name} has {lines} lines"))
        .collect();
    report("a file has at most 500 lines before its tests", &violations);
}

#[test]
fn no_module_lives_in_mod_rs() {
    let violations: Vec<String> = files("rs")
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.ends_with("/mod.rs"))
        .collect();
    report("a module is `foo.rs` beside `foo/`", &violations);
}

/// Where the debug form of a value never reaches a user: it is printed for ourselves, by a test.
const DEBUG_FORM_ALLOWED: &[&str] = &["worker/src/config/support/document.rs"];

/// Whether a line of code prints a value in the form that is for programmers.
fn prints_debug_form(line: &str) -> bool {
    let code = line.trim_start();
    // `?value` and `name = ?value` in a log line.
    let field = |mark: &str| {
        let mut rest = code.split(mark).skip(1);
        rest.any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    };
    !code.starts_with("//")
        && (code.contains(":?}")
            || code.contains(":#?}")
            || code.contains("field::debug")
            || ["!(?", ", ?", "= ?"].into_iter().any(field)
            || (code.starts_with('?') && field("?")))
}

#[test]
fn no_debug_form_reaches_a_user() {
    assert!(prints_debug_form("tracing::info!(%generation, ?state, \"x\");"));
    assert!(prints_debug_form("sink = ?self.sink,") && prints_debug_form("    ?error,"));
    assert!(prints_debug_form("format!(\"{left} {right:?}\")"));
    assert!(!prints_debug_form("let x = y?; // {:?}") || !prints_debug_form("f(x?, y)?;"));
    let mut violations = Vec::new();
    for (name, text) in files("rs") {
        let is_test = name.ends_with("/tests.rs") || name.contains("/tests/");
        if is_test || DEBUG_FORM_ALLOWED.contains(&name.as_str()) || !is_shipped(&name) {
            continue;
        }
        for (number, line) in before_tests(&text).lines().enumerate() {
            if prints_debug_form(line) {
                violations.push(format!("{name}:{} {}", number + 1, line.trim()));
            }
        }
    }
    report("a message says it in words: `Display` or `as_str`, not the debug form", &violations);
}

#[test]
fn unsafe_code_is_in_the_listed_files_only() {
    let violations: Vec<String> = files("rs")
        .into_iter()
        .filter(|(name, _)| name != "tests/tidy.rs" && !name.starts_with("fuzz/"))
        .filter(|(name, _)| !UNSAFE_FILES.iter().any(|allowed| name.starts_with(allowed)))
        .filter(|(_, text)| text.lines().any(opens_unsafe))
        .map(|(name, _)| name)
        .collect();
    report("`unsafe` is allowed in the files listed in tests/tidy.rs", &violations);
}

fn opens_unsafe(line: &str) -> bool {
    let code = line.trim_start();
    let opens = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];
    !code.starts_with("//") && opens.iter().any(|form| code.contains(form))
}

#[test]
fn work_left_over_names_its_issue() {
    let marks = ["TODO", "FIXME", "XXX"];
    let mut violations = Vec::new();
    for (name, text) in files("rs") {
        for (number, line) in text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            let marked = marks.iter().find(|mark| {
                comment.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == **mark)
            });
            let Some(mark) = marked else { continue };
            if name != "tests/tidy.rs" && !comment.contains(&format!("{mark}(#")) {
                violations.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    report("write `TODO(#12): …` with the number of an issue", &violations);
}

#[test]
fn no_test_is_switched_off() {
    let mut violations = Vec::new();
    for (name, text) in files("rs") {
        if name != "tests/tidy.rs" && text.lines().any(|line| line.trim().starts_with("#[ignore")) {
            violations.push(name);
        }
    }
    report("a test that is not run proves nothing", &violations);
}

#[test]
fn nothing_names_a_machine_it_was_written_on() {
    let places = ["/home/", "/root/", "/work/", "/Users/"];
    let mut violations = Vec::new();
    for extension in ["rs", "md", "toml", "yaml", "yml", "sh", "service"] {
        for (name, text) in files(extension) {
            for (number, line) in text.lines().enumerate() {
                if name != "tests/tidy.rs" && places.iter().any(|place| line.contains(place)) {
                    violations.push(format!("{name}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    report("paths of one machine do not belong here", &violations);
}

#[test]
fn packages_use_only_what_lies_below_them() {
    let ours = ["baton_contract", "baton_supervisor", "baton_worker"];
    let mut violations = Vec::new();
    for (package, allowed) in PACKAGES {
        for (name, text) in files("rs") {
            if !name.starts_with(&format!("{package}/src/")) {
                continue;
            }
            for other in ours.iter().filter(|other| !allowed.contains(other)) {
                let names = |line: &str| !is_comment(line) && line.contains(other);
                // A log line may name the component it belongs to by the module.
                let is_target = |line: &str| line.contains("target: \"");
                if text.lines().any(|line| names(line) && !is_target(line)) {
                    violations.push(format!("{name} uses {other}"));
                }
            }
        }
    }
    report("the supervisor and the worker meet in the contract only", &violations);
}

#[test]
fn the_contract_and_the_supervisor_know_no_async_runtime() {
    let mut violations = Vec::new();
    for package in ["contract", "supervisor"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml"))
            .expect("the manifest of a package");
        for banned in ["tokio", "hyper", "prost"] {
            if manifest.lines().any(|line| line.starts_with(banned)) {
                violations.push(format!("{package} depends on {banned}"));
            }
        }
    }
    report("the long-lived process stays small", &violations);
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The layer of a path such as `http::head`; the longest name in the list decides.
fn layer_of(path: &str) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    for (layer, modules) in LAYERS.iter().enumerate() {
        for module in *modules {
            let fits = path == *module
                || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"));
            if fits && best.is_none_or(|(length, _)| module.len() > length) {
                best = Some((module.len(), layer));
            }
        }
    }
    best.map(|(_, layer)| layer)
}

/// The module path of a file of the worker: `src/http/head.rs` is `http::head`.
fn module_of(name: &str) -> Option<String> {
    let path = name.strip_prefix("worker/src/")?.strip_suffix(".rs")?;
    (path != "lib").then(|| path.replace('/', "::"))
}

/// The worker's files.
fn worker() -> rooms::Crate {
    let files = files("rs").into_iter();
    let files: Vec<_> = files.filter_map(|(name, text)| Some((module_of(&name)?, text))).collect();
    rooms::Crate::new(&files)
}

#[test]
fn a_module_of_the_worker_uses_only_its_own_layer_and_lower_ones() {
    let mut violations = Vec::new();
    for (module, paths) in &worker().paths {
        let Some(own) = layer_of(module) else {
            violations.push(format!("{module} is in no layer: add it to LAYERS in tests/tidy.rs"));
            continue;
        };
        for path in paths {
            if layer_of(path).is_some_and(|layer| layer > own) {
                violations.push(format!("{module} (layer {own}) uses {path}"));
            }
        }
    }
    report("a module uses its own layer and lower ones", &violations);
}

#[test]
fn every_module_in_a_layer_exists() {
    let worker = worker();
    let named = LAYERS.iter().flat_map(|modules| *modules).copied();
    let violations: Vec<String> =
        named.filter(|module| !worker.has(module)).map(str::to_owned).collect();
    report("the list of layers names modules that exist", &violations);
}

#[test]
fn the_layer_of_a_submodule_goes_before_the_layer_of_its_parent() {
    assert_eq!(layer_of("http::head::Method"), Some(1));
    assert_eq!(layer_of("http::connection"), layer_of("http"));
    assert_eq!(layer_of("httpx"), None);
}

#[test]
fn every_document_can_be_found() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap_or_default();
    let index = read("README.md") + &read("docs/ARCHITECTURE.md") + &read("docs/README.md");
    let violations: Vec<String> = files("md")
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("docs/") && name != "docs/README.md")
        .filter(|name| {
            let short = name.trim_start_matches("docs/");
            !index.contains(&format!("({short})")) && !index.contains(&format!("({name})"))
        })
        .collect();
    report("README.md, docs/README.md or docs/ARCHITECTURE.md links every document", &violations);
}

#[test]
fn every_link_in_a_document_leads_somewhere() {
    let mut violations = Vec::new();
    for (name, text) in files("md") {
        let directory = root().join(&name).parent().map_or_else(PathBuf::new, Path::to_path_buf);
        for part in text.split("](").skip(1) {
            let Some((target, _)) = part.split_once(')') else { continue };
            let target = target.split('#').next().unwrap_or_default();
            let is_local = !target.is_empty() && !target.contains(':') && !target.contains(' ');
            if is_local && !directory.join(target).exists() {
                violations.push(format!("{name} links to {target}"));
            }
        }
    }
    report("links lead somewhere", &violations);
}

/// The strings that follow `call` in the code, up to their closing quote.
fn literals_after<'a>(text: &'a str, call: &str) -> impl Iterator<Item = &'a str> {
    let code = before_tests(text);
    code.split(call).skip(1).filter_map(|rest| {
        let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(name)
    })
}

#[test]
fn the_table_of_fault_points_is_the_code() {
    let mut in_code = BTreeSet::new();
    for (name, text) in files("rs") {
        if name.contains("/src/") || name.starts_with("src/") {
            in_code.extend(literals_after(&text, "fault::point(").map(str::to_owned));
            in_code.extend(literals_after(&text, "fault::point_of(").map(|g| format!("{g}.*")));
        }
    }
    let table = fs::read_to_string(root().join("docs/FAULT_POINTS.md")).expect("the table");
    let (_, rows) = table.split_once("| point |").expect("a table of points");
    let in_table: BTreeSet<String> = rows
        .lines()
        .filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    let differences: Vec<String> = in_code
        .symmetric_difference(&in_table)
        .map(|name| {
            let place = if in_code.contains(name) { "the code" } else { "the table" };
            format!("`{name}` is in {place} only")
        })
        .collect();
    assert!(in_code.len() > 20, "only {in_code:?} were found");
    report("docs/FAULT_POINTS.md lists the fault points of the code", &differences);
}

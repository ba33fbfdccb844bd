//! The part of fault points that release builds do not contain: reads the order and obeys.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use nix::sys::signal::{Signal, raise};

use super::{Action, Order};

/// The order this process saw last, and how often it passed its point since.
static PASSED: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

/// The file of the test; `None` = this process is not under test.
fn file() -> Option<&'static Path> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os("BATON_FAULT_FILE").map(PathBuf::from)).as_deref()
}

/// Does what the order says, if it is about this point.
pub(super) fn obey(name: &str) {
    let Some(file) = file() else { return };
    let text = fs::read_to_string(file).unwrap_or_default();
    let Some(order) = Order::parse(&text).filter(|order| order.point == name) else { return };
    if order.passing.is_none_or(|wanted| is_passing(wanted, &text) && use_up(file)) {
        act(order.action, file);
    }
}

/// Counts this passing of the order's point; true when it is the wanted one.
fn is_passing(wanted: u64, order: &str) -> bool {
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    if passed.0 != order {
        *passed = (order.to_owned(), 0);
    }
    passed.1 = passed.1.saturating_add(1);
    let reached = passed.1 == wanted;
    if reached {
        // The same order may come again.
        *passed = (String::new(), 0);
    }
    reached
}

/// Takes the order away, so that nobody else obeys it, and tells the test who does; false when
/// somebody else was faster.
fn use_up(file: &Path) -> bool {
    let (mine, told) = (beside(file, "used"), beside(file, "fired"));
    fs::rename(file, &mine).is_ok()
        && fs::write(&mine, std::process::id().to_string()).is_ok()
        && fs::rename(&mine, told).is_ok()
}

/// `FILE.name`.
fn beside(file: &Path, name: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".");
    path.push(name);
    path.into()
}

#[expect(clippy::panic, reason = "a test asked for it")]
fn act(action: Action, file: &Path) {
    match action {
        Action::Kill => drop(raise(Signal::SIGKILL)),
        Action::Stop => drop(raise(Signal::SIGSTOP)),
        Action::Panic => panic!("a test asked for it"),
        Action::Hang => loop {
            std::thread::park();
        },
        Action::Spin => loop {
            std::hint::spin_loop();
        },
        Action::Wait => wait(file),
    }
}

/// A test that has gone away lets the process go on: both pipes then fail or end.
fn wait(file: &Path) {
    let here = fs::File::options().write(true).open(beside(file, "here"));
    let told = here.and_then(|mut here| writeln!(here, "{}", std::process::id()));
    if told.is_ok()
        && let Ok(mut go) = fs::File::open(beside(file, "go"))
    {
        drop(go.read_to_end(&mut Vec::new()));
    }
}

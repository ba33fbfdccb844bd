//! Named points where a test can make this process die or hang. Compiled into debug builds only.
//!
//! The environment variable `BATON_FAULT_FILE` names a file with `point:action` in it. It is read at
//! every point, so a test decides between two reloads what shall happen in the next one. Without
//! the variable, and in a release build, a point does nothing.

/// Does what the test asked for at this point: `kill` (SIGKILL to this process), `panic`, or
/// `hang` (this thread never goes on).
pub fn point(name: &str) {
    if cfg!(debug_assertions) {
        obey(name);
    }
}

fn obey(name: &str) {
    let Some(path) = std::env::var_os("BATON_FAULT_FILE") else { return };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match text.trim().split_once(':') {
        Some((wanted, action)) if wanted == name => act(action),
        Some(_) | None => {}
    }
}

#[expect(clippy::panic, reason = "a test asked for it")]
fn act(action: &str) {
    use nix::sys::signal::{Signal, raise};
    match action {
        "kill" => drop(raise(Signal::SIGKILL)),
        "panic" => panic!("a test asked for it"),
        "hang" => loop {
            std::thread::park();
        },
        _ => {}
    }
}

//! A new generation that dies or hangs at each step: the old one must not notice.

use crate::harness::lab::assert_nothing_lost;
use crate::harness::{Lab, client, proc};

/// Steps of a new generation before it has taken over, in their order.
const POINTS: [&str; 5] = ["hello", "config", "listeners", "warm", "ready"];

/// Every point with one action, under load; then a reload without a fault.
fn check(action: &str) {
    let lab = Lab::new();
    let timeouts = ["--start-timeout-s", "1", "--warm-timeout-s", "1"];
    let program = lab.start_with(&timeouts);
    let load = lab.load();
    let before = program.serving_now();
    for point in POINTS {
        program.set_fault(&format!("{point}:{action}"));
        let (code, text) = program.reload_with(&[]);
        assert_ne!(code, 0, "a generation that should {action} at {point} took over: {text}");
        assert_eq!(program.serving_now(), before, "after {action} at {point}");
    }
    program.set_fault("");
    program.reload();
    assert!(program.serving_now().0 > before.0);
    assert_nothing_lost(load);
    let (_, worker) = program.serving_now();
    for pid in proc::descendants(program.pid()) {
        assert!(proc::state(pid) != Some('Z'), "{pid} is a zombie; {worker} serves");
    }
}

#[test]
fn a_new_generation_killed_at_any_step_harms_nobody() {
    check("kill");
}

#[test]
fn a_new_generation_that_panics_at_any_step_harms_nobody() {
    check("panic");
}

#[test]
fn a_new_generation_that_hangs_at_any_step_harms_nobody() {
    check("hang");
}

/// The new generation dies when it is told to take over: the older one has not paused yet, or is
/// told to go on.
#[test]
fn a_new_generation_killed_while_it_takes_over_is_rolled_back() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    program.set_fault("take:kill");
    let (code, text) = program.reload_with(&[]);
    assert_ne!(code, 0, "{text}");
    program.set_fault("");
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    let (code, text) = program.reload_with(&["--force"]);
    assert_eq!(code, 0, "{text}");
    assert_nothing_lost(load);
}

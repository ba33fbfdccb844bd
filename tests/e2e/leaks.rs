//! Reload after reload, nothing may pile up.

use crate::harness::{Lab, Program, client, eventually, proc};

/// Reloads of this test. `scripts/soak` does many more.
const RELOADS: u64 = 200;

/// What a process holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
    objects: usize,
}

fn held(program: &Program) -> Held {
    program.wait_until_alone();
    Held {
        descriptors: proc::descriptors(program.pid()),
        threads: proc::threads(program.pid()),
        resident_kib: proc::resident_kib(program.pid()),
        objects: proc::shared_memory_objects(&program.segment()).len(),
    }
}

#[test]
fn nothing_piles_up_over_many_reloads() {
    let lab = Lab::new();
    let program = lab.start();
    let good = lab.config.text();
    let bad = good.replace("cluster: up,", "cluster: nowhere,");
    // The first reloads fill caches and tables.
    for _ in 0..20 {
        program.reload();
    }
    let before = held(&program);
    let worker_before = proc::descriptors(program.serving_now().1);
    for number in 0..RELOADS {
        if number % 10 == 9 {
            program.write_config(&bad);
            assert_eq!(program.reload_with(&[]).0, 1);
            program.write_config(&good);
        } else {
            program.reload();
        }
        assert_eq!(client::get(lab.config.http, "/echo/2/100").status, 200);
    }
    // The supervisor closes what belonged to the last generation a moment after that has ended.
    let after = eventually("no descriptor is left behind", || {
        let after = held(&program);
        let grown = after.descriptors > before.descriptors;
        if grown { Err(format!("{before:?} {after:?}")) } else { Ok(after) }
    });
    assert_eq!(after.threads, before.threads, "{before:?} {after:?}");
    assert_eq!(after.objects, before.objects, "{before:?} {after:?}");
    assert!(after.objects <= 1, "{after:?}");
    let grown = after.resident_kib.saturating_sub(before.resident_kib);
    assert!(grown < 2048, "the supervisor grew by {grown} KiB: {before:?} {after:?}");
    let worker_after = proc::descriptors(program.serving_now().1);
    // One inherited by mistake would have become two hundred. A few more or less are connections:
    // the client's last one, and those kept open to the upstream.
    assert!(
        worker_after <= worker_before + 8,
        "a worker holds {worker_before}, then {worker_after}"
    );
    let workers = proc::descendants(program.pid());
    assert_eq!(workers.len(), 1, "zombies or leftovers: {workers:?}");
}

#[test]
fn a_program_that_ended_leaves_no_shared_memory_behind() {
    let lab = Lab::new();
    let mut program = lab.start();
    program.reload();
    program.signal(nix::sys::signal::Signal::SIGTERM);
    program.wait();
    assert_eq!(proc::shared_memory_objects(&program.segment()).len(), 0);
}

//! What it costs to let a connection in: `cargo bench -p baton-worker --bench limits`.
//!
//! Not a test: nothing is asserted about time.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::expect_used, reason = "a broken set-up must stop it")]

mod measure;

use std::{hint::black_box, rc::Rc};

use baton_contract::{
    generation::Generation,
    shm::{Geometry, Rate, SegmentOwner, SegmentWorker},
};
use baton_worker::listener::limit::{Capacity, Door, Gate, Permit};
use measure::measure;

fn main() {
    for (generations, threads) in [(1, 2), (2, 2), (3, 8), (2, 64)] {
        let base_id =
            1_800_000_000 + std::process::id() % 100_000 * 100 + generations * 20 + threads;
        let geometry = Geometry { slabs: 300, ..Geometry::default() };
        let mut owner = SegmentOwner::create_with(base_id, geometry).expect("a segment");
        let workers: Vec<_> = (0..generations)
            .map(|number| {
                let slot = owner.register(Generation(number), threads).expect("a row");
                SegmentWorker::open(owner.os_id(), slot).expect("its worker")
            })
            .collect();
        let first = workers.first().expect("at least one generation");
        let sums = first.thread(0).expect("a thread").sums();
        let what = format!("{generations} generations of {threads} threads");
        for (limits, max) in [("no limit", None), ("two limits", Some(1_000_000))] {
            let global = Door::new(&Gate::global(max, Capacity::UNLIMITED), &sums);
            let listener = Door::new(&Gate::listener("main", max), &sums);
            measure(&format!("{what}: {limits}"), || permit(&global, &listener));
        }
        let bucket = first.bucket("main").expect("a bucket");
        let (rate, mut now) = (Rate::new(1_000_000_000, 1_000_000_000, 1000), 0);
        measure(&format!("{what}: a token"), || {
            now += 2;
            black_box(bucket.take(rate, 1, black_box(now))).expect("enough tokens");
        });
    }
}

/// One connection that comes and goes.
fn permit(global: &Rc<Door>, listener: &Rc<Door>) {
    let permit = Permit::ask(black_box(global), black_box(listener));
    drop(black_box(permit.expect("below the limit")));
}

//! What it costs to choose an endpoint and to count: `cargo bench -p baton-worker`.
//!
//! Not a test: nothing is asserted about time.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::expect_used, reason = "a broken set-up must stop it")]

mod measure;

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use baton_contract::{
    generation::Generation,
    shm::{SegmentOwner, SegmentWorker},
};
use baton_worker::{
    cluster::{
        Endpoint, EndpointAddress, EndpointSet,
        balance::Picker,
        endpoint::{ActiveRequest, EndpointInfo},
    },
    config::cluster::Balancer,
    stats::{ClusterStats, MetricName, ThreadStats},
};
use measure::measure;

/// Requests that are in progress while endpoints are picked.
const IN_PROGRESS: usize = 64;

fn main() {
    for endpoints in [10, 100, 1_000, 10_000] {
        pick(endpoints);
    }
    contended();
    count();
}

fn pick(endpoints: u32) {
    let policies = [
        ("ROUND_ROBIN", Balancer::RoundRobin),
        ("LEAST_REQUEST", Balancer::LeastRequest(2)),
        ("RANDOM", Balancer::Random),
    ];
    for (name, policy) in policies {
        for (which, weights) in [("", 1), (", weighted", 5)] {
            let set = set(endpoints, weights);
            let mut picker = Picker::new(policy, 1);
            measure(&format!("{name}: one of {endpoints} endpoints{which}"), || {
                black_box(picker.pick(black_box(&set)));
            });
            busy(&format!("{name}: the same, {IN_PROGRESS} in progress"), &set, &mut picker);
        }
    }
}

/// Picks as requests do: each one counts at its endpoint for a while.
fn busy(name: &str, set: &EndpointSet, picker: &mut Picker) {
    let mut requests: Vec<Option<ActiveRequest>> = (0..IN_PROGRESS).map(|_| None).collect();
    let mut at = 0;
    measure(name, || {
        let picked = picker.pick(set).expect("an endpoint");
        if let Some(request) = requests.get_mut(at) {
            *request = Some(picked.begin_request());
        }
        at = (at + 1) % IN_PROGRESS;
    });
}

/// What endpoints cost that several threads count at.
fn contended() {
    let set = Arc::new(set(10, 1));
    let stop = Arc::new(AtomicBool::new(false));
    let (other_set, other_stop) = (Arc::clone(&set), Arc::clone(&stop));
    let other = std::thread::spawn(move || {
        let mut picker = Picker::new(Balancer::RoundRobin, 2);
        while !other_stop.load(Relaxed) {
            drop(picker.pick(&other_set).map(|endpoint| endpoint.begin_request()));
        }
    });
    let mut picker = Picker::new(Balancer::RoundRobin, 1);
    busy("ROUND_ROBIN: 10 endpoints that another thread uses too", &set, &mut picker);
    stop.store(true, Relaxed);
    other.join().expect("the other thread ends");
}

/// Endpoints with weights from 1 to `weights`.
fn set(endpoints: u32, weights: u32) -> EndpointSet {
    let endpoint = |at: u32| {
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + at);
        let info = EndpointInfo { weight: 1 + at % weights, ..EndpointInfo::default() };
        Arc::new(Endpoint::new(EndpointAddress::Ip(SocketAddr::from((ip, 80))), info))
    };
    EndpointSet::new((0..endpoints).map(endpoint).collect(), 1)
}

fn count() {
    let base_id = 1_700_000_000 + std::process::id() % 1_000_000;
    let mut owner = SegmentOwner::create(base_id).expect("a segment");
    let slot = owner.register(Generation(0), 1).expect("a row");
    let worker = SegmentWorker::open(owner.os_id(), slot).expect("its worker");
    let stats = ThreadStats::new(worker.thread(0).expect("a slab"));
    let counter = stats.counter(&MetricName::plain("a.counter"));
    measure("count one", || black_box(&counter).inc());
    let histogram = stats.histogram(&MetricName::plain("a.histogram"));
    let mut value = 0;
    measure("record a value in a histogram", || {
        value = (value + 7) % 5_000;
        black_box(&histogram).record(value);
    });
    let cluster = ClusterStats::new(&stats, "cluster");
    measure("count a response by its status", || cluster.response(black_box(200)));
    let mut names = 0_u64;
    measure("make a counter of a new name", || {
        names += 1;
        black_box(stats.counter(&MetricName::plain(format!("b.{}", names % 1_000))));
    });
}

//! Statistics of one worker thread: counters, gauges and histograms in its own slab of the
//! shared-memory segment.
//!
//! A handle is made once, at configuration time, from a name. Using it is a load and a store on a
//! cell nobody else writes: no lock, no name, no atomic read-modify-write. Handles do not leave
//! their thread. Reading is the business of [`contract::shm`](baton_contract::shm) and `admin`.

mod changes;
mod cluster;
pub mod descriptors;
mod escrow;
mod http;
mod ledger;
mod listener;
pub mod log;
mod migration;
mod server;
mod table;
mod tcp;
mod updates;

use std::{cell::RefCell, rc::Rc};

use baton_contract::shm::{self, Bucket, Kind, ThreadSlab};

pub use self::{
    changes::{ClusterChangeStats, ListenerChangeStats},
    cluster::{ClusterStats, MembershipStats},
    descriptors::DescriptorStats,
    escrow::EscrowStats,
    http::HttpStats,
    ledger::{ConnectionKind, EndReason, Ledger},
    listener::ListenerStats,
    log::LogStats,
    migration::MigrationStats,
    server::{ClusterManagerStats, ListenerManagerStats, Server, ServerStats},
    table::help,
    tcp::TcpStats,
    updates::UpdateStats,
};
pub use baton_contract::shm::MetricName;

/// Makes the handles of one thread.
#[derive(Clone, Debug)]
pub struct ThreadStats {
    slab: Rc<RefCell<ThreadSlab>>,
}

impl ThreadStats {
    /// Statistics in this slab; to be called on the thread that will use it.
    pub fn new(slab: ThreadSlab) -> Self {
        Self { slab: Rc::new(RefCell::new(slab)) }
    }

    /// Statistics nobody else can read, for tests.
    pub fn detached() -> Self {
        Self::new(ThreadSlab::detached())
    }

    /// The counter of this name.
    pub fn counter(&self, name: &MetricName) -> Counter {
        Counter(self.slab.borrow_mut().cell(Kind::Counter, name))
    }

    /// The gauge of this name, added up over all generations.
    pub fn gauge(&self, name: &MetricName) -> Gauge {
        Gauge(self.slab.borrow_mut().cell(Kind::Gauge, name))
    }

    /// The gauge of this name of which only the newest generation's value counts.
    pub fn local_gauge(&self, name: &MetricName) -> Gauge {
        Gauge(self.slab.borrow_mut().cell(Kind::LocalGauge, name))
    }

    /// The token bucket of this name, shared by all threads and generations. When the segment has no
    /// room for it, nobody else sees it.
    pub fn bucket(&self, name: &str) -> Bucket {
        self.slab.borrow().bucket(name)
    }

    /// The histogram of this name.
    pub fn histogram(&self, name: &MetricName) -> Histogram {
        Histogram(self.slab.borrow_mut().histogram(name))
    }
}

/// A number that only rises.
#[derive(Clone, Debug)]
pub struct Counter(shm::Cell);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.add(n);
    }

    /// What this thread counted.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// A number that rises and falls.
#[derive(Clone, Debug)]
pub struct Gauge(shm::Cell);

impl Gauge {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// Takes one away.
    #[inline]
    pub fn dec(&self) {
        self.0.sub(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.add(n);
    }

    /// Takes `n` away.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.sub(n);
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.set(n);
    }

    /// What this thread has.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// A distribution of whole numbers.
#[derive(Clone, Debug)]
pub struct Histogram(shm::HistogramCells);

impl Histogram {
    /// Records one value, in the unit of the histogram's name.
    #[inline]
    pub fn record(&self, value: u64) {
        self.0.record(value);
    }

    /// How many values this thread recorded.
    pub fn count(&self) -> u64 {
        self.0.count()
    }
}

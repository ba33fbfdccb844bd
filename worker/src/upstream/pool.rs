//! Idle upstream connections of one thread and one cluster, ready for the next request.
//!
//! Not here: connecting (`upstream::connect`) and choosing an endpoint (`cluster::balance`).

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Stream, counted::Counted};
use crate::{
    cluster::{Endpoint, endpoint::ActiveConnection},
    stats::Gauge,
};

/// Idle connections kept for one endpoint by one thread; more are closed.
const IDLE_MAX: usize = 1024;

/// A connection to an endpoint that can carry one exchange after the other.
#[derive(Debug)]
pub struct PooledConnection {
    /// The socket.
    pub stream: Stream,
    /// Our address on it, if it is to be shown.
    pub local: Option<SocketAddr>,
    /// Counts as open with its endpoint until dropped.
    pub endpoint: ActiveConnection,
    /// Its place in the books of its cluster.
    pub counted: Counted,
    /// Exchanges it has carried or carries.
    pub requests: u32,
    /// Since when it is idle.
    pub idle_since: Instant,
}

impl PooledConnection {
    /// A connection that was just made, with this address of ours if it is to be shown.
    pub fn new(
        (stream, local): (Stream, Option<SocketAddr>),
        endpoint: &Arc<Endpoint>,
        counted: Counted,
        now: Instant,
    ) -> Self {
        let endpoint = endpoint.begin_connection();
        Self { stream, local, endpoint, counted, requests: 0, idle_since: now }
    }
}

/// One in a gauge for as long as it lives.
#[derive(Debug)]
pub struct ActiveGauge(Gauge);

impl ActiveGauge {
    /// Counts one more.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for ActiveGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The idle connections, by endpoint, the one used last on top.
#[derive(Debug, Default)]
pub struct Pool {
    /// Its cluster is gone, or connects in another way: nothing is kept any more.
    closed: bool,
    idle: HashMap<u64, Vec<PooledConnection>, BuildHasherDefault<IdHasher>>,
}

/// Numbers of endpoints are counted by this program, so nobody can choose them to collide.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        /// 2^64 divided by the golden ratio: spreads numbers that follow each other.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ id).wrapping_mul(SPREAD);
    }
}

impl Pool {
    /// The connection to `endpoint` that was used last and is still open.
    pub fn take(&mut self, endpoint: &Arc<Endpoint>) -> Option<PooledConnection> {
        let idle = self.idle.get_mut(&endpoint.id)?;
        still_open(idle)
    }

    /// Number of idle connections to an endpoint.
    pub fn idle_to(&self, endpoint: &Endpoint) -> usize {
        self.idle.get(&endpoint.id).map_or(0, Vec::len)
    }

    /// Any idle connection that is still open, to be given away.
    pub fn take_any(&mut self) -> Option<PooledConnection> {
        loop {
            let endpoint = *self.idle.keys().next()?;
            let idle = self.idle.get_mut(&endpoint)?;
            if let Some(connection) = still_open(idle) {
                return Some(connection);
            }
            self.idle.remove(&endpoint);
        }
    }

    /// Keeps a connection for the next request.
    pub fn put(&mut self, mut connection: PooledConnection, now: Instant) {
        connection.idle_since = now;
        if self.closed {
            return;
        }
        let idle = self.idle.entry(connection.endpoint.endpoint().id).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    /// Closes what the upstream closed and what was idle for too long.
    pub fn sweep(&mut self, now: Instant, idle_timeout: Option<Duration>) {
        self.idle.retain(|_, idle| {
            idle.retain_mut(|connection| {
                if !connection.stream.is_quiet() {
                    connection.counted.ended_by_endpoint();
                    return false;
                }
                let expired = idle_timeout
                    .is_some_and(|limit| now.duration_since(connection.idle_since) >= limit);
                if expired {
                    connection.counted.idle_for_too_long();
                }
                !expired
            });
            !idle.is_empty()
        });
    }

    /// Closes those to other endpoints than these.
    pub fn retain_endpoints(&mut self, ids: &HashSet<u64>) {
        self.idle.retain(|id, _| ids.contains(id));
    }

    /// Number of idle connections.
    pub fn len(&self) -> usize {
        self.idle.values().map(Vec::len).sum()
    }

    /// True when no connection is idle.
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Closes all of them, and those that come later.
    pub fn close(&mut self) {
        self.closed = true;
        self.idle.clear();
    }

    /// Closes all of them.
    pub fn clear(&mut self) {
        self.idle.clear();
    }
}

/// The last connection of a list that is still open. What is not is taken out.
fn still_open(idle: &mut Vec<PooledConnection>) -> Option<PooledConnection> {
    while let Some(mut connection) = idle.pop() {
        if connection.stream.is_quiet() {
            return Some(connection);
        }
        connection.counted.ended_by_endpoint();
    }
    None
}

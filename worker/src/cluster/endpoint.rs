//! Endpoints and sets of them.
//!
//! An [`Endpoint`] lives as long as somebody uses it: a DNS refresh that brings the same address
//! again keeps the same object, so its counters and the pooled connections to it survive.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use crate::config::cluster::EndpointConfig;

/// Where an endpoint is reached.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum EndpointAddress {
    /// TCP.
    Ip(SocketAddr),
    /// A Unix domain socket; `@name` is an abstract one.
    Pipe(Arc<Path>),
}

impl EndpointAddress {
    /// The IP address and port, if it is not a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe(_) => None,
        }
    }

    /// The path, if it is a Unix socket.
    pub fn path(&self) -> Option<Arc<Path>> {
        match self {
            Self::Ip(_) => None,
            Self::Pipe(path) => Some(Arc::clone(path)),
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Pipe(path) => path.display().fmt(f),
        }
    }
}

/// What the configuration says about an endpoint, beside its address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EndpointInfo {
    /// `endpoint.hostname`, or the DNS name it came from; may be empty.
    pub hostname: String,
    /// `load_balancing_weight`, 1 and up.
    pub weight: u32,
    /// `locality.zone`.
    pub zone: String,
    /// `priority`, 0 is the highest.
    pub priority: u32,
}

impl EndpointInfo {
    /// What the configuration says about an endpoint with a literal address.
    pub(super) fn of(config: &EndpointConfig) -> Self {
        Self {
            hostname: config.hostname.clone(),
            weight: config.weight.max(1),
            zone: config.zone.clone(),
            priority: config.priority,
        }
    }
}

/// One upstream host.
#[derive(Debug)]
pub struct Endpoint {
    /// Number of the endpoint, unique in the process; the key of connection pools.
    pub id: u64,
    /// What the configuration says.
    pub info: EndpointInfo,
    /// Numbers shown by `/clusters`; those of all its successors.
    pub stats: Arc<EndpointStats>,
    /// Replaced only for `LOGICAL_DNS`, whose one endpoint moves to the newest address.
    address: ArcSwap<EndpointAddress>,
}

/// Numbers of one endpoint in this process. All relaxed: they are statistics and a hint for
/// `LEAST_REQUEST`, nothing is ordered by them.
#[derive(Debug, Default)]
pub struct EndpointStats {
    /// Connections opened.
    pub cx_total: AtomicU64,
    /// Connections open now.
    pub cx_active: AtomicU64,
    /// Attempts to connect that failed or timed out.
    pub cx_connect_fail: AtomicU64,
    /// Requests (or L4 connections) sent to it.
    pub rq_total: AtomicU64,
    /// Requests in progress.
    pub rq_active: AtomicU64,
    /// Requests answered with a status below 500.
    pub rq_success: AtomicU64,
    /// Requests answered with 5xx or not at all.
    pub rq_error: AtomicU64,
    /// Requests that ran into their timeout.
    pub rq_timeout: AtomicU64,
}

/// Source of [`Endpoint::id`].
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Endpoint {
    /// A new endpoint with a fresh number.
    pub fn new(address: EndpointAddress, info: EndpointInfo) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            info,
            stats: Arc::default(),
            address: ArcSwap::from_pointee(address),
        }
    }

    /// The endpoint at the same address with what is said about it now: its number and its counts stay,
    /// and so do the connections to it.
    pub(super) fn with_info(self: &Arc<Self>, info: &EndpointInfo) -> Arc<Self> {
        if self.info == *info {
            return Arc::clone(self);
        }
        Arc::new(Self {
            id: self.id,
            info: info.clone(),
            stats: Arc::clone(&self.stats),
            address: ArcSwap::new(self.address()),
        })
    }

    /// Where to connect now.
    pub fn address(&self) -> Arc<EndpointAddress> {
        self.address.load_full()
    }

    /// Moves the endpoint; connections that exist stay where they are.
    pub(super) fn move_to(&self, address: EndpointAddress) {
        if **self.address.load() != address {
            self.address.store(Arc::new(address));
        }
    }

    /// Requests in progress, for `LEAST_REQUEST`.
    pub fn active_requests(&self) -> u64 {
        self.stats.rq_active.load(Relaxed)
    }

    /// Counts a request as in progress until the guard is dropped.
    #[must_use]
    pub fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        self.stats.rq_total.fetch_add(1, Relaxed);
        self.stats.rq_active.fetch_add(1, Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// The same for a request that another process began.
    #[must_use]
    pub fn resume_request(self: &Arc<Self>) -> ActiveRequest {
        self.stats.rq_active.fetch_add(1, Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// The same as [`Self::begin_connection`] for a connection that another process opened.
    #[must_use]
    pub fn resume_connection(self: &Arc<Self>) -> ActiveConnection {
        self.stats.cx_active.fetch_add(1, Relaxed);
        ActiveConnection(Arc::clone(self))
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn begin_connection(self: &Arc<Self>) -> ActiveConnection {
        self.stats.cx_total.fetch_add(1, Relaxed);
        self.stats.cx_active.fetch_add(1, Relaxed);
        ActiveConnection(Arc::clone(self))
    }
}

/// A request in progress at an endpoint.
#[derive(Debug)]
pub struct ActiveRequest(Arc<Endpoint>);

impl ActiveRequest {
    /// The endpoint it went to.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.stats.rq_active.fetch_sub(1, Relaxed);
    }
}

/// An open connection to an endpoint.
#[derive(Debug)]
pub struct ActiveConnection(Arc<Endpoint>);

impl ActiveConnection {
    /// The endpoint it goes to.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.stats.cx_active.fetch_sub(1, Relaxed);
    }
}

/// The endpoints of a cluster at one moment.
#[derive(Debug, Default)]
pub struct EndpointSet {
    /// All endpoints, lower priority numbers first, otherwise in the order they were given.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Changes whenever the list or a weight does; never 0 for a set that was published.
    pub version: u64,
    /// How many at the start of `endpoints` get traffic: those of the best priority present.
    active: usize,
    /// Whether the weights of the active ones differ.
    weighted: bool,
    /// Positions by address, made when a long list is searched for the first time.
    by_address: OnceLock<HashMap<Arc<EndpointAddress>, usize>>,
}

/// Lists up to this length, in endpoints, are walked: that is as fast as hashing the address.
const SHORT: usize = 8;

impl EndpointSet {
    /// Orders the endpoints by priority.
    pub fn new(mut endpoints: Vec<Arc<Endpoint>>, version: u64) -> Self {
        endpoints.sort_by_key(|endpoint| endpoint.info.priority);
        let best = endpoints.first().map(|endpoint| (endpoint.info.priority, endpoint.info.weight));
        let (priority, weight) = best.unwrap_or_default();
        let active = endpoints.partition_point(|endpoint| endpoint.info.priority == priority);
        let weighted = endpoints.iter().take(active).any(|endpoint| endpoint.info.weight != weight);
        Self { endpoints, version, active, weighted, by_address: OnceLock::new() }
    }

    /// The endpoint at an address.
    pub fn at(&self, address: &EndpointAddress) -> Option<&Arc<Endpoint>> {
        if self.endpoints.len() <= SHORT {
            return self.endpoints.iter().find(|endpoint| *endpoint.address() == *address);
        }
        let positions = self.by_address.get_or_init(|| {
            let positions = self.endpoints.iter().enumerate().rev();
            positions.map(|(at, endpoint)| (endpoint.address(), at)).collect()
        });
        // Only the one endpoint of a `LOGICAL_DNS` cluster moves, so a long list has no stale keys.
        self.endpoints.get(*positions.get(address)?)
    }

    /// The endpoint at this address with what is said about it now: the one that is there already, or a
    /// new one.
    pub(super) fn take_over(&self, address: EndpointAddress, info: &EndpointInfo) -> Arc<Endpoint> {
        match self.at(&address) {
            Some(known) => known.with_info(info),
            None => Arc::new(Endpoint::new(address, info.clone())),
        }
    }

    /// Whether another set has the same endpoints, of which the same is said, in the same order.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let pairs = self.endpoints.iter().zip(&other.endpoints);
        self.endpoints.len() == other.endpoints.len()
            && pairs.into_iter().all(|(one, another)| Arc::ptr_eq(one, another))
    }

    /// Whether another set has the same endpoints, whatever is said about them.
    pub(super) fn has_same_members(&self, other: &Self) -> bool {
        let ids = |set: &Self| {
            let mut ids: Vec<u64> = set.endpoints.iter().map(|endpoint| endpoint.id).collect();
            ids.sort_unstable();
            ids
        };
        self.endpoints.len() == other.endpoints.len() && ids(self) == ids(other)
    }

    /// The endpoints that get traffic: all of the best priority that has any.
    pub fn active(&self) -> &[Arc<Endpoint>] {
        self.endpoints.get(..self.active).unwrap_or_default()
    }

    /// Whether the weights of the active endpoints differ.
    pub fn is_weighted(&self) -> bool {
        self.weighted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(at: u16) -> EndpointAddress {
        EndpointAddress::Ip(SocketAddr::from(([127, 0, 0, 1], at)))
    }

    #[test]
    fn endpoints_are_found_by_address_in_short_and_long_lists() {
        for count in [0, 1, 8, 9, 300_u16] {
            let endpoints =
                (0..count).map(|at| Endpoint::new(address(at), EndpointInfo::default()));
            let set = EndpointSet::new(endpoints.map(Arc::new).collect(), 1);
            for at in 0..count {
                let found = set.at(&address(at)).map(|endpoint| endpoint.id);
                assert_eq!(found, set.endpoints.get(usize::from(at)).map(|endpoint| endpoint.id));
            }
            assert!(set.at(&address(count)).is_none());
        }
    }
}

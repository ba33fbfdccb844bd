//! Where the endpoints of a cluster come from: the configuration (`STATIC`), or DNS
//! (`STRICT_DNS`, `LOGICAL_DNS`).
//!
//! A [`Discovery`] belongs to one cluster and has one [`Target`] for each configured endpoint. A
//! target with a literal address is settled from the start; the others are asked for again and
//! again on the main thread. A failure never takes endpoints away: the last good answer stays.
//!
//! Not here: how a name is resolved (`resolver`).

mod inherit;
#[cfg(test)]
mod tests;
mod warm;

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::{AbortHandle, JoinSet};

pub use self::warm::Wait;
pub(super) use self::warm::warm;
use super::{
    endpoint::{Endpoint, EndpointAddress, EndpointInfo, EndpointSet},
    manager::ClusterState,
    resolver::{Answer, Resolve, ResolveError},
};
use crate::{
    clock,
    config::{self, cluster::EndpointConfig, model::Address},
};

/// Shortest time between two queries for one name, whatever its TTL says.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
/// Wait after the first failure; each further one doubles it.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// Longest wait between failing queries, unless the refresh rate itself is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Longest time an answer is used, as a TTL may be years.
const LONGEST_REFRESH: Duration = Duration::from_hours(1);

/// The endpoints of one cluster in the making.
#[derive(Debug)]
pub(super) struct Discovery {
    cluster: Arc<ClusterState>,
    resolver: Arc<dyn Resolve>,
    targets: Mutex<Vec<Target>>,
    /// There are answers that the supervisor was not told.
    news: AtomicBool,
}

/// One configured endpoint.
#[derive(Debug)]
struct Target {
    info: EndpointInfo,
    /// Name and port to ask for; `None` for literal addresses.
    name: Option<(String, u16)>,
    /// What it stands for now.
    endpoints: Vec<Arc<Endpoint>>,
    /// When to ask again; `None` = at once.
    due: Option<Instant>,
    /// Failures since the last answer.
    failures: u32,
    /// What it stands for is what another generation was told, not an answer.
    inherited: bool,
    /// The generation that serves has no address for it either.
    lacking: bool,
    /// Why it has no answer.
    error: String,
}

impl Discovery {
    /// Settles all literal addresses and publishes them.
    pub(super) fn new(cluster: &Arc<ClusterState>, resolver: &Arc<dyn Resolve>) -> Self {
        let known = cluster.endpoints.load();
        let targets = cluster.config.endpoints.iter().map(|e| Target::new(e, &known)).collect();
        let discovery = Self {
            cluster: Arc::clone(cluster),
            resolver: Arc::clone(resolver),
            targets: Mutex::new(targets),
            news: AtomicBool::new(false),
        };
        discovery.publish(&discovery.lock());
        discovery
    }

    /// Whether any endpoint has to be asked for.
    pub(super) fn needs_dns(&self) -> bool {
        self.cluster.config.discovery.resolves_names()
            && self.lock().iter().any(|target| target.name.is_some())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Target>> {
        // A panic of another holder cannot leave a target half changed.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers of the targets to ask for.
    fn dns_targets(&self) -> Vec<usize> {
        let targets = self.lock();
        targets.iter().enumerate().filter(|(_, t)| t.name.is_some()).map(|(at, _)| at).collect()
    }

    /// Asks once for one target and publishes what came.
    async fn ask(&self, at: usize) {
        let Some((name, port)) = self.lock().get(at).and_then(|target| target.name.clone()) else {
            return;
        };
        let updates = &self.cluster.updates;
        updates.attempt.fetch_add(1, Relaxed);
        let result = self.resolver.resolve(&name, self.cluster.config.dns_family).await;
        let mut targets = self.lock();
        let config = &self.cluster.config;
        let Some(target) = targets.get_mut(at) else { return };
        match result {
            Ok(answer) => {
                updates.success.fetch_add(1, Relaxed);
                target.failures = 0;
                target.inherited = false;
                target.error.clear();
                let before = target.addresses();
                target.due = Some(clock::now() + jittered(refresh_after(config, answer.ttl)));
                let known = self.cluster.endpoints.load();
                let changed = target.accept(&config.discovery, &answer, port, &known);
                if target.addresses() != before {
                    self.news.store(true, Relaxed);
                }
                if changed {
                    self.publish(&targets);
                } else {
                    updates.no_rebuild.fetch_add(1, Relaxed);
                }
            }
            Err(error) => {
                updates.failure.fetch_add(1, Relaxed);
                if matches!(error, ResolveError::NoAddress(_)) {
                    updates.empty.fetch_add(1, Relaxed);
                }
                let wait = backoff(config.dns_refresh, target.failures);
                target.failures = target.failures.saturating_add(1);
                target.due = Some(clock::now() + jittered(wait));
                target.error = error.to_string();
                tracing::warn!(cluster = %config.name, %error, "dns failed, the last answer stays");
            }
        }
    }

    /// Replaces the cluster's set when it differs from the present one.
    fn publish(&self, targets: &[Target]) {
        // Two names may lead to one address; it is one endpoint then.
        let mut addresses = HashSet::new();
        let endpoints = targets.iter().flat_map(|target| &target.endpoints);
        let endpoints = endpoints.filter(|endpoint| addresses.insert(endpoint.address()));
        let endpoints = endpoints.map(Arc::clone).collect();
        self.cluster.set_endpoints(endpoints);
    }

    /// Whether it is about this cluster.
    pub(super) fn is_of(&self, cluster: &Arc<ClusterState>) -> bool {
        Arc::ptr_eq(&self.cluster, cluster)
    }

    /// Goes on with what is known about the same names.
    pub(super) fn continue_from(&self, before: &Self) {
        let mut targets = self.lock();
        let known = before.lock();
        for target in targets.iter_mut().filter(|target| target.name.is_some()) {
            let Some(same) = known.iter().find(|known| known.name == target.name) else { continue };
            let endpoints = same.endpoints.iter();
            target.endpoints = endpoints.map(|known| known.with_info(&target.info)).collect();
        }
        self.publish(&targets);
    }

    /// Begins to ask for everything.
    pub(super) fn keep_fresh(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Vec<AbortHandle> {
        let ask = |at| {
            let discovery = Arc::clone(self);
            tasks.spawn(async move { discovery.ask_for_ever(at).await })
        };
        self.dns_targets().into_iter().map(ask).collect()
    }

    /// Asks for one target for ever.
    async fn ask_for_ever(&self, at: usize) {
        loop {
            let due = self.lock().get(at).and_then(|target| target.due);
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            self.ask(at).await;
        }
    }
}

impl Target {
    fn new(config: &EndpointConfig, known: &EndpointSet) -> Self {
        let (literal, name) = match &config.address {
            Address::Ip(address) => (Some(EndpointAddress::Ip(*address)), None),
            Address::Pipe { path, .. } => {
                (Some(EndpointAddress::Pipe(path.as_path().into())), None)
            }
            Address::Name { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => (Some(EndpointAddress::Ip(SocketAddr::new(ip, *port))), None),
                Err(_) => (None, Some((host.clone(), *port))),
            },
        };
        let hostname = match &name {
            Some((host, _)) if config.hostname.is_empty() => host.clone(),
            _ => config.hostname.clone(),
        };
        let info = EndpointInfo { hostname, ..EndpointInfo::of(config) };
        let endpoints = literal.map(|address| known.take_over(address, &info));
        let endpoints = endpoints.into_iter().collect();
        Self {
            info,
            name,
            endpoints,
            due: None,
            failures: 0,
            inherited: false,
            lacking: false,
            error: String::new(),
        }
    }

    /// Takes an answer over; says whether the list of endpoints changed.
    fn accept(
        &mut self,
        discovery: &config::cluster::Discovery,
        answer: &Answer,
        port: u16,
        known: &EndpointSet,
    ) -> bool {
        let mut addresses =
            answer.addresses.iter().map(|ip| EndpointAddress::Ip(SocketAddr::new(*ip, port)));
        if *discovery == config::cluster::Discovery::LogicalDns {
            let Some(address) = addresses.next() else { return false };
            if let Some(endpoint) = self.endpoints.first() {
                endpoint.move_to(address);
                return false;
            }
            self.endpoints.push(Arc::new(Endpoint::new(address, self.info.clone())));
            return true;
        }
        let mut next: Vec<Arc<Endpoint>> = addresses.map(|a| self.endpoint_at(a, known)).collect();
        // Servers rotate their answers; an order of our own makes that no change.
        next.sort_by_key(|endpoint| endpoint.address().ip());
        next.dedup_by_key(|endpoint| endpoint.address());
        let changed = next.len() != self.endpoints.len()
            || next.iter().zip(&self.endpoints).any(|(new, old)| new.id != old.id);
        if changed {
            self.endpoints = next;
        }
        changed
    }

    /// The endpoint that is at this address already, or a new one.
    fn endpoint_at(&self, address: EndpointAddress, known: &EndpointSet) -> Arc<Endpoint> {
        let own = self.endpoints.iter().find(|endpoint| *endpoint.address() == address);
        match own {
            Some(own) => own.with_info(&self.info),
            None => known.take_over(address, &self.info),
        }
    }
}

fn refresh_after(config: &config::cluster::Cluster, ttl: Duration) -> Duration {
    let wanted = if config.respect_dns_ttl { ttl } else { config.dns_refresh };
    wanted.clamp(SHORTEST_REFRESH, LONGEST_REFRESH)
}

fn backoff(refresh: Duration, failures: u32) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.min(16));
    doubled.min(refresh.clamp(LONGEST_BACKOFF, LONGEST_REFRESH))
}

/// Up to a tenth longer, so that many names and many proxies do not ask in step.
fn jittered(wait: Duration) -> Duration {
    wait.saturating_add(wait.mul_f64(fastrand::f64() / 10.0))
}

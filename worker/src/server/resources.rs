//! Resources that come from files: which are wanted, which were accepted, and what of it is published.
//!
//! Belongs to the main thread. A resource is immutable; an update replaces whole ones.
//!
//! ```text
//! files ──look──→ subscriptions ──settled?──→ changes ──→ clusters, listeners, routes of the threads
//!                  clusters → their endpoints → listeners → their routes
//! ```
//! What is bad keeps its last good. A cluster whose endpoints, and a listener whose routes are still to
//! come wait until these are there or `initial_fetch_timeout` is over.
//!
//! Not here: how changes reach threads and sockets (`server::publish`), how a file is read (`subscription`).

mod report;
mod start;
mod subscription;
#[cfg(test)]
mod tests;
mod view;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use baton_contract::memfd;
use tokio::sync::mpsc;

pub(super) use self::{
    subscription::{Accepted, Subscription},
    view::view,
};
use crate::{
    clock,
    cluster::{Candidate, Change, ClusterManager},
    config::{
        bundle::{self, Stored},
        cluster::{Cluster, Discovery, EndpointConfig},
        hcm::{HttpConnectionManager, Routes},
        kind::{Kind, Resource},
        listener::{Listener, NetworkFilter},
        load::{LoadOptions, Source},
        model::Bootstrap,
        resource::{self, Context},
        route::RouteConfiguration,
        subscription::{EdsSource, FileSource, RdsSource},
    },
    file_watch::{FileWatch, WatchId},
    migrate::ConfigSource,
};

/// How long a cluster that comes waits for the first answer of DNS.
const DNS_PATIENCE: Duration = Duration::from_secs(5);

/// Something the resources wait for has come.
#[derive(Debug)]
pub(super) enum Event {
    /// These files may have changed.
    Files(Vec<WatchId>),
    /// Something was waited for long enough.
    Due,
    /// A cluster knows its addresses, or does not get them.
    Warm(Arc<str>, Candidate),
}

/// A listener, by position.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub name: Arc<str>,
    /// What is published; `None` = it is gone, or still to come.
    pub listener: Option<Arc<Listener>>,
    /// It stands in the configuration itself.
    pub is_static: bool,
    /// What its sockets are asked for, or were refused for.
    pub pending: Option<Arc<Listener>>,
}

/// A listener that is new, changed, or gone.
#[derive(Debug)]
pub(super) struct ListenerChange {
    pub at: usize,
    pub listener: Option<Arc<Listener>>,
}

/// A table of routes and the connection manager it is for.
pub(super) type RoutesFor = (Arc<HttpConnectionManager>, Arc<RouteConfiguration>);

/// What a connection manager was given.
#[derive(Debug)]
struct Given {
    manager: Arc<HttpConnectionManager>,
    /// Of the resource.
    hash: u128,
    routes: Arc<RouteConfiguration>,
}

/// All resources of a generation.
pub(super) struct Resources {
    bootstrap: Arc<Bootstrap>,
    options: LoadOptions,
    /// The configuration file.
    file: Source,
    watch: FileWatch,
    /// What an older generation accepted.
    inherited: Vec<Stored>,
    pub(super) clusters: Option<Subscription>,
    pub(super) listeners: Option<Subscription>,
    /// By the name of the cluster.
    pub(super) endpoints: BTreeMap<String, Subscription>,
    /// In an order that all generations have: it decides the hash of an edition.
    pub(super) routes: BTreeMap<RdsSource, Subscription>,
    /// Hashes of the endpoints that are published, by the name of the cluster.
    assigned: HashMap<String, u128>,
    /// Clusters that came from a file and are published.
    published: BTreeMap<Arc<str>, Arc<Cluster>>,
    /// Clusters that wait for DNS.
    warming: HashMap<Arc<str>, Arc<Cluster>>,
    warm: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    pub(super) slots: Vec<Slot>,
    tables: Vec<Given>,
    stats: report::Tables,
    edition: u64,
}

impl Resources {
    /// Nothing was read yet.
    pub(super) fn new(bootstrap: &Arc<Bootstrap>, options: LoadOptions, file: Source) -> Self {
        let slot = |listener: &Arc<Listener>| Slot {
            name: listener.name.as_str().into(),
            listener: Some(Arc::clone(listener)),
            is_static: true,
            pending: None,
        };
        Self {
            bootstrap: Arc::clone(bootstrap),
            options,
            file,
            watch: FileWatch::new(),
            inherited: Vec::new(),
            clusters: None,
            listeners: None,
            endpoints: BTreeMap::new(),
            routes: BTreeMap::new(),
            assigned: HashMap::new(),
            published: BTreeMap::new(),
            warming: HashMap::new(),
            warm: mpsc::unbounded_channel(),
            slots: bootstrap.listeners.iter().map(slot).collect(),
            tables: Vec::new(),
            stats: report::Tables::default(),
            edition: 0,
        }
    }

    /// Whether any resource comes from a file.
    pub(super) fn are_any(&self) -> bool {
        self.subscriptions().next().is_some()
    }

    pub(super) fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        let one = self.clusters.iter().chain(self.endpoints.values());
        one.chain(&self.listeners).chain(self.routes.values())
    }

    /// The next thing to take up. Waits for ever when nothing comes from files.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn event(&mut self) -> Event {
        let due = self.subscriptions().filter_map(Subscription::due).min();
        let wait = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ids = self.watch.changed() => Event::Files(ids),
            Some(event) = self.warm.1.recv() => event,
            () = wait => Event::Due,
        }
    }

    /// Reads what an event is about; says whether there may be something to publish.
    pub(super) fn take(&mut self, event: Event, manager: Option<&ClusterManager>) -> bool {
        let changed = match event {
            Event::Files(ids) => self.look(&ids),
            Event::Due => {
                let now = clock::now();
                let given_up =
                    self.all_mut().into_iter().filter_map(|it| it.give_up(now).then_some(()));
                given_up.count() > 0
            }
            Event::Warm(name, candidate) => {
                let config = &candidate.state().config;
                let is_wanted =
                    self.warming.get(&name).is_some_and(|known| Arc::ptr_eq(known, config));
                if let (true, Some(manager)) = (is_wanted, manager) {
                    self.warming.remove(&name);
                    self.published.insert(name, Arc::clone(config));
                    manager.apply(vec![Change::Put(candidate)]);
                }
                is_wanted
            }
        };
        self.subscribe();
        changed
    }

    fn all_mut(&mut self) -> Vec<&mut Subscription> {
        let one = self.clusters.iter_mut().chain(self.endpoints.values_mut());
        one.chain(&mut self.listeners).chain(self.routes.values_mut()).collect()
    }

    fn look(&mut self, ids: &[WatchId]) -> bool {
        let (bootstrap, options) = (Arc::clone(&self.bootstrap), self.options.clone());
        let context = Context { bootstrap: &bootstrap, options: &options };
        let mut changed = false;
        for subscription in self.all_mut() {
            if subscription.watch.is_some_and(|id| ids.contains(&id)) {
                changed |= subscription.look(&context);
            }
        }
        // What was refused because of its socket is tried again.
        let theirs = self.listeners.as_ref().and_then(|it| it.watch);
        if theirs.is_some_and(|id| ids.contains(&id)) {
            self.slots.iter_mut().for_each(|slot| slot.pending = None);
            changed = true;
        }
        changed
    }

    /// Subscribes to what is wanted by now, in the order in which it takes effect, and to nothing else.
    fn subscribe(&mut self) {
        let dynamic = self.bootstrap.dynamic.clone();
        if let (None, Some(source)) = (&self.clusters, &dynamic.clusters) {
            self.clusters = Some(self.begin(Kind::Cluster, None, source));
        }
        let wanted = self.wanted_endpoints();
        let gone = |name: &String, it: &mut Subscription| {
            wanted.get(name).is_none_or(|source| {
                source.source != it.source || it.wanted.as_deref() != Some(&*source.service_name)
            })
        };
        let ended: Vec<_> = self.endpoints.extract_if(.., gone).collect();
        self.end(ended.into_iter().map(|(_, it)| it));
        for (name, source) in &wanted {
            if !self.endpoints.contains_key(name) {
                let kind = Kind::ClusterLoadAssignment;
                let it = self.begin(kind, Some(&source.service_name), &source.source);
                self.endpoints.insert(name.clone(), it);
            }
        }
        if let (None, Some(source)) = (&self.listeners, &dynamic.listeners) {
            self.listeners = Some(self.begin(Kind::Listener, None, source));
        }
        let wanted = self.wanted_routes();
        let ended: Vec<_> = self.routes.extract_if(.., |it, _| !wanted.contains(it)).collect();
        self.end(ended.into_iter().map(|(_, it)| it));
        for source in wanted {
            if !self.routes.contains_key(&source) {
                let it = self.begin(Kind::RouteConfiguration, Some(&source.name), &source.source);
                self.routes.insert(source, it);
            }
        }
    }

    fn begin(&mut self, kind: Kind, wanted: Option<&str>, source: &FileSource) -> Subscription {
        let context = Context { bootstrap: &self.bootstrap, options: &self.options };
        let mut it = Subscription::new(kind, wanted, source);
        it.inherit(&self.inherited, &context);
        match self.watch.add(&source.path, source.watched_directory.as_deref()) {
            Ok(id) => it.watch = Some(id),
            Err(error) => {
                let path = source.path.display();
                tracing::error!(%path, %error, "a file of resources cannot be watched");
            }
        }
        it.look(&context);
        it
    }

    fn end(&mut self, ended: impl Iterator<Item = Subscription>) {
        ended.filter_map(|it| it.watch).for_each(|id| self.watch.remove(id));
    }

    /// All clusters with endpoints of their own, static ones too.
    fn wanted_endpoints(&self) -> HashMap<String, Arc<EdsSource>> {
        let accepted = self.clusters.iter().flat_map(|it| it.accepted.values());
        let dynamic = accepted.filter_map(|it| match &it.entry.resource {
            Resource::Cluster(cluster) => Some(cluster),
            Resource::Endpoints(_) | Resource::Listener(_) | Resource::Routes(_) => None,
        });
        let all = self.bootstrap.clusters.iter().chain(dynamic);
        all.filter_map(|cluster| match &cluster.discovery {
            Discovery::Eds(source) => Some((cluster.name.clone(), Arc::clone(source))),
            Discovery::Static | Discovery::StrictDns | Discovery::LogicalDns => None,
        })
        .collect()
    }

    /// The routes of all listeners, those that are still to come too.
    fn wanted_routes(&self) -> HashSet<RdsSource> {
        let accepted = self.listeners.iter().flat_map(|it| it.accepted.values());
        let listeners = accepted.filter_map(|it| it.listener());
        let published = self.slots.iter().filter_map(|slot| slot.listener.as_ref());
        let managers = listeners.chain(published).flat_map(managers);
        managers.map(|(_, source)| (**source).clone()).collect()
    }

    /// What became of the clusters; endpoints are published at once.
    pub(super) fn cluster_changes(&mut self, manager: &Arc<ClusterManager>) -> Vec<Change> {
        let mut changes = Vec::new();
        let names = Arc::clone(&self.bootstrap.cluster_names);
        let from_file = self.clusters.as_ref().map_or(0, |it| it.accepted.len());
        let count = self.bootstrap.clusters.len() + from_file;
        let accepted = self.clusters.iter().flat_map(|it| &it.accepted);
        for (name, accepted) in accepted {
            let Resource::Cluster(config) = &accepted.entry.resource else { continue };
            let is_same = |known: &Arc<Cluster>| Arc::ptr_eq(known, config);
            let eds = self.endpoints.get(&**name);
            let is_known = self.published.get(name).or_else(|| self.warming.get(name));
            if is_known.is_some_and(is_same) || eds.is_some_and(|it| !it.is_settled()) {
                continue;
            }
            let candidate = manager.candidate(names.intern(name), config, count);
            if let Some(endpoints) = endpoints_of(eds) {
                candidate.state().assign(endpoints);
            }
            if self.edition > 0 && candidate.is_cold() {
                self.warming.insert(Arc::clone(name), Arc::clone(config));
                warm(Arc::clone(name), candidate, self.warm.0.clone());
                continue;
            }
            self.warming.remove(name);
            self.published.insert(Arc::clone(name), Arc::clone(config));
            changes.push(Change::Put(candidate));
        }
        let is_there = |name: &Arc<str>| {
            self.clusters.as_ref().is_some_and(|it| it.accepted.contains_key(name))
        };
        self.warming.retain(|name, _| is_there(name));
        let gone = self.published.extract_if(.., |name, _| !is_there(name));
        changes.extend(gone.map(|(name, _)| Change::Remove(names.intern(&name))));
        changes
    }

    /// Publishes the endpoints that changed of the clusters that are there.
    pub(super) fn assign_endpoints(&mut self, manager: &ClusterManager) {
        let table = manager.table();
        for (name, it) in &self.endpoints {
            let state = table.by_name(name).and_then(|index| table.get(index));
            let (Some(state), Some(endpoints)) = (state, endpoints_of(Some(it))) else { continue };
            let hash = it.only().map(|accepted| accepted.entry.hash);
            // A cluster that takes the place of another one has them already.
            if self.assigned.get(name).copied() != hash {
                state.assign(endpoints);
                self.assigned.extend(hash.map(|hash| (name.clone(), hash)));
            }
        }
        self.assigned.retain(|name, _| self.endpoints.contains_key(name));
    }

    /// What became of the listeners.
    pub(super) fn listener_changes(&mut self) -> Vec<ListenerChange> {
        let mut changes = Vec::new();
        let Some(listeners) = &self.listeners else { return changes };
        // First those that go: what comes may need their addresses.
        for (at, slot) in self.slots.iter().enumerate() {
            let is_wanted = slot.is_static || listeners.accepted.contains_key(&slot.name);
            if !is_wanted && (slot.listener.is_some() || slot.pending.is_some()) {
                changes.push(ListenerChange { at, listener: None });
            }
        }
        for (name, accepted) in &listeners.accepted {
            let Some(config) = accepted.listener() else { continue };
            let at = self.slots.iter().position(|slot| slot.name == *name).unwrap_or_else(|| {
                let name = Arc::clone(name);
                self.slots.push(Slot { name, listener: None, is_static: false, pending: None });
                self.slots.len() - 1
            });
            let Some(slot) = self.slots.get(at) else { continue };
            let known = [&slot.listener, &slot.pending];
            let is_known = known.into_iter().flatten().any(|known| Arc::ptr_eq(known, config));
            let is_cold = managers(config)
                .any(|(_, source)| self.routes.get(&**source).is_some_and(|it| !it.is_settled()));
            if !slot.is_static && !is_known && !is_cold {
                changes.push(ListenerChange { at, listener: Some(Arc::clone(config)) });
            }
        }
        changes
    }

    /// Tables of routes that the threads do not have yet; to be asked for after the listeners that are
    /// published are in their slots.
    pub(super) fn table_changes(&mut self) -> Vec<RoutesFor> {
        let (bootstrap, options) = (Arc::clone(&self.bootstrap), self.options.clone());
        let context = Context { bootstrap: &bootstrap, options: &options };
        let mut before = std::mem::take(&mut self.tables);
        let mut changes = Vec::new();
        let published = self.slots.iter().filter_map(|slot| slot.listener.as_ref());
        for (manager, source) in published.flat_map(managers) {
            let Some(it) = self.routes.get_mut(&**source) else { continue };
            let known = before.iter().position(|known| Arc::ptr_eq(&known.manager, manager));
            let known = known.map(|at| before.swap_remove(at));
            let hash = it.only().map(|accepted| accepted.entry.hash);
            if hash.is_none() || known.as_ref().is_some_and(|known| Some(known.hash) == hash) {
                self.tables.extend(known);
                continue;
            }
            let made = table_for(it, manager, &context);
            if let Some(table) = &made {
                changes.push((Arc::clone(manager), Arc::clone(table)));
            }
            // One that this manager cannot use leaves it the last good one, and is not tried again.
            if let Some(routes) = made.or_else(|| known.map(|known| known.routes)) {
                let (manager, hash) = (Arc::clone(manager), hash.unwrap_or_default());
                self.tables.push(Given { manager, hash, routes });
            }
        }
        changes
    }

    /// A new edition of the configuration with what is accepted now.
    ///
    /// # Errors
    /// When there is no descriptor or no memory left.
    pub(super) fn next_edition(&mut self, before: &ConfigSource) -> io::Result<Arc<ConfigSource>> {
        let accepted = self.subscriptions().flat_map(|it| it.accepted.values());
        let accepted: Vec<&Accepted> = accepted.collect();
        let hash = accepted.iter().fold(before.file_hash, |sum, it| {
            let kind = it.entry.kind as u128 + 1;
            sum.rotate_left(5).wrapping_add(it.entry.hash.wrapping_mul(kind * 2 + 1))
        });
        let bytes = bundle::write(&self.file, accepted.iter().map(|it| (&it.entry, &*it.version)));
        self.edition += 1;
        Ok(Arc::new(ConfigSource {
            hash,
            file_hash: before.file_hash,
            edition: self.edition,
            path: before.path.clone(),
            file: memfd::sealed("baton-resources", &bytes)?,
        }))
    }

    /// A log or a header of what is accepted shows our own address towards endpoints.
    pub(super) fn shows_upstream_local(&self) -> bool {
        let mut accepted = self.subscriptions().flat_map(|it| it.accepted.values());
        accepted.any(|it| it.entry.shows_upstream_local)
    }
}

fn endpoints_of(subscription: Option<&Subscription>) -> Option<&[EndpointConfig]> {
    subscription?.only()?.endpoints()
}

/// The table of a connection manager; `None` when there is none that it can use, which is told.
fn table_for(
    it: &mut Subscription,
    manager: &HttpConnectionManager,
    context: &Context<'_>,
) -> Option<Arc<RouteConfiguration>> {
    match resource::routes_for(&it.only()?.entry, manager, context) {
        Ok(bound) => {
            for warning in &bound.warnings {
                tracing::warn!("{warning}");
            }
            Some(bound.routes)
        }
        Err(diagnostics) => {
            let name = it.wanted.as_deref().map(str::to_owned);
            it.tell(name, &diagnostics);
            None
        }
    }
}

/// The connection managers of a listener whose routes are resources of their own.
fn managers(
    listener: &Arc<Listener>,
) -> impl Iterator<Item = (&Arc<HttpConnectionManager>, &Arc<RdsSource>)> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.flat_map(|chain| &chain.filters).filter_map(|filter| match filter {
        NetworkFilter::HttpConnectionManager(manager) => match &manager.routes {
            Routes::Rds(source) => Some((manager, source)),
            Routes::Static(_) => None,
        },
        NetworkFilter::TcpProxy(_) | NetworkFilter::Echo | NetworkFilter::DirectResponse(_) => None,
    })
}

fn warm(name: Arc<str>, candidate: Candidate, done: mpsc::UnboundedSender<Event>) {
    tokio::task::spawn_local(async move {
        candidate.warm(DNS_PATIENCE).await;
        // The receiver lives as long as the process.
        drop(done.send(Event::Warm(name, candidate)));
    });
}

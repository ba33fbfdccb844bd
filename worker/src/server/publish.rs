//! How what was accepted reaches the threads and the sockets while a generation serves.
//!
//! ```text
//! changes ──same sockets──────────────────────────────→ Update to all threads
//!    └──other sockets──→ NEED_LISTENERS ──LISTENERS──→ Update, then polled; old ones are given up
//!                                       └─UNBOUND────→ the listener stays as it was, which is told
//! ```

use std::{collections::HashMap, os::fd::AsFd, sync::Arc, time::Duration};

use baton_contract::{
    listener_key::{ListenerKey, ListenerSpec},
    message::{
        DrainListeners, LIVE_LISTENERS_FEATURE, Listeners, NeedListeners, RESOURCES_FEATURE,
        Resources as Told, Unbound,
    },
};

use super::{
    lifecycle::Phase,
    resources::{Event, ListenerChange, view},
    running::Running,
    service::open_logs_of,
    startup::{chain, specs_of},
    threads::{Changed, OwnGate, Shard, ThreadError, Update},
};
use crate::{cluster::Change, config::listener::Listener, listener::acceptor::Patience};

/// Listeners that wait for their sockets, by the number of the request.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    waiting: HashMap<u64, Waiting>,
    last: u64,
}

impl Sockets {
    /// Whoever waits for sockets at this address.
    fn wanting(&mut self, key: &ListenerKey) -> Option<&mut Waiting> {
        let is_its = |waiting: &&mut Waiting| waiting.specs.iter().any(|spec| spec.key == *key);
        self.waiting.values_mut().find(is_its)
    }
}

#[derive(Debug)]
struct Waiting {
    at: usize,
    listener: Arc<Listener>,
    specs: Vec<ListenerSpec>,
    shards: Vec<Shard>,
    refused: Option<String>,
}

impl Running {
    /// Takes up what resources wait for, and publishes what came of it.
    pub(super) async fn take_resources(&mut self, event: Event) {
        if self.it.resources.take(event, Some(&self.it.clusters))
            && let Err(error) = self.publish().await
        {
            tracing::error!(error = chain(&error), "not every thread has the new resources");
        }
    }

    /// Publishes what was accepted and is not published yet.
    pub(super) async fn publish(&mut self) -> Result<(), ThreadError> {
        let clusters = self.it.resources.cluster_changes(&self.it.clusters);
        self.count_clusters(&clusters);
        self.it.clusters.apply(clusters);
        self.count_serving();
        self.it.resources.assign_endpoints(&self.it.clusters);
        let mut ready = Vec::new();
        for change in self.it.resources.listener_changes() {
            match change.listener {
                None => self.remove_listener(change.at, &mut ready),
                Some(listener) => self.change_listener(change.at, listener, &mut ready),
            }
        }
        self.update_threads(ready).await
    }

    fn count_clusters(&self, changes: &[Change]) {
        let (table, stats) = (self.it.clusters.table(), &self.it.server_stats);
        for change in changes {
            match change {
                Change::Put(candidate) if table.get(candidate.index()).is_some() => {
                    stats.cluster_changes().cluster_modified.inc();
                }
                Change::Put(_) => stats.cluster_manager.cluster_added.inc(),
                Change::Remove(_) => stats.cluster_changes().cluster_removed.inc(),
            }
        }
    }

    fn count_listener(&self, ListenerChange { at, listener }: &ListenerChange) {
        let stats = &self.it.server_stats;
        match (self.it.listeners.get(*at), listener) {
            (Some(_), Some(_)) => stats.listener_changes().listener_modified.inc(),
            (None, Some(_)) => stats.listener_manager.listener_added.inc(),
            (_, None) => stats.listener_changes().listener_removed.inc(),
        }
    }

    /// Tells the threads, and everybody else who has to know.
    async fn update_threads(&mut self, ready: Vec<ListenerChange>) -> Result<(), ThreadError> {
        for change in &ready {
            self.count_listener(change);
            let ListenerChange { at, listener } = change;
            self.it.listeners.set(*at, listener.clone());
            if let Some(slot) = self.it.resources.slots.get_mut(*at) {
                slot.listener.clone_from(listener);
                slot.pending = None;
            }
        }
        let routes = self.it.resources.table_changes();
        match self.it.resources.next_edition(&self.it.edition) {
            Ok(edition) => self.it.edition = edition,
            Err(error) => {
                tracing::error!(%error, "the resources cannot be handed on");
            }
        }
        let listener = |ListenerChange { at, listener }| {
            (at, listener.map(|config| Changed { own: OwnGate::of(&config), config }))
        };
        let update = Arc::new(Update {
            source: Arc::clone(&self.it.edition),
            listeners: ready.into_iter().map(listener).collect(),
            farewell: Duration::from_millis(self.it.welcome.settings.drain_time_ms),
            routes,
            shows_upstream_local: self.it.resources.shows_upstream_local(),
        });
        let told = self.it.threads.update(&update);
        self.count_serving();
        self.it.newest.set(self.it.edition.hash);
        self.tell_resources();
        self.it.shown.store(view(&self.it.resources));
        told.await
    }

    /// RESOURCES: what the next generation begins with; that is also what this one began with.
    pub(super) fn tell_resources(&mut self) {
        let features = &self.it.welcome.features;
        if !self.it.resources.are_any() || !features.iter().any(|name| name == RESOURCES_FEATURE) {
            return;
        }
        let file = self.it.edition.file.as_fd().try_clone_to_owned();
        let size = nix::sys::stat::fstat(&self.it.edition.file).map(|about| about.st_size);
        let (Ok(file), Ok(size)) = (file, size) else {
            tracing::error!("no descriptor is left to hand the resources on");
            return;
        };
        let hash = format!("{:032x}", self.it.edition.hash);
        let told = Told { hash, size: u64::try_from(size).unwrap_or(0) };
        self.try_send(|link| link.send_with(told, vec![file]));
    }

    /// Adds to the statistics what happened to clusters and files since the last call.
    pub(super) fn report(&mut self) {
        self.reporter.report();
        self.it.resources.report(&self.it.clusters, &self.it.stats);
    }

    /// Whether resources are taken up: an older generation leaves that to the newer one.
    pub(super) fn takes_resources(&self) -> bool {
        matches!(self.life.phase, Phase::Ready | Phase::Serving)
    }

    /// Another supervisor commands: it is told what the one before knew, and asked what that one was.
    pub(super) fn tell_new_supervisor(&mut self) {
        self.tell_resources();
        let open: Vec<NeedListeners> = self
            .sockets
            .waiting
            .iter()
            .map(|(request, waiting)| NeedListeners {
                listeners: waiting.specs.clone(),
                last: true,
                request: *request,
            })
            .collect();
        for need in open {
            self.try_send(|link| link.send(need));
        }
    }

    fn supervisor_binds(&self) -> bool {
        self.it.welcome.features.iter().any(|name| name == LIVE_LISTENERS_FEATURE)
    }

    /// A listener that is new or changed: it is ready at once if its sockets stay as they are.
    fn change_listener(
        &mut self,
        at: usize,
        listener: Arc<Listener>,
        ready: &mut Vec<ListenerChange>,
    ) {
        if let Err(error) = open_logs_of([&listener], &self.it.log_writer) {
            return self.refuse_listener(at, &listener, &chain(&error));
        }
        let specs = match specs_of(&listener, self.it.welcome.settings.concurrency) {
            Ok(specs) => specs,
            Err(error) => return self.refuse_listener(at, &listener, &error.to_string()),
        };
        let taken = specs.iter().find(|spec| self.it.places.is_other(&spec.key, at));
        if let Some(taken) = taken {
            let text = format!("`{}` is the address of another listener", taken.key);
            return self.refuse_listener(at, &listener, &text);
        }
        if specs.iter().all(|spec| self.it.specs.contains(spec)) {
            self.give_up_others(at, &specs);
            ready.push(ListenerChange { at, listener: Some(listener) });
        } else if self.supervisor_binds() {
            self.ask_for_sockets(at, listener, specs);
        } else {
            let text = "the supervisor is of an older version and does not bind it now; \
                        hint: upgrade it, or reload";
            self.refuse_listener(at, &listener, text);
        }
    }

    fn ask_for_sockets(&mut self, at: usize, listener: Arc<Listener>, specs: Vec<ListenerSpec>) {
        self.wait_for(at, &listener);
        self.sockets.last += 1;
        let request = self.sockets.last;
        let listeners = specs.clone();
        let need = NeedListeners { listeners, last: true, request };
        let waiting = Waiting { at, listener, specs, shards: Vec::new(), refused: None };
        self.sockets.waiting.insert(request, waiting);
        self.try_send(|link| link.send(need));
    }

    fn wait_for(&mut self, at: usize, listener: &Arc<Listener>) {
        if let Some(slot) = self.it.resources.slots.get_mut(at) {
            slot.pending = Some(Arc::clone(listener));
        }
    }

    /// It stays as it was, and is tried again when the file changes.
    fn refuse_listener(&mut self, at: usize, listener: &Arc<Listener>, why: &str) {
        self.wait_for(at, listener);
        let name = &listener.name;
        tracing::error!(listener = %name, why, "a listener cannot be used");
        self.it.server_stats.listener_changes().listener_create_failure.inc();
        if let Some(listeners) = &mut self.it.resources.listeners {
            listeners.counts.rejected += 1;
            listeners.problem(Some(name.clone()), format!("listener `{name}`: {why}"));
        }
        self.it.shown.store(view(&self.it.resources));
    }

    fn remove_listener(&mut self, at: usize, ready: &mut Vec<ListenerChange>) {
        self.sockets.waiting.retain(|_, waiting| waiting.at != at);
        self.give_up_others(at, &[]);
        ready.push(ListenerChange { at, listener: None });
    }

    /// Gives up the sockets of a listener but these: what waits in their queues is served.
    fn give_up_others(&mut self, at: usize, kept: &[ListenerSpec]) {
        let is_kept = |key: &ListenerKey| kept.iter().any(|spec| spec.key == *key);
        let (kept, keys): (Vec<_>, Vec<_>) =
            self.it.places.of_listener(at).cloned().partition(is_kept);
        if keys.is_empty() || !self.supervisor_binds() {
            return;
        }
        self.it.places.set(at, &kept);
        self.it.specs.retain(|spec| !keys.contains(&spec.key));
        for message in DrainListeners::removals(keys) {
            self.try_send(|link| link.send(message));
        }
    }

    /// LISTENERS to a generation that serves.
    pub(super) async fn receive_sockets(
        &mut self,
        listeners: Listeners,
        fds: Vec<std::os::fd::OwnedFd>,
    ) -> Result<(), ThreadError> {
        let Listeners { manifest, last, request } = listeners;
        let mut given = Vec::new();
        for (shard, socket) in manifest.into_iter().zip(fds) {
            match self.sockets.wanting(&shard.key) {
                Some(waiting) => waiting.shards.push(Shard {
                    key: shard.key,
                    number: shard.shard,
                    listener: waiting.at,
                    socket: Arc::new(socket),
                }),
                None => given.extend(self.it.places.shard(shard, socket)),
            }
        }
        self.it.threads.add(&given);
        self.it.sockets.extend(given);
        if !last {
            return Ok(());
        }
        let Some(Waiting { at, listener, specs, shards, refused }) =
            self.sockets.waiting.remove(&request)
        else {
            return Ok(());
        };
        if let Some(why) = refused {
            self.refuse_listener(at, &listener, &why);
            let held = |key: &ListenerKey| self.it.specs.iter().any(|spec| spec.key == *key);
            let mut keys: Vec<_> = shards.into_iter().map(|shard| shard.key).collect();
            keys.retain(|key| !held(key));
            keys.dedup();
            for message in DrainListeners::removals(keys) {
                self.try_send(|link| link.send(message));
            }
            return Ok(());
        }
        self.give_up_others(at, &specs);
        let keys: Vec<_> = specs.iter().map(|spec| spec.key.clone()).collect();
        self.it.places.set(at, &keys);
        self.it.specs.retain(|spec| !keys.contains(&spec.key));
        self.it.specs.extend(specs);
        self.part_from_others(at, &keys).await?;
        let is_new = |shard: &Shard| {
            !self.it.sockets.iter().any(|it| it.key == shard.key && it.number == shard.number)
        };
        let shards: Vec<_> = shards.into_iter().filter(is_new).collect();
        self.update_threads(vec![ListenerChange { at, listener: Some(listener) }]).await?;
        self.it.threads.add(&shards);
        self.it.sockets.extend(shards);
        if self.life.phase == Phase::Serving { self.it.threads.poll().await } else { Ok(()) }
    }

    /// Sockets that another listener had until now, which is gone, are this one's: it is given copies of
    /// them.
    async fn part_from_others(
        &mut self,
        at: usize,
        keys: &[ListenerKey],
    ) -> Result<(), ThreadError> {
        let theirs = |shard: &&Shard| shard.listener != at && keys.contains(&shard.key);
        let mut moved: Vec<_> =
            self.it.sockets.iter().filter(theirs).map(|it| it.key.clone()).collect();
        moved.dedup();
        if moved.is_empty() {
            return Ok(());
        }
        let released = self.it.threads.release(&moved.as_slice().into(), Patience::NONE, &[]);
        self.it.sockets.retain(|shard| !moved.contains(&shard.key));
        released.await
    }

    /// UNBOUND: why a listener has no sockets.
    pub(super) fn receive_unbound(&mut self, unbound: Unbound) {
        for it in unbound.listeners {
            if let Some(waiting) = self.sockets.wanting(&it.key) {
                waiting.refused.get_or_insert(it.text);
            } else {
                let key = &it.key;
                tracing::error!(listener = %key, why = it.text, "a listener is not bound");
            }
        }
    }
}

//! Turns what was counted of each file into statistics.

use std::collections::HashMap;

use super::{
    Resources, managers,
    subscription::{Counts, Subscription},
};
use crate::{
    cluster::ClusterManager,
    config::subscription::RdsSource,
    stats::{ThreadStats, UpdateStats},
};

/// The statistics of the files that are read, made when something is counted first.
#[derive(Debug, Default)]
pub(super) struct Tables {
    clusters: Option<UpdateStats>,
    listeners: Option<UpdateStats>,
    /// By `stat_name`.
    endpoints: HashMap<String, UpdateStats>,
    routes: HashMap<RdsSource, UpdateStats>,
}

impl Resources {
    /// Adds what happened since the last call.
    pub(in super::super) fn report(&mut self, manager: &ClusterManager, stats: &ThreadStats) {
        if let Some(counts) = self.clusters.as_mut().and_then(news) {
            add(self.stats.clusters.get_or_insert_with(|| UpdateStats::clusters(stats)), counts);
        }
        if let Some(counts) = self.listeners.as_mut().and_then(news) {
            add(self.stats.listeners.get_or_insert_with(|| UpdateStats::listeners(stats)), counts);
        }
        self.report_endpoints(manager, stats);
        self.report_routes(stats);
    }

    fn report_endpoints(&mut self, manager: &ClusterManager, stats: &ThreadStats) {
        let table = manager.table();
        for (name, it) in self.endpoints.iter_mut().filter(|(_, it)| has_news(it)) {
            let state = table.by_name(name).and_then(|index| table.get(index));
            // What happened to a cluster that is still to come, or is not used yet, is added then.
            let Some(state) = state.filter(|state| state.is_counted()) else { continue };
            let name = &state.config.stat_name;
            let known = self.stats.endpoints.entry(name.clone());
            add(known.or_insert_with(|| UpdateStats::endpoints(stats, name)), take(it));
        }
        if self.stats.endpoints.len() > self.endpoints.len() {
            let is_there = |name: &String| table.iter().any(|it| it.config.stat_name == *name);
            self.stats.endpoints.retain(|name, _| is_there(name));
        }
    }

    fn report_routes(&mut self, stats: &ThreadStats) {
        let accepted = self.listeners.iter().flat_map(|it| it.accepted.values());
        let listeners = accepted.filter_map(|it| it.listener());
        let published = self.slots.iter().filter_map(|slot| slot.listener.as_ref());
        for (manager, source) in published.chain(listeners).flat_map(managers) {
            let Some(it) = self.routes.get_mut(&**source).filter(|it| has_news(it)) else {
                continue;
            };
            let known = self.stats.routes.entry((**source).clone());
            let made = || UpdateStats::routes(stats, &manager.stat_prefix, &source.name);
            add(known.or_insert_with(made), take(it));
        }
        if self.stats.routes.len() > self.routes.len() {
            self.stats.routes.retain(|source, _| self.routes.contains_key(source));
        }
    }
}

fn has_news(it: &Subscription) -> bool {
    it.counts != Counts::default()
}

fn take(it: &mut Subscription) -> Counts {
    std::mem::take(&mut it.counts)
}

fn news(it: &mut Subscription) -> Option<Counts> {
    has_news(it).then(|| take(it))
}

fn add(stats: &UpdateStats, counts: Counts) {
    let Counts { attempt, success, failure, rejected, empty, reload, timeout } = counts;
    stats.update_attempt.add(attempt);
    stats.update_success.add(success);
    stats.update_failure.add(failure);
    stats.update_rejected.add(rejected);
    stats.init_fetch_timeout.add(timeout);
    stats.was_empty(empty);
    stats.reloaded(reload);
}

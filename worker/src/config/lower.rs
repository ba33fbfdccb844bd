//! Decoded messages become the model the worker runs on.
//!
//! Here the safe defaults are set and everything is checked that one message alone cannot tell:
//! references to clusters, names and addresses that stand twice, the order of filters.

mod access_log;
mod action;
mod cluster;
pub(crate) mod common;
mod hcm;
mod listener;
pub(crate) mod matcher;
mod per_filter;
pub(crate) mod place;
pub(crate) mod resource;
mod retry;
pub(crate) mod route;
mod runtime;
mod subscription;

use std::{cell::Cell, collections::HashMap, sync::Arc};

use super::{
    cluster::Cluster,
    extension::Extensions,
    message::Msg,
    model::{Admin, Bootstrap, ClusterIndex, Node},
    names::ClusterNames,
    source::{At, Report},
    suggest,
};

/// What lowering needs to know.
#[derive(Debug)]
pub(crate) struct Lower<'a> {
    pub(crate) report: &'a Report,
    pub(crate) extensions: Extensions,
    allow_unimplemented: bool,
    clusters: Arc<ClusterNames>,
    /// What is known of clusters that are not in the file.
    others: Others,
    /// A format asked for `%UPSTREAM_LOCAL_ADDRESS%` or a part of it.
    shows_upstream_local: Cell<bool>,
    /// A route table says something about filters, and it is not known who uses it.
    needs_user: Cell<bool>,
}

/// What is known of clusters that are not in the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Others {
    /// There are none: a name that is not in the file is a mistake.
    None,
    /// They may come at any time: every name is good.
    Come,
    /// They were to come from somewhere that is not implemented, which was reported: nothing more is said.
    Lost,
}

/// Makes the model. It is only good when nothing was reported as an error. Clusters of the names in
/// `more_clusters` come behind those of the file.
pub(crate) fn lower(
    root: &Msg,
    (allow_unimplemented, extensions): (bool, Extensions),
    more_clusters: &[&str],
    report: &Report,
) -> Bootstrap {
    let mut lower = Lower {
        report,
        extensions,
        allow_unimplemented,
        clusters: Arc::default(),
        others: Others::None,
        shows_upstream_local: Cell::new(false),
        needs_user: Cell::new(false),
    };
    let mut bootstrap = Bootstrap {
        node: root.message("node").map(node).unwrap_or_default(),
        cluster_names: Arc::clone(&lower.clusters),
        dynamic: lower.dynamic(root),
        ..Bootstrap::default()
    };
    if bootstrap.dynamic.clusters.is_some() {
        lower.others = Others::Come;
    } else if !allow_unimplemented && subscription::asks_for_clusters(root) {
        lower.others = Others::Lost;
    }
    let limits = lower.runtime(root);
    bootstrap.max_connections = limits.global;
    bootstrap.listener_limits = limits.listeners;
    if let Some(resources) = root.message("static_resources") {
        lower.index_clusters(resources);
    }
    for name in more_clusters {
        lower.clusters.intern(name);
    }
    if let Some(resources) = root.message("static_resources") {
        bootstrap.clusters = lower.clusters(resources);
        bootstrap.listeners = lower.listeners(resources, &bootstrap.listener_limits);
        lower.addresses(resources, root.message("admin"));
    }
    bootstrap.admin = root.message("admin").and_then(|admin| lower.admin(admin));
    bootstrap.shows_upstream_local = lower.shows_upstream_local.get();
    let listens = !bootstrap.listeners.is_empty() || bootstrap.dynamic.listeners.is_some();
    if !listens && bootstrap.admin.is_none() && !report.has_errors() {
        report
            .error(&root.at, "this configuration listens nowhere")
            .hint("add `static_resources: { listeners: [ … ] }`, or `admin`");
    }
    bootstrap
}

fn node(message: &Msg) -> Node {
    let zone = message.message("locality").map(|locality| locality.text("zone"));
    Node {
        id: message.text("id").to_owned(),
        cluster: message.text("cluster").to_owned(),
        zone: zone.unwrap_or("").to_owned(),
    }
}

impl Lower<'_> {
    /// Gives every cluster its number and finds names that stand twice.
    fn index_clusters(&self, resources: &Msg) {
        let mut lines: HashMap<&str, u32> = HashMap::new();
        for cluster in resources.messages("clusters") {
            let name = cluster.text("name");
            let at = cluster.at_of("name");
            if let Some(first) = lines.get(name) {
                let text = format!("cluster `{name}` stands twice, first on line {first}");
                self.report.error(&at, text).hint("give each cluster its own name");
                continue;
            }
            lines.insert(name, at.span.line);
            self.clusters.intern(name);
        }
    }

    fn clusters(&self, resources: &Msg) -> Vec<Arc<Cluster>> {
        resources.messages("clusters").map(|message| Arc::new(self.cluster(message))).collect()
    }

    /// The cluster of a name, if there is one or may be one.
    fn find_cluster(&self, name: &str) -> Option<ClusterIndex> {
        match self.others {
            Others::Come if !name.is_empty() => Some(self.clusters.intern(name)),
            Others::Come | Others::None | Others::Lost => self.clusters.get(name),
        }
    }

    /// Finds the cluster a name refers to.
    fn cluster_ref(&self, name: &str, at: &At) -> Option<ClusterIndex> {
        if let Some(index) = self.find_cluster(name) {
            return Some(index);
        }
        // An empty name was reported by the rules.
        if !name.is_empty() && self.others == Others::None {
            let is_shown = self.report.shows_error(at);
            let added = self.report.error(at, format!("unknown cluster `{name}`"));
            if !is_shown {
                return None;
            }
            let all = self.clusters.all();
            let names = all.iter().map(AsRef::as_ref);
            let near = suggest::nearest(name, names.clone()).map(str::to_owned);
            let known = match all.len() {
                0 => "no cluster is defined: add it to `static_resources.clusters`".to_owned(),
                _ => format!("defined clusters: {}", list(names)),
            };
            added.maybe_hint(near.map(|name| format!("did you mean `{name}`?"))).hint(known);
        }
        None
    }

    fn admin(&self, message: &Msg) -> Option<Admin> {
        let Some(address) = message.message("address") else {
            // Envoy needs no address and then has no admin interface.
            return None;
        };
        let mut access_log = self.access_logs(message);
        if message.has("access_log_path") {
            let path = message.text("access_log_path");
            access_log.extend(self.admin_log(path, &message.at_of("access_log_path")));
        }
        Some(Admin { address: self.listen_address(address)?, access_log })
    }
}

/// Names with commas, not too many.
fn list<'n>(names: impl Iterator<Item = &'n str> + Clone) -> String {
    const LISTED: usize = 20;
    let shown: Vec<&str> = names.clone().take(LISTED).collect();
    let more = names.count() - shown.len();
    let text = shown.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

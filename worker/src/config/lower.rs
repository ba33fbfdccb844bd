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
mod place;
mod retry;
mod route;
mod runtime;

use std::{cell::Cell, collections::HashMap, sync::Arc};

use super::{
    cluster::Cluster,
    extension::Extensions,
    message::Msg,
    model::{Admin, Bootstrap, ClusterIndex, Node},
    source::{At, Report},
    suggest,
};

/// What lowering needs to know.
#[derive(Debug)]
pub(crate) struct Lower<'a> {
    pub(crate) report: &'a Report,
    pub(crate) extensions: Extensions,
    allow_unimplemented: bool,
    clusters: HashMap<String, ClusterIndex>,
    cluster_names: Vec<String>,
    /// Clusters that are not in the file were to come from somewhere else, which was reported.
    discovers_clusters: bool,
    /// A format asked for `%UPSTREAM_LOCAL_ADDRESS%` or a part of it.
    shows_upstream_local: Cell<bool>,
}

/// Makes the model. It is only good when nothing was reported as an error.
pub(crate) fn lower(
    root: &Msg,
    (allow_unimplemented, extensions): (bool, Extensions),
    report: &Report,
) -> Bootstrap {
    let mut lower = Lower {
        report,
        extensions,
        allow_unimplemented,
        clusters: HashMap::new(),
        cluster_names: Vec::new(),
        discovers_clusters: !allow_unimplemented && root.peek("dynamic_resources").is_some(),
        shows_upstream_local: Cell::new(false),
    };
    let mut bootstrap = Bootstrap {
        node: root.message("node").map(node).unwrap_or_default(),
        ..Bootstrap::default()
    };
    if let Some(resources) = root.message("static_resources") {
        lower.index_clusters(resources);
        bootstrap.clusters = lower.clusters(resources);
        let limits = lower.runtime(root);
        bootstrap.max_connections = limits.global;
        bootstrap.listeners = lower.listeners(resources, &limits.listeners);
        lower.addresses(resources, root.message("admin"));
    }
    bootstrap.admin = root.message("admin").and_then(|admin| lower.admin(admin));
    bootstrap.shows_upstream_local = lower.shows_upstream_local.get();
    if bootstrap.listeners.is_empty() && bootstrap.admin.is_none() && !report.has_errors() {
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
    fn index_clusters(&mut self, resources: &Msg) {
        let mut lines: HashMap<&str, u32> = HashMap::new();
        for (index, cluster) in resources.messages("clusters").enumerate() {
            let name = cluster.text("name");
            let at = cluster.at_of("name");
            if let Some(first) = lines.get(name) {
                let text = format!("cluster `{name}` stands twice, first on line {first}");
                self.report.error(&at, text).hint("give each cluster its own name");
                continue;
            }
            lines.insert(name, at.span.line);
            self.clusters.insert(name.to_owned(), ClusterIndex(index));
            self.cluster_names.push(name.to_owned());
        }
    }

    fn clusters(&self, resources: &Msg) -> Vec<Arc<Cluster>> {
        resources.messages("clusters").map(|message| Arc::new(self.cluster(message))).collect()
    }

    /// Finds the cluster a name refers to.
    fn cluster_ref(&self, name: &str, at: &At) -> Option<ClusterIndex> {
        if let Some(index) = self.clusters.get(name) {
            return Some(*index);
        }
        // An empty name was reported by the rules.
        if !name.is_empty() && !self.discovers_clusters {
            let is_shown = self.report.shows_error(at);
            let added = self.report.error(at, format!("unknown cluster `{name}`"));
            if !is_shown {
                return None;
            }
            let names = self.cluster_names.iter().map(String::as_str);
            let near = suggest::nearest(name, names.clone()).map(str::to_owned);
            let known = match self.cluster_names.len() {
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

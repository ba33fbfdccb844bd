//! Resources before a generation is ready: what it begins with.

use std::sync::Arc;

use super::{Resources, Slot};
use crate::{
    cluster::ClusterManager,
    config::{
        bundle::{self, Bundle},
        model::Bootstrap,
    },
};

impl Resources {
    /// Reads what is there, after what an older generation accepted.
    pub(in super::super) fn open(&mut self, inherited: Option<&[u8]>) {
        match inherited.map(bundle::read) {
            Some(Ok(Bundle { resources, .. })) => self.inherited = resources,
            // All of it is read from the files.
            Some(Err(error)) => {
                tracing::warn!(%error, "resources of another generation are not used");
            }
            None => {}
        }
        self.subscribe();
        self.inherited = Vec::new();
    }

    /// A file that something is missing from, which is still waited for.
    pub(in super::super) fn missing(&self) -> Option<String> {
        let mut missing = self.subscriptions().filter(|it| !it.is_settled());
        missing.next().map(|it| it.source.path.display().to_string())
    }

    /// The clusters of the configuration and those that came from files.
    pub(in super::super) fn start_clusters(
        &mut self,
        bootstrap: &Bootstrap,
    ) -> Arc<ClusterManager> {
        let clusters = ClusterManager::new(bootstrap);
        clusters.apply(self.cluster_changes(&clusters));
        self.assign_endpoints(&clusters);
        clusters
    }

    /// The configuration with the listeners that came from files.
    pub(in super::super) fn begin_with(&mut self) -> Arc<Bootstrap> {
        let mut bootstrap = Bootstrap::clone(&self.bootstrap);
        for change in self.listener_changes() {
            let Some(listener) = change.listener else { continue };
            bootstrap.listeners.push(Arc::clone(&listener));
            if let Some(slot) = self.slots.get_mut(change.at) {
                *slot = Slot { listener: Some(listener), ..slot.clone() };
            }
        }
        Arc::new(bootstrap)
    }
}

//! What is shown of the resources.

use std::sync::Arc;

use super::{Resources, Subscription};
use crate::admin::resources::{File, Shown, View};

/// All of it as it is now.
pub(in super::super) fn view(resources: &Resources) -> Arc<View> {
    let listeners = resources.slots.iter().filter_map(|slot| slot.listener.clone());
    Arc::new(View {
        listeners: listeners.collect(),
        files: resources.subscriptions().map(file).collect(),
    })
}

fn file(it: &Subscription) -> File {
    let shown = it.accepted.values().map(|accepted| Shown {
        entry: accepted.entry.clone(),
        version: accepted.version.clone(),
        updated: accepted.updated,
    });
    File {
        kind: it.kind,
        version: it.seen_version.clone(),
        resources: shown.collect(),
        problems: it.problems.clone(),
        is_awaited: !it.is_settled(),
        path: it.source.path.clone(),
    }
}

//! ADOPT: connections of a generation that died go on in this one.
//!
//! Nothing is negotiated: their old owner is gone, and the supervisor has given them to this
//! generation. One that cannot be served here is in the books of this generation as crashed.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    os::fd::OwnedFd,
    sync::Arc,
};

use baton_contract::message::{Adopt, EscrowEntry};

use super::{
    crew::Import,
    import::{Ground, PinnedConfig, pin},
};
use crate::sys::fault;

/// Configurations of dead generations known at once, at most.
const CONFIGS_MAX: usize = 64;

/// What connections of dead generations need on their way to the threads.
#[derive(Debug)]
pub(super) struct Heirs {
    ground: Ground,
    /// `None` = it cannot be used here.
    configs: RefCell<HashMap<u128, Option<Arc<PinnedConfig>>>>,
    next_thread: Cell<usize>,
}

impl Heirs {
    pub(super) fn new(ground: Ground) -> Self {
        Self { ground, configs: RefCell::default(), next_thread: Cell::new(0) }
    }

    /// Gives the connections of one message to the threads.
    pub(super) async fn adopt(&self, adopt: Adopt, fds: Vec<OwnedFd>) {
        fault::point("adopt");
        let mut fds = fds.into_iter();
        let (Some(file), Ok(hash)) = (fds.next(), u128::from_str_radix(&adopt.hash, 16)) else {
            tracing::error!("an ADOPT message without a configuration");
            return;
        };
        let count = adopt.connections.len();
        let pinned = self.config(hash, adopt.path, file).await;
        for EscrowEntry { id, descriptors, record, .. } in adopt.connections {
            let import = Import {
                record: record.0,
                fds: fds.by_ref().take(usize::from(descriptors)).collect(),
                pinned: pinned.clone(),
                on_removed: self.ground.on_removed,
            };
            let thread = self.next_thread.get();
            self.next_thread.set((thread + 1) % self.ground.crew.len().max(1));
            self.ground.crew.adopt(thread, id, import);
        }
        tracing::info!(connections = count, "adopted");
        fault::point("adopted");
    }

    /// The configuration that governs them; `None` when it is this generation's, or useless. Then
    /// the threads find out that it does not fit.
    async fn config(&self, hash: u128, path: String, file: OwnedFd) -> Option<Arc<PinnedConfig>> {
        // Of what is kept for a crash the supervisor knows the file alone.
        if hash == self.ground.file_hash {
            return None;
        }
        if let Some(known) = self.configs.borrow().get(&hash) {
            return known.clone();
        }
        let options = self.ground.options.clone();
        let parsed = tokio::task::spawn_blocking(move || pin(hash, path, file, &options)).await;
        let pinned = match parsed {
            Ok(Ok(pinned)) => Some(Arc::new(pinned)),
            Ok(Err(error)) => {
                tracing::error!(%error, "the configuration of a dead generation is of no use");
                None
            }
            Err(error) => {
                tracing::error!(%error, "reading the configuration of a dead generation failed");
                None
            }
        };
        let mut configs = self.configs.borrow_mut();
        if configs.len() < CONFIGS_MAX {
            configs.insert(hash, pinned.clone());
        }
        pinned
    }
}

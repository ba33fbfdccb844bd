//! What is in escrow, on its way to the program that is executed in place of this one.

use std::os::fd::AsFd as _;

use baton_contract::{
    message::Hex,
    shm::{EscrowId, SegmentOwner},
};
use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use super::{DESCRIPTORS, Entry, Store};
use crate::{
    reexec::{Baggage, BaggageError},
    state::event::{ConfigId, Time},
};

/// Everything but the descriptors.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct EscrowState(Vec<EntryState>);

#[derive(Debug, Deserialize, Serialize)]
struct EntryState {
    id: EscrowId,
    config: ConfigId,
    record: Hex,
    descriptors: usize,
    since: Time,
}

fn name(id: EscrowId, number: usize) -> String {
    format!("escrow.{}.{}.{number}", id.index, id.nonce)
}

impl Store {
    /// Adds it to the baggage: as much as there is room for copies of descriptors. The rest ends
    /// with this program; those connections go on, and die with their worker.
    pub(crate) fn pack(&self, baggage: &mut Baggage) -> Result<(), BaggageError> {
        let may = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        // An eighth of all is half of what escrow leaves free.
        let room = usize::try_from(may / 8 / DESCRIPTORS).unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        for (id, entry) in self.entries.iter().take(room) {
            for (number, fd) in entry.descriptors.iter().enumerate() {
                baggage.put_fd(name(*id, number), fd.as_fd())?;
            }
            entries.push(EntryState {
                id: *id,
                config: entry.config,
                record: Hex(entry.record.clone()),
                descriptors: entry.descriptors.len(),
                since: entry.since,
            });
        }
        if entries.len() < self.entries.len() {
            let left = self.entries.len().saturating_sub(entries.len());
            tracing::warn!(connections = left, "no room to take all of the escrow along");
        }
        baggage.put("escrow", &EscrowState(entries))
    }

    /// Takes it out of the baggage.
    pub(crate) fn unpack(state: EscrowState, baggage: &mut Baggage) -> Self {
        let mut store = Self::default();
        for entry in state.0 {
            let EntryState { id, config, record: Hex(record), descriptors, since } = entry;
            let fds = (0..descriptors).map(|number| baggage.take_fd(&name(id, number)));
            match fds.collect::<Result<Vec<_>, _>>() {
                Ok(descriptors) => {
                    store.entries.insert(id, Entry { config, record, descriptors, since });
                }
                Err(error) => tracing::error!(%error, "a connection is not in escrow any more"),
            }
        }
        store
    }

    /// How many wait for adoption.
    pub(crate) fn orphans(&self, segment: &SegmentOwner) -> usize {
        self.entries.keys().filter(|id| super::is_orphan(segment, **id)).count()
    }
}

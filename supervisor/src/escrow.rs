//! Copies of descriptors of connections that outlive their worker, and what is needed to go on with
//! them.
//!
//! ```text
//! ESCROW ──▶ held ──── UNESCROW, or its worker ended it ──▶ closed
//!              │ its worker died, all state was in the kernel
//!              ▼
//!           orphan ─── a generation serves ──▶ ADOPT; the copies are kept, it is held again
//! ```
//! Whose a connection is, and whether it can be adopted, is in shared memory, not here. Closing a copy
//! never ends a connection another process has.

mod pack;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use baton_contract::{
    fault,
    frame::MAX_FDS,
    generation::Generation,
    message::{Adopt, Escrow, EscrowEntry, Hex, MAX_ESCROW_RECORD, MAX_ESCROW_RECORDS, Unescrow},
    shm::{EscrowId, EscrowState, SegmentOwner, SlotIndex},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub(crate) use self::pack::EscrowState as Packed;
use crate::{
    perform::Performer,
    state::event::{ConfigId, Time},
    worker::Parcel,
};

/// Descriptors of one connection, at most.
const DESCRIPTORS: u64 = 6;
/// Descriptors the supervisor keeps for everything else: listeners, workers, the copies that travel
/// with ADOPT. A quarter of what it may have, within these bounds.
const RESERVE: std::ops::RangeInclusive<u64> = 256..=8192;

/// Everything in escrow.
#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: BTreeMap<EscrowId, Entry>,
}

#[derive(Debug)]
struct Entry {
    config: ConfigId,
    record: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    since: Time,
}

/// Who sends ESCROW, and what is known about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) segment: &'a SegmentOwner,
    pub(crate) slot: SlotIndex,
    /// What it runs.
    pub(crate) config: ConfigId,
    /// Configurations whose bytes are at hand.
    pub(crate) configs: &'a BTreeMap<ConfigId, Arc<[u8]>>,
}

/// Connections that are sent to a worker at once.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) config: ConfigId,
    pub(crate) message: Adopt,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// How many connections may be in escrow: what the descriptors of this process allow, after its limit
/// was raised as far as it goes.
pub(crate) fn limit() -> u32 {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    let may = raised.or_else(|_| getrlimit(Resource::RLIMIT_NOFILE).map(|(soft, _)| soft));
    let may = may.unwrap_or(0);
    let reserve = (may / 4).clamp(*RESERVE.start(), *RESERVE.end());
    u32::try_from(may.saturating_sub(reserve) / DESCRIPTORS).unwrap_or(u32::MAX)
}

impl Performer {
    /// Keeps what a worker put into escrow, and closes what it took out.
    pub(crate) fn keep_escrow(&mut self, generation: Generation) {
        let now = self.clock.now();
        let Some(worker) = self.workers.get_mut(&generation) else { return };
        let parcels = std::mem::take(&mut worker.escrow);
        let (Some(segment), Some(slot), Some(config)) = (&self.segment, worker.slot, worker.config)
        else {
            return;
        };
        let sender = Sender { segment, slot, config, configs: &self.configs };
        for parcel in parcels {
            match parcel {
                Parcel::In(escrow, fds) => {
                    fault::point_of("supervisor.received", "ESCROW");
                    self.escrow.take(sender, escrow, fds, now);
                }
                Parcel::Out(gone) => self.escrow.close((segment, slot), &gone),
            }
        }
    }
}

impl Store {
    /// Takes what came with an ESCROW. What does not fit together is dropped; the worker only loses
    /// the escrow of it.
    pub(crate) fn take(
        &mut self,
        from: Sender<'_>,
        escrow: Escrow,
        descriptors: Vec<OwnedFd>,
        now: Time,
    ) {
        let named: usize = escrow.connections.iter().map(|e| usize::from(e.descriptors)).sum();
        if named != descriptors.len() {
            tracing::warn!(named, came = descriptors.len(), "an ESCROW message was skipped");
            return;
        }
        let mut descriptors = descriptors.into_iter();
        for entry in escrow.connections {
            let EscrowEntry { id, descriptors: count, record: Hex(record), config, .. } = entry;
            let own: Vec<OwnedFd> = descriptors.by_ref().take(usize::from(count)).collect();
            let owner = from.segment.escrow_state(id).map(|(_, owner)| owner);
            let fits = u64::from(count) <= DESCRIPTORS && record.len() <= MAX_ESCROW_RECORD;
            let config = match config.as_str() {
                "" => Some(from.config),
                hash => u128::from_str_radix(hash, 16).ok().map(ConfigId),
            };
            let config = config.filter(|id| from.configs.contains_key(id));
            if owner == Some(from.slot)
                && fits
                && let Some(config) = config
            {
                let entry = Entry { config, record, descriptors: own, since: now };
                self.entries.entry(id).or_insert(entry);
            }
        }
    }

    /// Closes the copies of what the generation in `slot` has ended.
    pub(crate) fn close(
        &mut self,
        (segment, slot): (&SegmentOwner, SlotIndex),
        unescrow: &Unescrow,
    ) {
        for id in &unescrow.connections {
            if segment.escrow_state(*id) == Some((EscrowState::Ended, slot)) {
                self.entries.remove(id);
                segment.escrow_free(*id);
            }
        }
    }

    /// Names of all connections, for the retirement of a generation.
    pub(crate) fn ids(&self) -> Vec<EscrowId> {
        self.entries.keys().copied().collect()
    }

    /// Number of connections.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Configurations that govern what is here.
    pub(crate) fn configs(&self) -> BTreeSet<ConfigId> {
        self.entries.values().map(|entry| entry.config).collect()
    }

    /// After a generation was retired: closes what cannot be adopted. How many wait for adoption.
    pub(crate) fn sweep(&mut self, segment: &SegmentOwner) -> usize {
        let mut orphans = 0;
        self.entries.retain(|id, _| match segment.escrow_state(*id) {
            Some((EscrowState::Orphan, _)) => {
                orphans += 1;
                true
            }
            Some((EscrowState::Ended, owner)) if !segment.is_in_use(owner) => {
                segment.escrow_free(*id);
                false
            }
            Some((EscrowState::Free, _)) | None => false,
            Some(_) => true,
        });
        orphans
    }

    /// The next orphans that fit into one frame; they belong to the generation in `to` from now on.
    /// `None` when there are none.
    ///
    /// # Errors
    /// When a descriptor cannot be copied; the orphans stay orphans.
    pub(crate) fn batch(
        &self,
        segment: &SegmentOwner,
        to: SlotIndex,
        path: &str,
        now: Time,
    ) -> io::Result<Option<Batch>> {
        let mut orphans = self.entries.iter().filter(|(id, _)| is_orphan(segment, **id)).peekable();
        let Some(config) = orphans.peek().map(|(_, entry)| entry.config) else { return Ok(None) };
        let (mut connections, mut descriptors, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        for (id, entry) in orphans.filter(|(_, entry)| entry.config == config) {
            bytes = bytes.saturating_add(entry.record.len());
            // One place is the configuration's.
            let after = descriptors.len().saturating_add(entry.descriptors.len());
            if after >= MAX_FDS || bytes > MAX_ESCROW_RECORDS {
                break;
            }
            for descriptor in &entry.descriptors {
                descriptors.push(descriptor.as_fd().try_clone_to_owned()?);
            }
            let held = now.saturating_sub(entry.since);
            connections.push(EscrowEntry {
                id: *id,
                descriptors: u16::try_from(entry.descriptors.len()).unwrap_or(u16::MAX),
                record: Hex(entry.record.clone()),
                config: String::new(),
                held_ms: millis(held),
            });
        }
        for entry in &connections {
            segment.escrow_give(entry.id, to);
        }
        let message = Adopt { hash: config.to_string(), path: path.to_owned(), connections };
        Ok(Some(Batch { config, message, descriptors }))
    }
}

/// Whether a connection waits for adoption.
fn is_orphan(segment: &SegmentOwner, id: EscrowId) -> bool {
    matches!(segment.escrow_state(id), Some((EscrowState::Orphan, _)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

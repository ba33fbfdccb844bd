//! A worker's side of the segment.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::Ordering::{Acquire, Relaxed},
};

use super::{
    Bucket, EscrowId, EscrowState, SegmentError, SlotIndex, ThreadSlab, Ticket,
    connections::{Connections, Counts},
    escrow::EscrowTable,
    layout::{SLAB_RESET, Segment, cells_of, row},
    name::Kind,
    owner::{in_use, slabs_of},
    reader::totals,
    slab::Shared,
};

/// The segment as one worker process has it.
#[derive(Debug)]
pub struct SegmentWorker {
    pub(super) shared: Arc<Shared>,
    slot: SlotIndex,
    /// The slot as an index; checked when it was opened.
    index: usize,
    /// Slabs of this generation and whether they were handed out, the main thread's last.
    taken: Mutex<Vec<bool>>,
}

impl SegmentWorker {
    /// Opens the segment for the generation in `slot`.
    ///
    /// # Errors
    /// When there is no such segment, or it cannot be trusted, or the slot is not in use.
    pub fn open(os_id: &str, slot: SlotIndex) -> Result<Arc<Self>, SegmentError> {
        Self::of(Segment::open(os_id)?, slot)
    }

    pub(super) fn of(segment: Segment, slot: SlotIndex) -> Result<Arc<Self>, SegmentError> {
        let index = in_use(&segment, slot).ok_or(SegmentError::NoSuchSlot(slot.0))?;
        let slabs = slabs_of(&segment, index).len();
        let shared = Shared::new(segment);
        shared.directory().scan(&shared.segment);
        Ok(Arc::new(Self { shared, slot, index, taken: Mutex::new(vec![false; slabs]) }))
    }

    /// The row of this generation.
    pub fn slot(&self) -> SlotIndex {
        self.slot
    }

    /// Says that the worker is alive, in ms of [`super::mono_ms`].
    pub fn heartbeat(&self, mono_ms: u64) {
        self.shared.segment.row(self.index, row::HEARTBEAT).store(mono_ms, Relaxed);
    }

    /// When this generation will be stopped, in ms of [`super::mono_ms`]; 0 = not decided.
    pub fn drain_deadline(&self) -> u64 {
        self.shared.segment.row(self.index, row::DRAIN_DEADLINE).load(Acquire)
    }

    /// Offers a connection of this generation to the one in row `to`; `None` when too many are on
    /// their way. `hint` is where to look for room first.
    pub fn offer(&self, to: SlotIndex, counts: Counts, hint: u32) -> Option<Ticket> {
        self.connections().offer((self.slot, to), counts, hint)
    }

    /// Makes the generation a connection was offered to its owner. Either side may do it; `false`
    /// when it was decided already or taken back.
    pub fn decide(&self, ticket: Ticket) -> bool {
        self.connections().decide(ticket)
    }

    /// Takes an offer of this generation back; `false` when the other generation owns the
    /// connection.
    pub fn withdraw(&self, ticket: Ticket) -> bool {
        self.connections().withdraw(ticket)
    }

    /// Whether the generation a connection was offered to owns it.
    pub fn is_decided(&self, ticket: Ticket) -> bool {
        self.connections().is_decided(ticket)
    }

    /// The generation a connection was offered to, until both have counted it.
    pub fn offered_to(&self, ticket: Ticket) -> Option<SlotIndex> {
        self.connections().offered_to(ticket)
    }

    /// The old owner counted the connection as migrated.
    pub fn old_booked(&self, ticket: Ticket) {
        self.connections().old_booked(ticket);
    }

    /// The new owner counted the connection as opened.
    pub fn new_booked(&self, ticket: Ticket) {
        self.connections().new_booked(ticket);
    }

    /// Takes a word for a connection that goes into escrow, as [`EscrowState::Busy`]; `None` when
    /// the first `limit` are in use. `hint` is where to look first.
    pub fn escrow_claim(&self, limit: u32, hint: u32) -> Option<EscrowId> {
        self.escrow().claim(self.slot, limit, hint)
    }

    /// Says whether all state of a connection of this generation is in the kernel, or that it has
    /// ended; `false` when it is not this generation's any more.
    pub fn escrow_set(&self, id: EscrowId, state: EscrowState) -> bool {
        let from = [EscrowState::Busy, EscrowState::Kept];
        self.escrow().change(id, self.slot, &from, (state, self.slot))
    }

    /// A connection of this generation goes to another one that lives.
    pub fn escrow_give(&self, id: EscrowId, to: SlotIndex) -> bool {
        let from = [EscrowState::Busy, EscrowState::Kept];
        self.escrow().change(id, self.slot, &from, (EscrowState::Moving, to))
    }

    /// This generation counts a connection that came with ADOPT, which it takes later; `false` when
    /// it is not to be had.
    pub fn escrow_book(&self, id: EscrowId) -> bool {
        self.escrow().book(id, self.slot)
    }

    /// Makes this generation the owner of a connection in escrow that moved to it or that it booked;
    /// `false` when it is not to be had, or was taken already.
    pub fn escrow_take(&self, id: EscrowId) -> bool {
        self.escrow().take(id, self.slot)
    }

    /// Whether nobody has copies of a connection any more that was in escrow: its word is free, or
    /// another one's.
    pub fn escrow_is_gone(&self, id: EscrowId) -> bool {
        self.escrow().get(id).is_none_or(|(state, _)| state == EscrowState::Free)
    }

    /// Whether a connection that came with ADOPT is still to be taken.
    pub fn escrow_is_given(&self, id: EscrowId) -> bool {
        self.escrow().get(id) == Some((EscrowState::Given, self.slot))
    }

    /// Nobody shall go on with connections of this generation after its process is gone.
    pub fn escrow_end_all(&self) {
        self.escrow().end_all(self.slot);
    }

    /// A word that was claimed and never left this process.
    pub fn escrow_free(&self, id: EscrowId) {
        self.escrow().free(id);
    }

    fn escrow(&self) -> EscrowTable<'_> {
        EscrowTable { segment: &self.shared.segment }
    }

    fn connections(&self) -> Connections<'_> {
        Connections { segment: &self.shared.segment }
    }

    /// The slab of a worker thread, counted from 0. Each may be taken once. Threads beyond those
    /// the generation was registered with count for themselves only.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn thread(self: &Arc<Self>, index: u32) -> Result<ThreadSlab, SegmentError> {
        let threads = self.taken().len().saturating_sub(1);
        match usize::try_from(index).ok().filter(|index| *index < threads) {
            Some(thread) => self.take(thread),
            None => Ok(self.overflowed()),
        }
    }

    /// The slab of the main thread. It may be taken once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn main_thread(self: &Arc<Self>) -> Result<ThreadSlab, SegmentError> {
        let slabs = self.taken().len();
        match slabs.checked_sub(1) {
            Some(last) => self.take(last),
            None => Ok(self.overflowed()),
        }
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overflowed(&self) -> ThreadSlab {
        self.shared.segment.overflowed();
        ThreadSlab::detached()
    }

    fn take(&self, thread: usize) -> Result<ThreadSlab, SegmentError> {
        match self.taken().get_mut(thread) {
            Some(taken) if !*taken => *taken = true,
            _ => return Err(SegmentError::ThreadTaken(u32::try_from(thread).unwrap_or(u32::MAX))),
        }
        let first = slabs_of(&self.shared.segment, self.index).start;
        Ok(ThreadSlab::attached(Arc::clone(&self.shared), first + thread))
    }

    /// The token bucket of this name, shared by all generations; full when nobody used it before.
    /// `None` when the segment has no room for it, or its supervisor made none.
    pub fn bucket(&self, name: &str) -> Option<Bucket> {
        Bucket::shared(&self.shared, name)
    }

    /// Makes all counters begin at 0 again, for every reader. Histograms and the loss ledger go on.
    ///
    /// # Errors
    /// When there is no memory for it, or the segment changes too fast.
    pub fn reset_counters(&self) -> Result<(), SegmentError> {
        let mut directory = self.shared.directory();
        directory.scan(&self.shared.segment);
        let segment = &self.shared.segment;
        let totals = totals(segment, &directory.entries)?;
        let reset = segment.slab(SLAB_RESET);
        for (entry, total) in directory.entries.iter().zip(totals) {
            if entry.kind != Kind::Counter || entry.cell < super::ledger::OPEN {
                continue;
            }
            let total = total.first().copied().unwrap_or(0);
            if total == 0 {
                continue;
            }
            for cell in reset.populate(entry.cell, cells_of(entry.kind))? {
                cell.store(total, Relaxed);
            }
        }
        Ok(())
    }
}

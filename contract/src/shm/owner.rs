//! The supervisor's side of the segment: it creates it, keeps the generation table and folds what
//! dead generations counted into the base.
//!
//! The base exists twice. A fold writes the copy that nobody reads and then raises the epoch, whose
//! lowest bit says which copy counts, so a reader sees all of a fold or nothing. The copy remembers
//! which registration it took in last: a fold that was interrupted anywhere can be done again.

use std::sync::{
    Arc,
    atomic::{
        Ordering::{AcqRel, Acquire, Relaxed, Release},
        fence,
    },
};

use super::{
    Cell, EndReason, Kind, MetricName, SegmentError, SegmentWorker, SlotIndex, ThreadSlab,
    connections::Connections,
    directory::{Entry, What},
    escrow::{EscrowId, EscrowState, EscrowTable, NOBODY},
    layout::{
        FIRST_THREAD_SLAB, Geometry, Identity, SLAB_OWNER, SLABS_BASE, Segment, cells_of, header,
        life, row,
    },
    ledger, map, mono_ms, process,
    slab::Shared,
    sweep::{self, OsId},
    table::Table,
};
use crate::generation::{Generation, State};

/// The segment as its supervisor has it. Dropping it removes the segment's name, unless
/// [`SegmentOwner::leave`] was called.
#[derive(Debug)]
pub struct SegmentOwner {
    pub(super) os_id: String,
    pub(super) shared: Arc<Shared>,
    slab: ThreadSlab,
    /// The supervisor this value belongs to, see [`SegmentOwner::commands`].
    pub(super) epoch: u64,
    pub(super) keeps_name: bool,
}

/// What a new segment says about who made it.
fn identity(id: &OsId, base_id: u32) -> Identity {
    Identity {
        instance: id.random,
        boot: u64::from_str_radix(&id.boot, 16).unwrap_or(0),
        owner_pid: id.pid,
        owner_start: process::start_time(id.pid).unwrap_or(0),
        base_id,
    }
}

impl SegmentOwner {
    /// Removes what dead supervisors with this base id left, and creates a segment.
    ///
    /// # Errors
    /// When the operating system refuses, or there is no shared memory left.
    pub fn create(base_id: u32) -> Result<Self, SegmentError> {
        Self::sweep_stale(base_id);
        Self::create_with(base_id, Geometry::default())
    }

    /// Creates a segment in a memory file of this process: for the time when the file system for shared
    /// memory is full or missing. It has a name that others can open, and lives no longer than this
    /// process and those that opened it.
    ///
    /// # Errors
    /// When the operating system refuses, or other processes could not open it.
    pub fn in_memory_file(base_id: u32) -> Result<Self, SegmentError> {
        let identity = identity(&OsId::new(base_id), base_id);
        let (os_id, segment) = Segment::in_memory_file(Geometry::default(), identity)?;
        let mut owner = Self::first(os_id, segment)?;
        // There is no name to be removed.
        owner.keeps_name = true;
        Ok(owner)
    }

    /// Creates a segment of another size.
    ///
    /// # Errors
    /// When the operating system refuses, or there is no shared memory left.
    pub fn create_with(base_id: u32, geometry: Geometry) -> Result<Self, SegmentError> {
        let id = OsId::new(base_id);
        let os_id = id.text();
        let segment =
            Segment::create(&os_id, geometry, identity(&id, base_id)).inspect_err(|_| {
                // Best effort: the name may not exist.
                map::unlink(&os_id).ok();
            })?;
        Self::first(os_id, segment)
    }

    /// The statistics of a generation alone, which no other process sees: for the time when there is no
    /// shared memory. Its row says that it serves.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn private(
        base_id: u32,
        generation: Generation,
        threads: u32,
    ) -> Result<Arc<SegmentWorker>, SegmentError> {
        let identity = identity(&OsId::new(base_id), base_id);
        let slabs = FIRST_THREAD_SLAB + threads as usize + 1;
        let geometry = Geometry { slots: 1, slabs, ..Geometry::default() };
        let segment = Segment::private(geometry, identity)?;
        let mut owner = Self::first(String::new(), segment.clone())?;
        // There is no name to be removed.
        owner.keeps_name = true;
        let slot = owner.register(generation, threads)?;
        owner.set_pid(slot, std::process::id());
        owner.set_state(slot, State::Serving);
        SegmentWorker::of(segment, slot)
    }

    /// Of a new segment, to which it adds what every segment has.
    fn first(os_id: String, segment: Segment) -> Result<Self, SegmentError> {
        let owner = Self::new(os_id, segment);
        for (kind, name) in ledger::well_known() {
            let segment = &owner.shared.segment;
            let cell = owner.shared.directory().define(segment, What::Metric(kind), &name)?;
            for base in SLABS_BASE {
                segment.slab(base).populate(cell, cells_of(kind))?;
            }
        }
        for table in Table::ALL {
            let what = What::Table(table);
            let made = owner.shared.directory().define(&owner.shared.segment, what, &table.name());
            match made {
                // A segment too small for it has no shared limits, which its users find out.
                Ok(_) | Err(SegmentError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(owner)
    }

    pub(super) fn new(os_id: String, segment: Segment) -> Self {
        let shared = Shared::new(segment);
        shared.directory().scan(&shared.segment);
        let slab = ThreadSlab::attached(Arc::clone(&shared), SLAB_OWNER);
        let epoch = shared.segment.word(header::COMMAND_EPOCH).load(Acquire);
        Self { os_id, shared, slab, epoch, keeps_name: false }
    }

    /// Removes the segments with this base id of which no process lives; how many there were.
    pub fn sweep_stale(base_id: u32) -> usize {
        sweep::sweep(base_id)
    }

    /// Name of the object, for the workers and for readers.
    pub fn os_id(&self) -> &str {
        &self.os_id
    }

    /// Takes a row of the generation table and slabs for `threads` worker threads and the main
    /// thread of a new generation. When there are not enough slabs left the generation gets none:
    /// it counts for itself only, and `stats.overflow` says so.
    ///
    /// # Errors
    /// When all rows are in use.
    pub fn register(
        &mut self,
        generation: Generation,
        threads: u32,
    ) -> Result<SlotIndex, SegmentError> {
        let segment = &self.shared.segment;
        let slots = segment.geometry.slots;
        let slot = (0..slots)
            .find(|slot| segment.row(*slot, row::LIFE).load(Acquire) == life::FREE)
            .ok_or_else(|| SegmentError::TableFull(u32::try_from(slots).unwrap_or(u32::MAX)))?;
        let wanted = threads as usize + 1;
        let (first, count) = match self.free_slabs(wanted) {
            Some(first) => (first, wanted),
            None => (0, 0),
        };
        if count == 0 {
            segment.overflowed();
        }
        let seq = segment.word(header::LAST_SEQ).fetch_add(1, AcqRel) + 1;
        let set = |field: usize, value: u64| segment.row(slot, field).store(value, Relaxed);
        (1..super::layout::ROW_WORDS).for_each(|field| set(field, 0));
        set(row::SEQ, seq);
        set(row::GENERATION, u64::from(generation.0));
        set(row::STATE, State::Starting as u64);
        set(row::FIRST_SLAB, first as u64);
        set(row::SLABS, count as u64);
        set(row::REGISTERED, mono_ms());
        let next = u64::from(generation.0).saturating_add(1);
        segment.word(header::NEXT_GENERATION).fetch_max(next, AcqRel);
        segment.row(slot, row::LIFE).store(life::LIVE, Release);
        segment.table_changed();
        Ok(SlotIndex(u32::try_from(slot).unwrap_or(u32::MAX)))
    }

    /// First of `wanted` slabs in a row that no generation has, with memory for their headers.
    fn free_slabs(&self, wanted: usize) -> Option<usize> {
        let segment = &self.shared.segment;
        let taken: Vec<_> = (0..segment.geometry.slots)
            .filter(|slot| segment.row(*slot, row::LIFE).load(Acquire) != life::FREE)
            .map(|slot| slabs_of(segment, slot))
            .collect();
        let mut first = FIRST_THREAD_SLAB;
        while let Some(end) = first.checked_add(wanted).filter(|end| *end <= segment.geometry.slabs)
        {
            let clash = taken.iter().find(|range| range.start < end && first < range.end);
            let Some(range) = clash else {
                let reserved = (first..end).all(|slab| segment.slab(slab).reserve_header().is_ok());
                return reserved.then_some(first);
            };
            first = range.end;
        }
        None
    }

    /// Says which process the generation is.
    pub fn set_pid(&self, slot: SlotIndex, pid: u32) {
        self.set(slot, row::PID_START, process::start_time(pid).unwrap_or(0));
        self.set(slot, row::PID, u64::from(pid));
    }

    /// Says where the generation is in its life.
    pub fn set_state(&self, slot: SlotIndex, state: State) {
        self.set(slot, row::STATE, state as u64);
    }

    /// Says when the generation will be stopped, in ms of [`super::mono_ms`]; 0 = not decided.
    pub fn set_drain_deadline(&self, slot: SlotIndex, mono_ms: u64) {
        self.set(slot, row::DRAIN_DEADLINE, mono_ms);
    }

    /// Says which configuration the generation runs.
    pub fn set_config_hash(&self, slot: SlotIndex, hash: u64) {
        self.set(slot, row::CONFIG_HASH, hash);
    }

    /// Says what went wrong last in the generation; cut after 256 bytes.
    pub fn set_error(&self, slot: SlotIndex, text: &str) {
        let mut end = text.len().min(row::ERROR_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.as_bytes().get(..end).unwrap_or_default();
        for (index, chunk) in text.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.set(slot, row::ERROR_TEXT + index, u64::from_le_bytes(bytes));
        }
        let crc = u64::from(crc32fast::hash(text));
        self.set(slot, row::ERROR, (end as u64) << 32 | crc);
    }

    /// The last heartbeat of the worker, in ms of [`super::mono_ms`]; 0 = none yet.
    pub fn heartbeat_of(&self, slot: SlotIndex) -> u64 {
        self.index(slot)
            .map_or(0, |slot| self.shared.segment.row(slot, row::HEARTBEAT).load(Relaxed))
    }

    fn set(&self, slot: SlotIndex, field: usize, value: u64) {
        if let Some(slot) = self.index(slot) {
            self.shared.segment.row(slot, field).store(value, Relaxed);
        }
    }

    /// The slot as an index, if it is in use.
    fn index(&self, slot: SlotIndex) -> Option<usize> {
        in_use(&self.shared.segment, slot)
    }

    /// Whether connections that a dead generation had offered may still be taken by another one. A
    /// moment later they are, or they are lost; [`Self::retire`] then tells them apart.
    pub fn has_offers(&self, slot: SlotIndex) -> bool {
        Connections { segment: &self.shared.segment }.has_offers(slot)
    }

    /// Folds the counters and histograms of a dead generation into the base, drops its gauges,
    /// counts the connections it still had as crashed and frees the row. Call it only after the
    /// process was reaped.
    ///
    /// # Errors
    /// When the slot is not in use, or when there is no memory for the base; then it may be called
    /// again later.
    pub fn retire(&mut self, slot: SlotIndex) -> Result<(), SegmentError> {
        self.retire_holding(slot, &[])
    }

    /// The same, where copies of the descriptors of the connections `held` are still open. Those of
    /// them whose state was in the kernel are [`EscrowState::Orphan`] afterwards and count as
    /// migrated, not as crashed.
    ///
    /// # Errors
    /// As [`Self::retire`].
    pub fn retire_holding(
        &mut self,
        slot: SlotIndex,
        held: &[EscrowId],
    ) -> Result<(), SegmentError> {
        let index = self.index(slot).ok_or(SegmentError::NoSuchSlot(slot.0))?;
        let segment = &self.shared.segment;
        let pid = segment.row(index, row::PID).load(Relaxed);
        let mut directory = self.shared.directory();
        directory.bury(segment, u32::try_from(pid).unwrap_or(0));
        segment.row(index, row::LIFE).store(life::RETIRING, Release);
        let escrow = EscrowTable { segment };
        fold(segment, index, &directory.entries, escrow.rescued(slot, held))?;
        escrow.bury(slot, held);
        // Whoever sees a cleared cell below also sees the new epoch; pairs with the reader.
        fence(Release);
        slabs_of(segment, index).for_each(|slab| segment.slab(slab).clear());
        segment.row(index, row::LIFE).store(life::FREE, Release);
        segment.table_changed();
        Ok(())
    }

    /// State and owner of a connection in escrow; `None` when the name is out of use.
    pub fn escrow_state(&self, id: EscrowId) -> Option<(EscrowState, SlotIndex)> {
        self.escrow().get(id)
    }

    /// Whether a row of the generation table is in use.
    pub fn is_in_use(&self, slot: SlotIndex) -> bool {
        self.index(slot).is_some()
    }

    /// Gives an orphan to another generation, which is to count it.
    pub fn escrow_give(&self, id: EscrowId, to: SlotIndex) -> bool {
        self.escrow().change(id, NOBODY, &[EscrowState::Orphan], (EscrowState::Given, to))
    }

    /// The copies of a connection's descriptors are closed.
    pub fn escrow_free(&self, id: EscrowId) {
        self.escrow().free(id);
    }

    /// Connections there is room for in escrow.
    pub fn escrow_room(&self) -> u32 {
        u32::try_from(self.shared.segment.geometry.escrow).unwrap_or(u32::MAX)
    }

    fn escrow(&self) -> EscrowTable<'_> {
        EscrowTable { segment: &self.shared.segment }
    }

    /// Times a metric found no room in the segment.
    pub fn overflow(&self) -> u64 {
        self.shared.segment.word(header::OVERFLOW).load(Relaxed)
    }

    /// A counter of the supervisor's own.
    pub fn counter(&mut self, name: &MetricName) -> Cell {
        self.slab.cell(Kind::Counter, name)
    }

    /// A gauge of the supervisor's own.
    pub fn gauge(&mut self, name: &MetricName) -> Cell {
        self.slab.cell(Kind::Gauge, name)
    }
}

impl Drop for SegmentOwner {
    fn drop(&mut self) {
        if !self.keeps_name {
            // The name may be gone already.
            map::unlink(&self.os_id).ok();
        }
    }
}

/// A slot as an index into the table, if it is in use.
pub(super) fn in_use(segment: &Segment, slot: SlotIndex) -> Option<usize> {
    let slot = usize::try_from(slot.0).ok().filter(|slot| *slot < segment.geometry.slots)?;
    (segment.row(slot, row::LIFE).load(Acquire) != life::FREE).then_some(slot)
}

/// The slabs of the threads of a generation, kept inside the segment whatever the row says.
pub(super) fn slabs_of(segment: &Segment, slot: usize) -> std::ops::Range<usize> {
    let read = |field: usize| usize::try_from(segment.row(slot, field).load(Relaxed)).unwrap_or(0);
    let limit = segment.geometry.slabs;
    let (first, count) = (read(row::FIRST_SLAB).min(limit), read(row::SLABS));
    if first < FIRST_THREAD_SLAB {
        return 0..0;
    }
    first..first.saturating_add(count).min(limit)
}

/// Adds a generation to the base, unless that was done before.
fn fold(
    segment: &Segment,
    slot: usize,
    entries: &[Entry],
    rescued: u64,
) -> Result<(), SegmentError> {
    let epoch = segment.word(header::EPOCH).load(Acquire);
    let (active, inactive) = if epoch & 1 == 0 { (0, 1) } else { (1, 0) };
    let (active, inactive) = (segment.slab(active), segment.slab(inactive));
    let seq = segment.row(slot, row::SEQ).load(Relaxed);
    if active.folded().load(Relaxed) == seq {
        return Ok(());
    }
    let slabs = slabs_of(segment, slot);
    let of_generation = |cell: usize| {
        slabs.clone().fold(0_u64, |sum, slab| sum.wrapping_add(segment.slab(slab).get(cell)))
    };
    let put = |cell: usize, value: u64| -> Result<(), SegmentError> {
        if value != 0 || inactive.get(cell) != 0 {
            for cell in inactive.populate(cell, 1)? {
                cell.store(value, Relaxed);
            }
        }
        Ok(())
    };
    for entry in entries {
        if matches!(entry.kind, Kind::Counter | Kind::Histogram) {
            for cell in entry.cell..entry.cell + cells_of(entry.kind) {
                put(cell, active.get(cell).wrapping_add(of_generation(cell)))?;
            }
        }
    }
    let ended = (ledger::ENDED..ledger::OPEN)
        .fold(0, |sum: u64, cell| sum.wrapping_add(of_generation(cell)));
    // What it gave away lives on; what it was given and had not counted yet is lost with it.
    let moving = Connections { segment }.settle_dead(SlotIndex(u32::try_from(slot).unwrap_or(0)));
    let open = of_generation(ledger::OPENED).saturating_sub(ended);
    let lost = open.saturating_sub(moving.migrated).wrapping_add(moving.received);
    // Of what is lost, this lives on.
    let rescued = rescued.min(lost);
    let lost = lost.saturating_sub(rescued);
    let migrated_more = moving.migrated.wrapping_add(rescued);
    let [crash, migrated] =
        [EndReason::Crash, EndReason::Migrated].map(|reason| ledger::ENDED + reason as usize);
    for (cell, more) in
        [(crash, lost), (migrated, migrated_more), (ledger::OPENED, moving.received)]
    {
        put(cell, active.get(cell).wrapping_add(of_generation(cell)).wrapping_add(more))?;
    }
    inactive.folded().store(seq, Relaxed);
    segment.word(header::EPOCH).store(epoch + 1, Release);
    Ok(())
}

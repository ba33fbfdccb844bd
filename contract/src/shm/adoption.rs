//! A segment outlives its supervisor. The next one takes it over: counters go on in the same cells,
//! and the generation table says which workers are still there.
//!
//! ```text
//! epoch 1: first supervisor ──SIGKILL──→ epoch 2: the next one, by compare-and-swap of the epoch
//! ```
//! Whoever raised the epoch last commands. Workers look at it before they obey, and a supervisor
//! that finds a later epoch than its own ends without touching anything.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::{
    SegmentError, SegmentOwner, SegmentWorker, SlotIndex,
    layout::{Segment, header, life, row},
    process, sweep,
};
use crate::generation::{Generation, State};

/// The supervisor a segment belongs to now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Commander {
    /// Which supervisor of this segment it is, counted from 1.
    pub epoch: u64,
    /// Its process.
    pub pid: u32,
    /// That process lives.
    pub lives: bool,
}

/// A generation in the table of a segment that was taken over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// Its place.
    pub slot: SlotIndex,
    /// Its number.
    pub generation: Generation,
    /// Its process.
    pub pid: u32,
    /// When the process started, in clock ticks since boot; 0 = not known.
    pub start: u64,
    /// The last state its supervisor wrote down.
    pub state: Option<State>,
    /// When it was registered, ms of [`super::mono_ms`].
    pub registered_mono_ms: u64,
    /// The process lives.
    pub lives: bool,
}

impl SegmentOwner {
    /// Names of the segments with this base id and home whose supervisor is gone and which can be
    /// used, the ones with living workers first.
    pub fn adoptable(base_id: u32, home: u64) -> Vec<String> {
        sweep::adoptable(base_id, home)
    }

    /// Names of the segments with this base id and home that this very process commanded before it
    /// executed another program.
    pub fn left_by_this_process(base_id: u32, home: u64) -> Vec<String> {
        sweep::left_by_this_process(base_id, home)
    }

    /// Takes over the segment of a supervisor that is gone: raises the epoch, so that nobody obeys
    /// that one any more. Its workers may go on writing their slabs.
    ///
    /// # Errors
    /// When it cannot be opened or cannot be trusted.
    pub fn adopt(os_id: &str) -> Result<Self, SegmentError> {
        let mut owner = Self::open(os_id)?;
        let segment = &owner.shared.segment;
        let pid = std::process::id();
        let epoch = segment.word(header::COMMAND_EPOCH).fetch_add(1, AcqRel).saturating_add(1);
        let start = process::start_time(pid).unwrap_or(0);
        segment.word(header::COMMANDER_START).store(start, Relaxed);
        segment.word(header::COMMANDER_PID).store(u64::from(pid), Release);
        // The one before may have died between a change of the table and saying so.
        segment.table_changed();
        owner.epoch = epoch;
        Ok(owner)
    }

    /// Opens the segment this process commanded before it executed another program.
    ///
    /// # Errors
    /// When it cannot be opened, cannot be trusted or has another commander.
    pub fn reopen(os_id: &str, epoch: u64) -> Result<Self, SegmentError> {
        // First of all, because another one is made if this one cannot be used.
        super::map::keep_over_exec(os_id, false).map_err(SegmentError::Reserve)?;
        let mut owner = Self::open(os_id)?;
        owner.epoch = epoch;
        // There is no name to be removed.
        owner.keeps_name = super::map::memory_file_of(os_id).is_some();
        if !owner.commands() {
            owner.keeps_name = true;
            return Err(SegmentError::Alien("another supervisor commands"));
        }
        Ok(owner)
    }

    /// Whether the segment, if it is in a memory file, stays when this process executes another program.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn keep_over_exec(&self, keep: bool) -> Result<(), SegmentError> {
        super::map::keep_over_exec(&self.os_id, keep).map_err(SegmentError::Reserve)
    }

    fn open(os_id: &str) -> Result<Self, SegmentError> {
        Ok(Self::new(os_id.to_owned(), Segment::open(os_id)?))
    }

    /// Whether a segment can be opened.
    ///
    /// # Errors
    /// Why not.
    pub fn probe(os_id: &str) -> Result<(), SegmentError> {
        Segment::open(os_id).map(drop)
    }

    /// Number of this supervisor among those of the segment.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// No other supervisor took the segment over.
    pub fn commands(&self) -> bool {
        self.shared.segment.word(header::COMMAND_EPOCH).load(Acquire) == self.epoch
    }

    /// Lets the name stay when this is dropped: the segment belongs to another supervisor now.
    pub fn leave(mut self) {
        self.keeps_name = true;
    }

    /// Removes the name of a segment nobody can be found by any more. Who uses it keeps it.
    pub fn unlink(os_id: &str) {
        // It may be gone already.
        super::map::unlink(os_id).ok();
    }

    /// The generations in the table.
    pub fn rows(&self) -> Vec<Row> {
        let segment = &self.shared.segment;
        let live = (0..segment.geometry.slots)
            .filter(|slot| segment.row(*slot, row::LIFE).load(Acquire) != life::FREE);
        live.map(|slot| {
            let read = |field: usize| segment.row(slot, field).load(Relaxed);
            let small = |field: usize| u32::try_from(read(field)).unwrap_or(0);
            let (pid, start) = (small(row::PID), read(row::PID_START));
            Row {
                slot: SlotIndex(u32::try_from(slot).unwrap_or(u32::MAX)),
                generation: Generation(small(row::GENERATION)),
                pid,
                start,
                state: State::from_number(read(row::STATE)),
                registered_mono_ms: read(row::REGISTERED),
                lives: pid != 0 && process::lives(pid, start),
            }
        })
        .collect()
    }

    /// Number of the next generation.
    pub fn next_generation(&self) -> u32 {
        let next = self.shared.segment.word(header::NEXT_GENERATION).load(Acquire);
        u32::try_from(next).unwrap_or(u32::MAX)
    }

    /// When the first supervisor started: ms of [`super::mono_ms`], and seconds since 1970. Zeros
    /// until [`Self::set_origin`].
    pub fn started(&self) -> (u64, u64) {
        let word = |index: usize| self.shared.segment.word(index).load(Relaxed);
        (word(header::STARTED_MONO_MS), word(header::STARTED_UNIX_S))
    }

    /// Remembers where its supervisor is found, and when the first one started.
    pub fn set_origin(&self, home: u64, (mono_ms, unix_s): (u64, u64)) {
        self.shared.segment.word(header::HOME).store(home, Relaxed);
        self.shared.segment.word(header::STARTED_MONO_MS).store(mono_ms, Relaxed);
        self.shared.segment.word(header::STARTED_UNIX_S).store(unix_s, Relaxed);
    }
}

impl SegmentWorker {
    /// The supervisor that commands now.
    pub fn commander(&self) -> Commander {
        let word = |index: usize| self.shared.segment.word(index).load(Acquire);
        let pid = u32::try_from(word(header::COMMANDER_PID)).unwrap_or(0);
        let lives = process::lives(pid, word(header::COMMANDER_START));
        Commander { epoch: word(header::COMMAND_EPOCH), pid, lives }
    }

    /// Which supervisor commands, as [`Commander::epoch`] says it.
    pub fn command_epoch(&self) -> u64 {
        self.shared.segment.word(header::COMMAND_EPOCH).load(Acquire)
    }
}

/// When a process started, in clock ticks since boot; `None` when it does not live.
pub fn start_of(pid: u32) -> Option<u64> {
    process::start_time(pid)
}

//! The metric directory: which cell of every slab belongs to which name.
//!
//! It is only appended to. An entry goes EMPTY → CLAIMED(pid) by one compare-and-swap → READY; one
//! whose process died in between becomes a TOMBSTONE. Nobody waits for a claimed entry: when two
//! processes name the same metric at the same moment it gets two entries, and readers add them up.

use std::{
    collections::HashMap,
    sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::{
    SegmentError,
    layout::{ENTRY_CHUNK, ENTRY_WORDS, Segment, cells_of, header},
    name::{Kind, MetricName},
    table::Table,
};

/// Words of an entry.
mod field {
    /// State in the lower half, process id of the claimer in the upper half.
    pub(super) const STATE: usize = 0;
    /// Kind in the upper half, bytes of text in the lower half.
    pub(super) const SHAPE: usize = 1;
    /// First cell.
    pub(super) const CELL: usize = 2;
    /// CRC of the two words above and the text.
    pub(super) const CRC: usize = 3;
    /// Name, family, keys and values, with a NUL between them.
    pub(super) const TEXT: usize = 4;
}

const EMPTY: u64 = 0;
const CLAIMED: u64 = 1;
const READY: u64 = 2;
const TOMBSTONE: u64 = 3;
/// Longest text of an entry, bytes.
const TEXT_BYTES: usize = (ENTRY_WORDS - field::TEXT) * 8;

/// What the cells of an entry are. A program that does not know the number leaves the entry alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum What {
    /// Those of a metric.
    Metric(Kind),
    /// A table of the primitives that all generations share.
    Table(Table),
}

impl What {
    fn from_number(number: u64) -> Option<Self> {
        Kind::from_number(number)
            .map(Self::Metric)
            .or_else(|| Table::from_number(number).map(Self::Table))
    }

    const fn number(self) -> u64 {
        match self {
            Self::Metric(kind) => kind as u64,
            Self::Table(table) => table as u64,
        }
    }

    const fn cells(self) -> usize {
        match self {
            Self::Metric(kind) => cells_of(kind),
            Self::Table(table) => table.cells(),
        }
    }
}

/// What one process knows of the directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Every metric that is ready.
    pub(super) entries: Vec<Entry>,
    index: HashMap<(What, MetricName), usize>,
    /// Entries before this one were looked at.
    scanned: usize,
    /// Entries that were claimed when they were looked at.
    pending: Vec<usize>,
}

/// A metric of the directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) name: MetricName,
    /// First cell; all of its cells are inside every slab.
    pub(super) cell: usize,
}

impl Directory {
    /// Learns what was added since the last time.
    pub(super) fn scan(&mut self, segment: &Segment) {
        let pending = std::mem::take(&mut self.pending);
        for entry in pending {
            self.look(segment, entry);
        }
        let reserved = segment.word(header::RESERVED_ENTRIES).load(Acquire);
        let end = usize::try_from(reserved).unwrap_or(0).min(segment.geometry.entries);
        while self.scanned < end && self.look(segment, self.scanned) {
            self.scanned += 1;
        }
    }

    /// Looks at one entry; false when it is empty.
    fn look(&mut self, segment: &Segment, entry: usize) -> bool {
        let state = segment.entry(entry, field::STATE).load(Acquire);
        if state == EMPTY {
            return false;
        }
        match state & 0xffff_ffff {
            CLAIMED => self.pending.push(entry),
            READY => {
                if let Some((what, name, cell)) = read(segment, entry) {
                    self.index.entry((what, name.clone())).or_insert(cell);
                    match what {
                        What::Metric(kind) => self.entries.push(Entry { kind, name, cell }),
                        What::Table(_) => {}
                    }
                }
            }
            // A tombstone, or something that no version of this program wrote.
            _ => {}
        }
        true
    }

    /// First cell of a metric, if there is one.
    pub(super) fn metric(&self, kind: Kind, name: &MetricName) -> Option<usize> {
        self.index.get(&(What::Metric(kind), name.clone())).copied()
    }

    /// First cell of a table, if the creator of the segment made it.
    pub(super) fn table(&self, table: Table) -> Option<usize> {
        self.index.get(&(What::Table(table), table.name())).copied()
    }

    /// First cell of a metric or a table, which is added when it is not there.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(super) fn define(
        &mut self,
        segment: &Segment,
        what: What,
        name: &MetricName,
    ) -> Result<usize, SegmentError> {
        let key = (what, name.clone());
        if let Some(cell) = self.index.get(&key) {
            return Ok(*cell);
        }
        self.scan(segment);
        if let Some(cell) = self.index.get(&key) {
            return Ok(*cell);
        }
        let text = name.encode();
        if text.len() > TEXT_BYTES {
            return Err(SegmentError::Alien("a metric's name is too long"));
        }
        let cell = take_cells(segment, what.cells())?;
        // Each turn either takes an entry or sees that another process took one.
        for _ in 0..segment.geometry.entries {
            let entry = self.scanned;
            reserve(segment, entry)?;
            let state = segment.entry(entry, field::STATE);
            let claim = CLAIMED | u64::from(std::process::id()) << 32;
            if state.compare_exchange(EMPTY, claim, AcqRel, Acquire).is_ok() {
                write(segment, entry, (what, cell), &text);
                state.store(READY, Release);
                self.scan(segment);
                return Ok(cell);
            }
            // Somebody else was faster; it may even be the same metric.
            self.scan(segment);
            if let Some(cell) = self.index.get(&key) {
                return Ok(*cell);
            }
        }
        Err(SegmentError::Full)
    }

    /// Marks what a dead process claimed and did not finish.
    pub(super) fn bury(&mut self, segment: &Segment, pid: u32) {
        self.scan(segment);
        let claim = CLAIMED | u64::from(pid) << 32;
        for entry in &self.pending {
            // It fails for entries of other processes, which is what is wanted.
            let state = segment.entry(*entry, field::STATE);
            if state.compare_exchange(claim, TOMBSTONE, AcqRel, Acquire).is_err() {}
        }
        self.scan(segment);
    }
}

/// Takes cells of every slab.
fn take_cells(segment: &Segment, count: usize) -> Result<usize, SegmentError> {
    let next = segment.word(header::NEXT_CELL);
    let limit = segment.geometry.cells as u64;
    let taken = next.fetch_update(AcqRel, Acquire, |first| {
        first.checked_add(count as u64).filter(|end| *end <= limit)
    });
    let taken = taken.map_err(|_| SegmentError::Full)?;
    usize::try_from(taken).map_err(|_| SegmentError::Full)
}

/// Puts memory behind an entry and the ones after it.
fn reserve(segment: &Segment, entry: usize) -> Result<(), SegmentError> {
    if entry >= segment.geometry.entries {
        return Err(SegmentError::Full);
    }
    let reserved = segment.word(header::RESERVED_ENTRIES);
    if (entry as u64) < reserved.load(Acquire) {
        return Ok(());
    }
    let first = entry / ENTRY_CHUNK * ENTRY_CHUNK;
    let end = (first + ENTRY_CHUNK).min(segment.geometry.entries);
    let start = segment.geometry.directory() + first * ENTRY_WORDS;
    segment.map.reserve(start, (end - first) * ENTRY_WORDS)?;
    reserved.fetch_max(end as u64, AcqRel);
    Ok(())
}

fn write(segment: &Segment, entry: usize, (what, cell): (What, usize), text: &[u8]) {
    let shape = what.number() << 32 | text.len() as u64;
    segment.entry(entry, field::SHAPE).store(shape, Relaxed);
    segment.entry(entry, field::CELL).store(cell as u64, Relaxed);
    write_text(segment, entry, text);
    let crc = crc(shape, cell as u64, text);
    segment.entry(entry, field::CRC).store(crc, Relaxed);
}

fn write_text(segment: &Segment, entry: usize, text: &[u8]) {
    for (index, chunk) in text.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(chunk) {
            *to = *from;
        }
        segment.entry(entry, field::TEXT + index).store(u64::from_le_bytes(bytes), Relaxed);
    }
}

/// An entry, unless anything about it is wrong.
fn read(segment: &Segment, entry: usize) -> Option<(What, MetricName, usize)> {
    let shape = segment.entry(entry, field::SHAPE).load(Relaxed);
    let cell = segment.entry(entry, field::CELL).load(Relaxed);
    let what = What::from_number(shape >> 32)?;
    let length = usize::try_from(shape & 0xffff_ffff).ok().filter(|n| *n <= TEXT_BYTES)?;
    let mut text = Vec::with_capacity(length.next_multiple_of(8));
    for index in 0..length.div_ceil(8) {
        let word = segment.entry(entry, field::TEXT + index).load(Relaxed);
        text.extend_from_slice(&word.to_le_bytes());
    }
    text.truncate(length);
    if segment.entry(entry, field::CRC).load(Relaxed) != crc(shape, cell, &text) {
        return None;
    }
    let cell = usize::try_from(cell).ok()?;
    if cell.checked_add(what.cells())? > segment.geometry.cells {
        return None;
    }
    Some((what, MetricName::decode(&text)?, cell))
}

fn crc(shape: u64, cell: u64, text: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&shape.to_le_bytes());
    hasher.update(&cell.to_le_bytes());
    hasher.update(text);
    u64::from(hasher.finalize())
}

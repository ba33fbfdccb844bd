//! Where everything is in the segment. `docs/STATS.md` shows the same as tables.
//!
//! ```text
//! header page | generation table | connections on their way | escrow | directory
//!             | slab 0 (base A)  | slab 1 (base B) | slab 2 (reset) | slab 3 (supervisor)
//!             | slabs of threads …
//! ```
//! All numbers are little-endian 64-bit words at multiples of eight bytes.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    SegmentError, histogram,
    map::{Mapping, PAGE_WORDS},
    name::Kind,
};
use crate::version::shm_layout;

/// First word of every segment.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"BATONSHM");
/// Layouts of another major version cannot be read.
pub(super) const MAJOR: u32 = 2;
/// A higher minor version only adds what older readers need not know.
pub(super) const MINOR: u32 = 0;

/// Words of a row of the generation table.
pub(super) const ROW_WORDS: usize = 64;
/// Words of a directory entry.
pub(super) const ENTRY_WORDS: usize = 128;
/// Directory entries that get memory at once.
pub(super) const ENTRY_CHUNK: usize = 64;
/// Words of a slab before its first cell.
pub(super) const SLAB_HEADER_WORDS: usize = PAGE_WORDS;
/// Word of a slab's header where the bits of its populated pages begin.
pub(super) const SLAB_BITS: usize = 16;

/// Words of the header.
pub(super) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 1;
    pub(crate) const LENGTH: usize = 2;
    // 3: random number of the segment, 4: boot of the machine.
    // 5: process of the first supervisor.
    // 6: when that process started.
    pub(crate) const BASE_ID: usize = 7;
    pub(crate) const TABLE_OFFSET: usize = 8;
    pub(crate) const SLOTS: usize = 9;
    pub(crate) const DIRECTORY_OFFSET: usize = 10;
    pub(crate) const ENTRIES: usize = 11;
    pub(crate) const SLABS_OFFSET: usize = 12;
    pub(crate) const SLABS: usize = 13;
    pub(crate) const CELLS: usize = 14;
    pub(crate) const CONNECTIONS_OFFSET: usize = 15;
    pub(crate) const CONNECTIONS: usize = 16;
    pub(crate) const ESCROW_OFFSET: usize = 17;
    pub(crate) const ESCROW: usize = 18;
    pub(crate) const CRC: usize = 19;
    /// Counts folds; the base is slab `epoch & 1`.
    pub(crate) const EPOCH: usize = 64;
    /// First cell that no metric has.
    pub(crate) const NEXT_CELL: usize = 72;
    /// Directory entries that have memory.
    pub(crate) const RESERVED_ENTRIES: usize = 80;
    /// Times a metric found no room.
    pub(crate) const OVERFLOW: usize = 88;
    /// Number of the last registration.
    pub(crate) const LAST_SEQ: usize = 96;
    /// Rises after a row of the generation table was taken or freed.
    pub(crate) const TABLE_CHANGES: usize = 104;
    /// Counts supervisors: the one that raised it last commands.
    pub(crate) const COMMAND_EPOCH: usize = 112;
    /// The supervisor that commands: its process and when that started.
    pub(crate) const COMMANDER_PID: usize = 113;
    pub(crate) const COMMANDER_START: usize = 114;
    /// Number of the next generation.
    pub(crate) const NEXT_GENERATION: usize = 115;
    /// Start of the first supervisor, ms of `CLOCK_MONOTONIC` and seconds since 1970.
    pub(crate) const STARTED_MONO_MS: usize = 116;
    pub(crate) const STARTED_UNIX_S: usize = 117;
    /// Where the supervisor is found, as a hash: only the next one of that place may take over.
    pub(crate) const HOME: usize = 118;
}

/// Words of a row of the generation table.
pub(super) mod row {
    /// One of [`super::life`]. Written last when a row is taken.
    pub(crate) const LIFE: usize = 0;
    /// Number of the registration, never used twice.
    pub(crate) const SEQ: usize = 1;
    pub(crate) const GENERATION: usize = 2;
    pub(crate) const PID: usize = 3;
    pub(crate) const PID_START: usize = 4;
    pub(crate) const STATE: usize = 5;
    pub(crate) const CONFIG_HASH: usize = 6;
    pub(crate) const DRAIN_DEADLINE: usize = 7;
    pub(crate) const FIRST_SLAB: usize = 8;
    pub(crate) const SLABS: usize = 9;
    pub(crate) const REGISTERED: usize = 10;
    /// The worker's, on a cache line of its own.
    pub(crate) const HEARTBEAT: usize = 16;
    /// Length in the upper half, CRC in the lower half.
    pub(crate) const ERROR: usize = 24;
    pub(crate) const ERROR_TEXT: usize = 25;
    /// Longest text of an error, bytes.
    pub(crate) const ERROR_BYTES: usize = 256;
}

/// Values of [`row::LIFE`].
pub(super) mod life {
    pub(crate) const FREE: u64 = 0;
    pub(crate) const LIVE: u64 = 1;
    pub(crate) const RETIRING: u64 = 2;
}

/// Slabs that collect retired generations, for even and for odd epochs.
pub(super) const SLABS_BASE: [usize; 2] = [0, 1];
/// Slab of what `/reset_counters` takes away.
pub(super) const SLAB_RESET: usize = 2;
/// What is not of one thread: names of sums, token buckets. The same slab; cells never clash,
/// because no two entries of the directory have the same ones.
pub(super) const SLAB_SHARED: usize = SLAB_RESET;
/// The supervisor's slab.
pub(super) const SLAB_OWNER: usize = 3;
/// First slab of threads.
pub(super) const FIRST_THREAD_SLAB: usize = 4;

/// How much a segment holds. Nothing of it takes memory before it is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    /// Rows of the generation table.
    pub slots: usize,
    /// Connections that may be on their way between generations at once.
    pub connections: usize,
    /// Connections that may be in escrow at once. The supervisor has six descriptors of each.
    pub escrow: usize,
    /// Metrics of all kinds.
    pub entries: usize,
    /// Slabs, four of them for the segment itself, the others one for each thread of a live
    /// generation.
    pub slabs: usize,
    /// Cells of a slab; a counter or gauge takes one, a histogram 552. A multiple of 512.
    pub cells: usize,
}

impl Default for Geometry {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from) + 1;
        Self {
            slots: 64,
            connections: 8 * 1024,
            escrow: 16 * 1024,
            // Statistics of 1,200 clusters that are in use: each has 52 names and 1,700 cells.
            entries: 64 * 1024,
            slabs: FIRST_THREAD_SLAB + (threads * 12).max(124),
            cells: 2 * 1024 * 1024,
        }
    }
}

impl Geometry {
    /// Word where the generation table begins.
    pub(super) const fn table() -> usize {
        PAGE_WORDS
    }

    /// Word where the connections on their way begin.
    pub(super) const fn first_connection(&self) -> usize {
        (Self::table() + self.slots * ROW_WORDS).next_multiple_of(PAGE_WORDS)
    }

    /// Word where the connections in escrow begin.
    pub(super) const fn first_escrow(&self) -> usize {
        (self.first_connection() + self.connections).next_multiple_of(PAGE_WORDS)
    }

    /// Word where the directory begins.
    pub(super) const fn directory(&self) -> usize {
        (self.first_escrow() + self.escrow).next_multiple_of(PAGE_WORDS)
    }

    /// Word where slab 0 begins.
    pub(super) const fn slab_zero(&self) -> usize {
        (self.directory() + self.entries * ENTRY_WORDS).next_multiple_of(PAGE_WORDS)
    }

    /// Words of a slab.
    pub(super) const fn slab_words(&self) -> usize {
        SLAB_HEADER_WORDS + self.cells
    }

    /// Words of the segment.
    pub(super) const fn words(&self) -> usize {
        self.slab_zero() + self.slabs * self.slab_words()
    }

    /// The bounds within which no computation on a geometry overflows and every slab's bits fit.
    pub(super) const fn is_sane(&self) -> bool {
        0 < self.slots
            && self.slots <= 4096
            && 0 < self.connections
            && self.connections <= 1 << 20
            && 0 < self.escrow
            && self.escrow <= 1 << 20
            && ENTRY_CHUNK <= self.entries
            && self.entries <= 1 << 20
            && FIRST_THREAD_SLAB < self.slabs
            && self.slabs <= 1 << 16
            && 0 < self.cells
            && self.cells <= 8 << 20
            && self.cells.is_multiple_of(PAGE_WORDS)
    }
}

/// A segment that was checked.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) map: Mapping,
    pub(super) geometry: Geometry,
}

/// What the creator of a segment writes once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) instance: u64,
    pub(super) boot: u64,
    pub(super) owner_pid: u32,
    pub(super) owner_start: u64,
    pub(super) base_id: u32,
}

impl Segment {
    /// Creates a segment with its header and memory for what every segment needs.
    pub(super) fn create(
        os_id: &str,
        geometry: Geometry,
        identity: Identity,
    ) -> Result<Self, SegmentError> {
        if !geometry.is_sane() {
            return Err(SegmentError::Alien("its size makes no sense"));
        }
        Self::made(Mapping::create(os_id, geometry.words() * 8)?, geometry, identity)
    }

    /// Creates a segment in a memory file, and its name.
    pub(super) fn in_memory_file(
        geometry: Geometry,
        identity: Identity,
    ) -> Result<(String, Self), SegmentError> {
        let (os_id, map) = Mapping::memory_file(geometry.words() * 8)?;
        Ok((os_id, Self::made(map, geometry, identity)?))
    }

    /// A segment that no other process sees.
    pub(super) fn private(geometry: Geometry, identity: Identity) -> Result<Self, SegmentError> {
        Self::made(Mapping::private(geometry.words() * 8)?, geometry, identity)
    }

    fn made(map: Mapping, geometry: Geometry, identity: Identity) -> Result<Self, SegmentError> {
        let segment = Self { map, geometry };
        segment.map.reserve(0, geometry.directory())?;
        for slab in 0..FIRST_THREAD_SLAB {
            segment.slab(slab).reserve_header()?;
        }
        for (index, value) in segment.header_words(identity).into_iter().enumerate() {
            segment.word(index).store(value, Ordering::Relaxed);
        }
        let crc = segment.header_crc();
        segment.word(header::CRC).store(crc, Ordering::Release);
        segment.word(header::COMMANDER_PID).store(u64::from(identity.owner_pid), Ordering::Relaxed);
        segment.word(header::COMMANDER_START).store(identity.owner_start, Ordering::Relaxed);
        segment.word(header::COMMAND_EPOCH).store(1, Ordering::Release);
        Ok(segment)
    }

    fn header_words(&self, identity: Identity) -> [u64; header::CRC] {
        let geometry = &self.geometry;
        [
            MAGIC,
            u64::from(shm_layout()) << 32 | u64::from(MINOR),
            geometry.words() as u64 * 8,
            identity.instance,
            identity.boot,
            u64::from(identity.owner_pid),
            identity.owner_start,
            u64::from(identity.base_id),
            Geometry::table() as u64 * 8,
            geometry.slots as u64,
            geometry.directory() as u64 * 8,
            geometry.entries as u64,
            geometry.slab_zero() as u64 * 8,
            geometry.slabs as u64,
            geometry.cells as u64,
            geometry.first_connection() as u64 * 8,
            geometry.connections as u64,
            geometry.first_escrow() as u64 * 8,
            geometry.escrow as u64,
        ]
    }

    /// Opens a segment and refuses everything that is not a whole one of a known layout.
    pub(super) fn open(os_id: &str) -> Result<Self, SegmentError> {
        let map = Mapping::open(os_id)?;
        if map.words().len() < PAGE_WORDS {
            return Err(SegmentError::Alien("it is shorter than its header"));
        }
        let geometry =
            Geometry { slots: 0, connections: 0, escrow: 0, entries: 0, slabs: 0, cells: 0 };
        let mut segment = Self { map, geometry };
        segment.geometry = segment.check()?;
        Ok(segment)
    }

    fn check(&self) -> Result<Geometry, SegmentError> {
        let read = |index: usize| self.word(index).load(Ordering::Acquire);
        if read(header::MAGIC) != MAGIC {
            return Err(SegmentError::Alien("it does not begin with the magic number"));
        }
        let found = u32::try_from(read(header::VERSION) >> 32).unwrap_or(0);
        if found != shm_layout() {
            return Err(SegmentError::Layout { found, known: shm_layout() });
        }
        if read(header::CRC) != self.header_crc() {
            return Err(SegmentError::Alien("the checksum of its header is wrong"));
        }
        let number = |index: usize| usize::try_from(read(index)).unwrap_or(usize::MAX);
        let geometry = Geometry {
            slots: number(header::SLOTS),
            connections: number(header::CONNECTIONS),
            escrow: number(header::ESCROW),
            entries: number(header::ENTRIES),
            slabs: number(header::SLABS),
            cells: number(header::CELLS),
        };
        if !geometry.is_sane() {
            return Err(SegmentError::Alien("its size makes no sense"));
        }
        let offsets = [
            (header::LENGTH, geometry.words()),
            (header::TABLE_OFFSET, Geometry::table()),
            (header::CONNECTIONS_OFFSET, geometry.first_connection()),
            (header::ESCROW_OFFSET, geometry.first_escrow()),
            (header::DIRECTORY_OFFSET, geometry.directory()),
            (header::SLABS_OFFSET, geometry.slab_zero()),
        ];
        if offsets.iter().any(|(index, words)| number(*index) != words * 8) {
            return Err(SegmentError::Alien("its offsets do not fit together"));
        }
        if self.map.words().len() < geometry.words() {
            return Err(SegmentError::Alien("it was cut off"));
        }
        Ok(geometry)
    }

    fn header_crc(&self) -> u64 {
        let mut hasher = crc32fast::Hasher::new();
        for index in 0..header::CRC {
            hasher.update(&self.word(index).load(Ordering::Relaxed).to_le_bytes());
        }
        u64::from(hasher.finalize())
    }

    /// A word of the segment.
    pub(super) fn word(&self, index: usize) -> &'static AtomicU64 {
        self.map.word(index)
    }

    /// A word of a row of the generation table.
    pub(super) fn row(&self, slot: usize, field: usize) -> &'static AtomicU64 {
        self.word(Geometry::table() + slot * ROW_WORDS + field)
    }

    /// The word of a connection on its way.
    pub(super) fn connection(&self, index: usize) -> &'static AtomicU64 {
        self.word(self.geometry.first_connection() + index)
    }

    /// The word of a connection in escrow.
    pub(super) fn escrow(&self, index: usize) -> &'static AtomicU64 {
        self.word(self.geometry.first_escrow() + index)
    }

    /// A word of a directory entry.
    pub(super) fn entry(&self, entry: usize, field: usize) -> &'static AtomicU64 {
        self.word(self.geometry.directory() + entry * ENTRY_WORDS + field)
    }

    /// A slab.
    pub(super) fn slab(&self, index: usize) -> Slab<'_> {
        let index = index.min(self.geometry.slabs - 1);
        Slab {
            segment: self,
            start: self.geometry.slab_zero() + index * self.geometry.slab_words(),
        }
    }

    /// Says that a generation came or went; after the change of its row.
    pub(super) fn table_changed(&self) {
        self.word(header::TABLE_CHANGES).fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a metric that found no room.
    pub(super) fn overflowed(&self) {
        self.word(header::OVERFLOW).fetch_add(1, Ordering::Relaxed);
    }
}

/// Number of cells of a metric.
pub(super) const fn cells_of(kind: Kind) -> usize {
    match kind {
        Kind::Counter | Kind::Gauge | Kind::LocalGauge => 1,
        Kind::Histogram => histogram::CELLS,
    }
}

/// One slab: a header page and cells. A bit in the header says which pages of cells have memory;
/// the others are zero and must not be touched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slab<'a> {
    segment: &'a Segment,
    start: usize,
}

impl Slab<'_> {
    /// Puts memory behind the header.
    pub(super) fn reserve_header(self) -> Result<(), SegmentError> {
        self.segment.map.reserve(self.start, SLAB_HEADER_WORDS)
    }

    /// Registration that was folded into this slab last, when it is a base.
    pub(super) fn folded(self) -> &'static AtomicU64 {
        self.segment.word(self.start)
    }

    fn bits(self, page: usize) -> (&'static AtomicU64, u64) {
        (self.segment.word(self.start + SLAB_BITS + page / 64), 1 << (page % 64))
    }

    /// True when the page of cells has memory.
    pub(super) fn has_page(self, page: usize) -> bool {
        let (word, bit) = self.bits(page);
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Cells for writing, with memory behind them.
    pub(super) fn populate(
        self,
        cell: usize,
        count: usize,
    ) -> Result<&'static [AtomicU64], SegmentError> {
        let end = cell.saturating_add(count);
        if end > self.segment.geometry.cells || count == 0 {
            return Err(SegmentError::Alien("a metric lies outside its slab"));
        }
        for page in cell / PAGE_WORDS..=(end - 1) / PAGE_WORDS {
            if !self.has_page(page) {
                let first = self.start + SLAB_HEADER_WORDS + page * PAGE_WORDS;
                self.segment.map.reserve(first, PAGE_WORDS)?;
                let (word, bit) = self.bits(page);
                word.fetch_or(bit, Ordering::Release);
            }
        }
        let first = self.start + SLAB_HEADER_WORDS + cell;
        let cells = self.segment.map.words().get(first..first + count);
        cells.ok_or(SegmentError::Alien("a metric lies outside the segment"))
    }

    /// Value of a cell, 0 when it has no memory or does not exist.
    pub(super) fn get(self, cell: usize) -> u64 {
        self.peek(cell).map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// A cell for reading, if it exists and has memory.
    pub(super) fn peek(self, cell: usize) -> Option<&'static AtomicU64> {
        let there = cell < self.segment.geometry.cells && self.has_page(cell / PAGE_WORDS);
        there.then(|| self.segment.word(self.start + SLAB_HEADER_WORDS + cell))
    }

    /// Sets every cell to 0.
    pub(super) fn clear(self) {
        for page in 0..self.segment.geometry.cells / PAGE_WORDS {
            if self.has_page(page) {
                let first = self.start + SLAB_HEADER_WORDS + page * PAGE_WORDS;
                for cell in self.segment.map.words().get(first..first + PAGE_WORDS).unwrap_or(&[]) {
                    cell.store(0, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_are_those_of_the_documentation() {
        let geometry = Geometry::default();
        assert!(geometry.is_sane());
        assert_eq!(Geometry::table() * 8, 4096);
        assert_eq!(geometry.first_connection() * 8, 36_864);
        assert_eq!(geometry.first_escrow() * 8, 102_400);
        assert_eq!(geometry.directory() * 8, 233_472);
        assert_eq!(geometry.slab_zero() * 8, 67_342_336);
        assert_eq!(geometry.slab_words(), 512 + 2_097_152);
        assert_eq!(header::EPOCH * 8, 512);
        assert_eq!((row::HEARTBEAT * 8, row::ERROR * 8), (128, 192));
        assert_eq!((histogram::CELLS, SLAB_BITS * 8), (552, 128));
    }
}

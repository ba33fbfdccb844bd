//! The shared-memory segment: statistics and the generation table.
//!
//! One named object for each supervisor. The supervisor ([`SegmentOwner`]) creates and removes it,
//! every worker ([`SegmentWorker`]) writes its own slabs in it, and anybody of the same user
//! ([`SegmentReader`]) may read it, even while every process that writes it hangs. There is no lock
//! in it: every cell has a single writer or is changed by one compare-and-swap, and what is read
//! from it is checked before it is used. `docs/STATS.md` has the layout with offsets.

mod adoption;
mod books;
mod bucket;
mod cell;
mod connections;
mod directory;
mod escrow;
mod export;
pub mod histogram;
mod layout;
mod ledger;
mod map;
mod name;
mod owner;
mod process;
mod reader;
mod slab;
mod sums;
mod sweep;
mod table;
mod worker;

use std::io;

pub use adoption::{Commander, Row, start_of};
pub use books::{Books, GenerationBooks};
pub use bucket::{Bucket, Rate};
pub use cell::{Cell, HistogramCells};
pub use connections::{Counts, Ticket};
pub use escrow::{EscrowId, EscrowState};
pub use export::Totals;
pub use layout::Geometry;
pub use ledger::{ConnectionKind, EndReason, opened_metric};
/// Major version of the segment's layout. Processes with different ones cannot share a segment.
pub const LAYOUT_MAJOR: u32 = layout::MAJOR;

pub use name::{Kind, MetricName};
pub use owner::SegmentOwner;
pub use reader::{GenerationRow, HistogramValues, LedgerTotals, Metric, SegmentReader, Value};
pub use slab::ThreadSlab;
pub use sums::{Sum, Sums};
pub use sweep::find;
pub use worker::SegmentWorker;

/// Row of a generation in the segment's generation table. A row is used again after it was retired.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct SlotIndex(pub u32);

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The object could not be created.
    #[error("cannot create the shared-memory segment `{os_id}`")]
    Create {
        /// Name of the object.
        os_id: String,
        /// Why.
        #[source]
        source: shared_memory::ShmemError,
    },
    /// The object could not be opened.
    #[error("cannot open the shared-memory segment `{os_id}`")]
    Open {
        /// Name of the object.
        os_id: String,
        /// Why.
        #[source]
        source: shared_memory::ShmemError,
    },
    /// A memory file could not be made or opened.
    #[error("cannot use the memory file `{os_id}` as a segment")]
    MemoryFile {
        /// Its name.
        os_id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No memory could be reserved in the segment.
    #[error("cannot reserve memory in the shared-memory segment")]
    Reserve(#[source] io::Error),
    /// The segment was made by something else, is damaged or too short.
    #[error("the shared-memory segment is not usable: {0}")]
    Alien(&'static str),
    /// Its layout is of another major version.
    #[error("the shared-memory segment has layout {found}, this program knows {known}")]
    Layout {
        /// Major version in the segment.
        found: u32,
        /// Major version of this program.
        known: u32,
    },
    /// Every row of the generation table is in use.
    #[error("all {0} rows of the generation table are in use")]
    TableFull(u32),
    /// No room for another metric.
    #[error("the shared-memory segment has no room for another metric")]
    Full,
    /// The slot is not one of the table, or is not in use.
    #[error("slot {0} of the generation table is not in use")]
    NoSuchSlot(u32),
    /// The slab of this thread was handed out already.
    #[error("the statistics of thread {0} are in use already")]
    ThreadTaken(u32),
    /// The segment changed faster than it could be read.
    #[error("the shared-memory segment changes faster than it can be read")]
    Busy,
}

/// Monotonic clock of the machine in ms, the same for all processes. Heartbeats and drain deadlines
/// in the segment are on it.
pub fn mono_ms() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let secs = u64::try_from(t.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec()).unwrap_or(0);
        secs * 1000 + nanos / 1_000_000
    })
}

//! What became of connections, over all generations and in each that lives: for the supervisor, which
//! tells it to people. What a worker said about itself is older, and a new supervisor never heard it.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    ConnectionKind, Kind, LedgerTotals, SegmentError, SegmentOwner,
    layout::row,
    owner::slabs_of,
    reader::{View, add, consistent, generation_row, ledger_of},
};
use crate::generation::Generation;

/// The books of a segment at one moment.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Over all generations, dead ones too.
    pub ledger: LedgerTotals,
    /// Connections that workers gave to another generation, by [`ConnectionKind`].
    pub moved: [u64; ConnectionKind::ALL.len()],
    /// The generations that live.
    pub living: Vec<GenerationBooks>,
}

/// The books of one generation.
#[derive(Clone, Copy, Debug)]
pub struct GenerationBooks {
    /// Its number.
    pub generation: Generation,
    /// Its downstream connections.
    pub ledger: LedgerTotals,
    /// Those that are open, by [`ConnectionKind`].
    pub open: [u64; ConnectionKind::ALL.len()],
    /// Those it gave away, by [`ConnectionKind`].
    pub moved: [u64; ConnectionKind::ALL.len()],
}

/// Where it is counted what was given away, as far as anybody counted any.
type MovedCells = [Option<usize>; ConnectionKind::ALL.len()];

impl SegmentOwner {
    /// What became of connections. A generation that counts for itself only is not in it.
    ///
    /// # Errors
    /// When generations are retired faster than a sum takes.
    pub fn books(&self) -> Result<Books, SegmentError> {
        let segment = &self.shared.segment;
        let cells: MovedCells = {
            let mut directory = self.shared.directory();
            directory.scan(segment);
            ConnectionKind::ALL.map(|kind| directory.metric(Kind::Counter, &kind.moved_metric()))
        };
        consistent(segment, |view| Books {
            // What was given away is read before what is open.
            moved: cells.map(|cell| cell.map_or(0, |cell| view.sum(cell))),
            ledger: ledger_of(|cell| view.sum(cell)),
            living: living(view, &cells),
        })
    }
}

fn living(view: &View<'_>, cells: &MovedCells) -> Vec<GenerationBooks> {
    let segment = view.segment;
    let books = |slot: usize| {
        let found = generation_row(segment, slot)?;
        let slabs: Vec<usize> = slabs_of(segment, slot).collect();
        let begun = segment.row(slot, row::HEARTBEAT).load(Relaxed) != 0;
        let moved = cells.map(|cell| cell.map_or(0, |cell| add(segment, &slabs, cell)));
        let (generation, ledger, open) = (found.generation, found.ledger, found.open);
        (begun && !slabs.is_empty()).then_some(GenerationBooks { generation, ledger, open, moved })
    };
    (0..segment.geometry.slots).filter_map(books).collect()
}

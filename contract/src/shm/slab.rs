//! The cells of one thread.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use super::{
    Cell, HistogramCells, Kind, MetricName, SegmentError, Sums,
    directory::{Directory, What},
    histogram,
    layout::{Segment, cells_of},
};

/// The segment and what this process knows of its directory.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) segment: Segment,
    pub(super) directory: Mutex<Directory>,
}

impl Shared {
    pub(super) fn new(segment: Segment) -> Arc<Self> {
        Arc::new(Self { segment, directory: Mutex::default() })
    }

    /// The directory. A panic elsewhere cannot have left it wrong, only behind.
    pub(super) fn directory(&self) -> std::sync::MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cells of a metric in a slab.
    fn cells(
        &self,
        slab: usize,
        kind: Kind,
        name: &MetricName,
    ) -> Result<&'static [AtomicU64], SegmentError> {
        let cell = self.directory().define(&self.segment, What::Metric(kind), name)?;
        self.segment.slab(slab).populate(cell, cells_of(kind))
    }
}

/// The cells of one thread. It may move to the thread before it is used there.
#[derive(Debug, Default)]
pub struct ThreadSlab {
    shared: Option<(Arc<Shared>, usize)>,
    private: HashMap<(Kind, MetricName), &'static [AtomicU64]>,
}

impl ThreadSlab {
    /// Cells that no other process can see: for tests, and when the segment has no room.
    pub fn detached() -> Self {
        Self::default()
    }

    /// Cells in this slab of the segment.
    pub(super) fn attached(shared: Arc<Shared>, slab: usize) -> Self {
        Self { shared: Some((shared, slab)), private: HashMap::new() }
    }

    /// The cell of a counter or a gauge. The same name gives the same cell. When the segment has no
    /// room the cell is private and `stats.overflow` counts it.
    pub fn cell(&mut self, kind: Kind, name: &MetricName) -> Cell {
        static NONE: AtomicU64 = AtomicU64::new(0);
        Cell::new(self.cells(kind, name).first().unwrap_or(&NONE))
    }

    /// The cells of a histogram, under the same rules.
    pub fn histogram(&mut self, name: &MetricName) -> HistogramCells {
        static NONE: [AtomicU64; histogram::CELLS] =
            [const { AtomicU64::new(0) }; histogram::CELLS];
        HistogramCells::new(self.cells(Kind::Histogram, name).try_into().unwrap_or(&NONE))
    }

    /// The sums over all generations, of which this slab has the part of its thread.
    pub fn sums(&self) -> Sums {
        Sums::new(self.shared.as_ref())
    }

    fn cells(&mut self, kind: Kind, name: &MetricName) -> &'static [AtomicU64] {
        let key = (kind, name.clone());
        if let Some(cells) = self.private.get(&key) {
            return cells;
        }
        if let Some((shared, slab)) = &self.shared {
            match shared.cells(*slab, kind, name) {
                Ok(cells) => return cells,
                Err(_) => shared.segment.overflowed(),
            }
        }
        let cells = Vec::leak((0..cells_of(kind)).map(|_| AtomicU64::new(0)).collect());
        self.private.entry(key).or_insert(cells)
    }
}

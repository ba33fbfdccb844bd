//! The cells of one thread.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use super::{
    Bucket, Cell, HistogramCells, Kind, MetricName, SegmentError, Sums,
    directory::{Directory, What},
    histogram,
    layout::{SLABS_BASE, Segment, cells_of},
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
        if matches!(kind, Kind::Counter | Kind::Histogram) {
            // What is counted here must find room in the base when the generation is gone.
            for base in SLABS_BASE {
                self.segment.slab(base).populate(cell, cells_of(kind))?;
            }
        }
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

    /// The token bucket of this name, shared by all generations. When the segment has no room for it,
    /// nobody else sees it.
    pub fn bucket(&self, name: &str) -> Bucket {
        let shared = self.shared.as_ref();
        let shared = shared.and_then(|(shared, _)| Bucket::shared(shared, name));
        shared.unwrap_or_else(Bucket::detached)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::Generation,
        shm::{Geometry, SegmentOwner, SegmentWorker},
    };

    /// Otherwise it could not be told what a dead generation counted once memory is short.
    #[test]
    fn what_is_counted_has_room_in_both_bases() {
        let geometry =
            Geometry { slots: 2, entries: 64, slabs: 8, cells: 4096, ..Geometry::default() };
        let mut owner = SegmentOwner::create_with(std::process::id(), geometry).expect("segment");
        let slot = owner.register(Generation(0), 1).expect("row");
        let worker = SegmentWorker::open(owner.os_id(), slot).expect("worker");
        let mut slab = worker.thread(0).expect("slab");
        let name = |name: &str| MetricName::plain(name);
        slab.histogram(&name("a histogram"));
        let shared = &worker.shared;
        for (kind, name) in
            [(Kind::Histogram, name("a histogram")), (Kind::Counter, name("a counter"))]
        {
            slab.cell(Kind::Counter, &MetricName::plain("a counter"));
            let cell = shared
                .directory()
                .define(&shared.segment, What::Metric(kind), &name)
                .expect("known");
            for base in SLABS_BASE {
                for cell in cell..cell + cells_of(kind) {
                    assert!(shared.segment.slab(base).peek(cell).is_some(), "{cell} of {base}");
                }
            }
        }
    }
}

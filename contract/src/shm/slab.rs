//! The cells of one thread.

use std::{collections::HashMap, sync::atomic::AtomicU64};

use super::{Cell, HistogramCells, Kind, MetricName, histogram};

/// The cells of one thread. It may move to the thread before it is used there.
#[derive(Debug, Default)]
pub struct ThreadSlab {
    private: HashMap<MetricName, &'static [AtomicU64]>,
}

impl ThreadSlab {
    /// Cells that no other process can see: for tests, and when the segment has no room.
    pub fn detached() -> Self {
        Self::default()
    }

    /// The cell of a counter or a gauge. The same name gives the same cell.
    pub fn cell(&mut self, kind: Kind, name: &MetricName) -> Cell {
        static NONE: AtomicU64 = AtomicU64::new(0);
        Cell::new(self.cells(kind, name).first().unwrap_or(&NONE))
    }

    /// The cells of a histogram. The same name gives the same cells.
    pub fn histogram(&mut self, name: &MetricName) -> HistogramCells {
        static NONE: [AtomicU64; histogram::CELLS] =
            [const { AtomicU64::new(0) }; histogram::CELLS];
        HistogramCells::new(self.cells(Kind::Histogram, name).try_into().unwrap_or(&NONE))
    }

    fn cells(&mut self, kind: Kind, name: &MetricName) -> &'static [AtomicU64] {
        let width = if kind == Kind::Histogram { histogram::CELLS } else { 1 };
        self.private
            .entry(name.clone())
            .or_insert_with(|| Vec::leak((0..width).map(|_| AtomicU64::new(0)).collect()))
    }
}

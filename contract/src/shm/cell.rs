//! One number with one writer.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::histogram;

/// A number in a slab. Only the thread that owns the slab writes it, so a change is a plain load
/// and store; any process may read it at any time. It does not leave its thread.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    value: &'static AtomicU64,
    not_send: PhantomData<*const ()>,
}

impl Cell {
    /// Wraps a cell of the thread's own slab.
    pub(crate) const fn new(value: &'static AtomicU64) -> Self {
        Self { value, not_send: PhantomData }
    }

    /// Adds, and wraps around after 2^64.
    #[inline]
    pub fn add(self, n: u64) {
        self.value.store(self.value.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes away. A gauge below 0 shows as 0.
    #[inline]
    pub fn sub(self, n: u64) {
        self.value.store(self.value.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces the value.
    #[inline]
    pub fn set(self, n: u64) {
        self.value.store(n, Relaxed);
    }

    /// The value this thread has.
    #[inline]
    pub fn get(self) -> u64 {
        self.value.load(Relaxed)
    }
}

/// The cells of a histogram in a slab, under the same rule as [`Cell`].
#[derive(Clone, Copy, Debug)]
pub struct HistogramCells {
    /// Invariant: [`histogram::CELLS`] long, the sum first.
    cells: &'static [AtomicU64; histogram::CELLS],
    not_send: PhantomData<*const ()>,
}

impl HistogramCells {
    /// Wraps cells of the thread's own slab.
    pub(crate) const fn new(cells: &'static [AtomicU64; histogram::CELLS]) -> Self {
        Self { cells, not_send: PhantomData }
    }

    /// Records one value.
    #[inline]
    pub fn record(self, value: u64) {
        let [sum, buckets @ ..] = self.cells;
        sum.store(sum.load(Relaxed).wrapping_add(value), Relaxed);
        if let Some(cell) = buckets.get(histogram::bucket_of(value)) {
            cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Number of values recorded by this thread.
    pub fn count(self) -> u64 {
        let [_, buckets @ ..] = self.cells;
        buckets.iter().fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
    }
}

//! Tables of what all generations share under a name: sums and token buckets.
//!
//! A table is one entry of the directory and has as many cells as [`Table::cells`] says. Its names
//! are hashes: a place is taken by writing the hash into its first empty key with one
//! compare-and-swap, so there is no moment at which a place is half taken, nobody waits, and two
//! processes never get two places for one name. Places are never given back: a name that comes
//! again after a reload has the place it had.

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::{
    MetricName, SegmentError,
    layout::{SLAB_SHARED, Segment},
};

/// A table. The numbers stand in the directory beside those of [`super::Kind`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub(super) enum Table {
    /// One cell a name: its key in the shared slab, the part of a thread in the thread's slab.
    Sums = 16,
    /// A cache line of the shared slab a name: its key, then the words of the bucket.
    Buckets = 17,
}

impl Table {
    /// All tables.
    pub(super) const ALL: [Self; 2] = [Self::Sums, Self::Buckets];

    /// The table with this number.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u64 == number)
    }

    /// Names it has room for.
    pub(super) const fn places(self) -> usize {
        match self {
            Self::Sums => 2048,
            Self::Buckets => 512,
        }
    }

    /// Cells from one place to the next. Buckets do not share cache lines.
    pub(super) const fn stride(self) -> usize {
        match self {
            Self::Sums => 1,
            Self::Buckets => 8,
        }
    }

    /// Cells of the table.
    pub(super) const fn cells(self) -> usize {
        self.places() * self.stride()
    }

    /// Its name in the directory.
    pub(super) fn name(self) -> MetricName {
        MetricName::plain(match self {
            Self::Sums => "baton.shared.sums",
            Self::Buckets => "baton.shared.buckets",
        })
    }

    /// First cell of the place of `name`, which is taken if it has none. The table begins at
    /// `first`.
    ///
    /// # Errors
    /// When all places are taken, or there is no memory.
    pub(super) fn place(
        self,
        segment: &Segment,
        first: usize,
        name: &str,
    ) -> Result<usize, SegmentError> {
        let key = hash(name);
        for place in 0..self.places() {
            let cell = first + place * self.stride();
            for word in segment.slab(SLAB_SHARED).populate(cell, self.stride())?.iter().take(1) {
                match word.compare_exchange(0, key, AcqRel, Acquire) {
                    Ok(_) => return Ok(cell),
                    Err(found) if found == key => return Ok(cell),
                    Err(_other) => {}
                }
            }
        }
        Err(SegmentError::Full)
    }
}

/// 64-bit FNV-1a, which every version of this program must agree on; never 0. Two names with one
/// hash would share a place: among 2048 names that happens once in 10^13 tables.
fn hash(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_place_fits_into_its_table() {
        for table in Table::ALL {
            assert_eq!(Table::from_number(table as u64), Some(table));
            assert_eq!(table.cells(), table.places() * table.stride());
        }
        assert_eq!(Table::from_number(4), None, "the number of a histogram");
    }
}

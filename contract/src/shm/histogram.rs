//! Fixed log-linear buckets of histograms, the same in every process and version.
//!
//! Two decimal digits: 0, every whole number up to 100, then steps of 10, 100, … up to 10 million
//! and above. A bucket holds the values above the bound of the one before it up to and with its own,
//! so a Prometheus `le` that is a number of two digits and zeros is exact.

/// Number of buckets.
pub const BUCKETS: usize = 1 + 100 + 90 * 5;

/// Cells of a histogram: the sum of the values and its buckets. A multiple of a cache line.
pub const CELLS: usize = 1 + BUCKETS;

/// The bucket of a value.
#[inline]
pub fn bucket_of(value: u64) -> usize {
    if value <= 100 {
        // At most 100, so it fits.
        return usize::try_from(value).unwrap_or(0);
    }
    let below = value - 1;
    if below >= 10_000_000 {
        return BUCKETS - 1;
    }
    let (step, decade) = match below {
        0..1_000 => (10, 0),
        1_000..10_000 => (100, 1),
        10_000..100_000 => (1_000, 2),
        100_000..1_000_000 => (10_000, 3),
        _ => (100_000, 4),
    };
    // Two digits, 10 to 99.
    let digits = usize::try_from(below / step).unwrap_or(10);
    101 + decade * 90 + digits - 10
}

/// The largest value of a bucket; of the last one, the largest that is told apart.
pub fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket.min(BUCKETS - 1) as u64;
    if bucket <= 100 {
        return bucket;
    }
    let (decade, digits) = ((bucket - 101) / 90, (bucket - 101) % 90 + 10);
    let step = [10, 100, 1_000, 10_000, 100_000];
    (digits + 1) * step.get(usize::try_from(decade).unwrap_or(0)).copied().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..200_000).chain((200_000..12_000_000).step_by(997)) {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKETS);
            if value <= 10_000_000 {
                assert!(value <= upper_bound(bucket), "{value} in {bucket}");
            }
            if bucket > 0 {
                assert!(value > upper_bound(bucket - 1), "{value} in {bucket}");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn bounds_of_two_digits_are_exact() {
        for bound in [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 30_000, 1_800_000, 3_600_000] {
            assert_eq!(upper_bound(bucket_of(bound)), bound);
            assert!(bucket_of(bound + 1) > bucket_of(bound));
        }
    }
}

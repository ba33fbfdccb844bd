//! How long requests took: a histogram whose buckets are 1.6 % wide, and the exact longest one.

use std::time::Duration;

/// Buckets for each doubling, a power of two.
const PER_DOUBLING: u64 = 64;
/// Enough for 2^40 ns, eighteen minutes.
const BUCKETS: usize = 40 * 64;

/// Times of many requests.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, longest: 0 }
    }
}

impl Histogram {
    /// One more.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(index(nanos).min(BUCKETS - 1)) {
            *bucket += 1;
        }
        self.count += 1;
        self.longest = self.longest.max(nanos);
    }

    /// Takes in what another one recorded.
    pub fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The time that `per_mille` of 1000 requests did not exceed, rounded up to its bucket's end.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let wanted = (self.count * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos(end(index).min(self.longest));
            }
        }
        self.longest()
    }
}

/// Values below [`PER_DOUBLING`] have a bucket each; above, the highest bits choose.
fn index(nanos: u64) -> usize {
    if nanos < PER_DOUBLING {
        return usize::try_from(nanos).unwrap_or(0);
    }
    let shift = nanos.ilog2() - PER_DOUBLING.ilog2();
    let index = u64::from(shift) * PER_DOUBLING + (nanos >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn end(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * PER_DOUBLING {
        return index;
    }
    let shift = index / PER_DOUBLING - 1;
    ((index % PER_DOUBLING + PER_DOUBLING + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_ends_at_or_above_it_and_near() {
        for value in (0..200_000).chain([1_000_000, 77_777_777, 1 << 39]) {
            let end = end(index(value));
            assert!(end >= value, "{value} is above its bucket's end {end}");
            assert!(end <= value + value / 32, "{value} is far from its bucket's end {end}");
            assert!(value == 0 || super::end(index(value) - 1) < value, "{value} fits lower");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_recorded_times() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let check = |per_mille: u64, expected: u64| {
            let found = histogram.quantile(per_mille).as_nanos();
            let (low, high) = (expected * 1000, expected * 1000 + expected * 1000 / 32);
            let range = u128::from(low)..=u128::from(high);
            assert!(range.contains(&found), "{per_mille}: {found} instead of {low}");
        };
        check(500, 500);
        check(990, 990);
        check(1000, 1000);
        assert_eq!(histogram.longest(), Duration::from_micros(1000));
        assert_eq!(histogram.count(), 1000);
        assert_eq!(Histogram::default().quantile(990), Duration::ZERO);
    }

    #[test]
    fn a_time_beyond_all_buckets_counts_and_is_the_longest() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_hours(1));
        assert_eq!(histogram.count(), 1);
        assert_eq!(histogram.longest(), Duration::from_hours(1));
    }
}

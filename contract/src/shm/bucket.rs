//! A token bucket in one atomic word, shared by all generations under its name.
//!
//! The generic cell rate algorithm: the word is the *theoretical arrival time*, the moment at which
//! the bucket would be full again. A token costs the time in which it grows back; a request is
//! granted when the bucket would be full again no later than the time of a whole burst from now.
//! One compare-and-swap decides, so a process that is killed holds nothing, and no request is granted
//! twice. The time is an argument; nothing here reads a clock.
//!
//! **Over any interval of length t at most burst + rate · t tokens are granted**, whatever threads
//! and processes ask, as long as their rate is the same: in the order of the swaps each grant moves
//! the word by its cost at least, the first one from its own time on, and the last one leaves it at
//! most a burst after its own time.
//!
//! The local rate limit filter takes from them.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use super::{slab::Shared, table::Table};

/// Parts of a nanosecond in which costs are counted, so that rates of a billion tokens a second are
/// exact within 2 %. Times stay below 2^64 for nine years of them.
const PARTS: u64 = 64;
/// Times a grant is tried again because somebody else was granted meanwhile. Nobody gets here with
/// fewer than a thousand threads; who does is refused.
const MAX_ATTEMPTS: usize = 1024;
/// Words of a bucket after its key.
const ARRIVAL: usize = 1;
/// The rate that was used last.
const RATE: usize = 2;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Cost of a token in parts of a ns; at least 1.
    cost: u64,
    /// Cost of a whole burst.
    burst: u64,
}

impl Rate {
    /// `tokens` in each `per_ns` nanoseconds, and a bucket that holds `burst`. Rounded so that it is
    /// never more. With 0 tokens nothing is ever granted.
    pub fn new(tokens: u64, per_ns: u64, burst: u64) -> Self {
        if tokens == 0 {
            return Self { cost: u64::MAX, burst: 0 };
        }
        let cost = (u128::from(per_ns) * u128::from(PARTS)).div_ceil(u128::from(tokens));
        let cost = u64::try_from(cost).unwrap_or(u64::MAX).max(1);
        Self { cost, burst: cost.saturating_mul(burst) }
    }

    /// Two words in one, to notice that the rate is another one.
    fn fingerprint(self) -> u64 {
        (self.cost.rotate_left(32) ^ self.burst.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    arrival: &'static AtomicU64,
    rate: &'static AtomicU64,
}

impl Bucket {
    /// A bucket nobody else sees; full.
    pub fn detached() -> Self {
        let words: &[AtomicU64; 2] = Box::leak(Box::default());
        let [arrival, rate] = words;
        Self { arrival, rate }
    }

    /// The bucket of this name in the segment.
    pub(super) fn shared(shared: &Arc<Shared>, name: &str) -> Option<Self> {
        let segment = &shared.segment;
        let table = shared.directory().table(Table::Buckets)?;
        let found = Table::Buckets.place(segment, table, name).and_then(|cell| {
            segment.slab(super::layout::SLAB_SHARED).populate(cell, Table::Buckets.stride())
        });
        match found {
            Ok(words) => Some(Self { arrival: words.get(ARRIVAL)?, rate: words.get(RATE)? }),
            Err(_) => {
                segment.overflowed();
                None
            }
        }
    }

    /// Says with which rate it will be used from now on; once for each generation, before it serves.
    /// What a slower rate has left to wait for is cut to an empty bucket of the new one.
    ///
    /// `now_ns` as for [`Bucket::take`].
    pub fn tune(self, rate: Rate, now_ns: u64) {
        let mine = rate.fingerprint();
        if self.rate.swap(mine, AcqRel) == mine {
            return;
        }
        let empty = now_ns.saturating_mul(PARTS).saturating_add(rate.burst);
        self.arrival.fetch_min(empty, AcqRel);
    }

    /// Takes `tokens`, all or none. `now_ns` is a time in ns that all processes agree on, such as
    /// the monotonic clock's.
    ///
    /// # Errors
    /// When there are not enough; then how many ns to wait, at least, until there could be.
    /// `u64::MAX` when the bucket never holds that many.
    pub fn take(self, rate: Rate, tokens: u64, now_ns: u64) -> Result<(), u64> {
        let cost = rate.cost.saturating_mul(tokens);
        if cost > rate.burst {
            return Err(u64::MAX);
        }
        let now = now_ns.saturating_mul(PARTS);
        let latest = now.saturating_add(rate.burst);
        let mut arrival = self.arrival.load(Relaxed);
        for _ in 0..MAX_ATTEMPTS {
            let after = arrival.max(now).saturating_add(cost);
            if after > latest || after == u64::MAX {
                return Err((after - latest).div_ceil(PARTS));
            }
            match self.arrival.compare_exchange_weak(arrival, after, AcqRel, Acquire) {
                Ok(_) => return Ok(()),
                Err(found) => arrival = found,
            }
        }
        Err(0)
    }

    /// How many ns to wait, at least, until there could be so many tokens; 0 when there are.
    /// `u64::MAX` when the bucket never holds that many.
    pub fn wait(self, rate: Rate, tokens: u64, now_ns: u64) -> u64 {
        let cost = rate.cost.saturating_mul(tokens);
        if cost > rate.burst {
            return u64::MAX;
        }
        let now = now_ns.saturating_mul(PARTS);
        let after = self.arrival.load(Relaxed).max(now).saturating_add(cost);
        after.saturating_sub(now.saturating_add(rate.burst)).div_ceil(PARTS)
    }

    /// Whole tokens there are.
    pub fn available(self, rate: Rate, now_ns: u64) -> u64 {
        let now = now_ns.saturating_mul(PARTS);
        let arrival = self.arrival.load(Relaxed).max(now);
        now.saturating_add(rate.burst).saturating_sub(arrival) / rate.cost
    }
}

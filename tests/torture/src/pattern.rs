//! Bytes that both ends can compute, so that a wrong, missing or repeated one is seen.

/// An endless stream of bytes that depends on the seed and the position alone.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    seed: u64,
    at: u64,
}

impl Pattern {
    /// The stream of this seed from its start.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, at: 0 }
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        // Each eight bytes come from one mixed number. The position counts bytes, so reads of any
        // size give the same stream.
        let skip = usize::try_from(self.at % 8).unwrap_or(0);
        let mut block = self.at / 8;
        while bytes.len() < count + skip {
            bytes.extend_from_slice(&mix(self.seed, block).to_le_bytes());
            block += 1;
        }
        bytes.drain(..skip);
        bytes.truncate(count);
        self.at += count as u64;
        bytes
    }

    /// Whether these are the next bytes; moves on by their number.
    pub(crate) fn matches(&mut self, received: &[u8]) -> bool {
        self.take(received.len()) == received
    }
}

/// The finaliser of splitmix64 over both numbers.
fn mix(seed: u64, block: u64) -> u64 {
    let mut z = seed ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a with 64 bits, over a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fnv(u64);

impl Fnv {
    /// The sum of no bytes.
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// The sum so far.
    pub(crate) fn sum(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_read() {
        let whole = Pattern::new(7).take(1000);
        let mut parts = Pattern::new(7);
        let mut joined = Vec::new();
        for size in [1, 2, 3, 5, 8, 13, 21, 100, 847] {
            joined.extend(parts.take(size));
        }
        assert_eq!(whole, joined);
    }

    #[test]
    fn another_seed_is_another_stream() {
        assert_ne!(Pattern::new(1).take(64), Pattern::new(2).take(64));
    }
}

//! Bytes that both ends can compute, so that a wrong, missing or repeated one is seen.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

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

/// SHA-256 over a stream.
#[derive(Clone, Debug)]
pub(crate) struct Digest(Sha256);

/// Bytes of a digest.
pub(crate) const DIGEST: usize = 32;

impl Digest {
    /// The digest of no bytes.
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest so far.
    pub(crate) fn bytes(&self) -> [u8; DIGEST] {
        self.0.clone().finalize().into()
    }

    /// The digest so far, as text.
    pub(crate) fn hex(&self) -> String {
        let mut text = String::with_capacity(2 * DIGEST);
        for byte in self.bytes() {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        text
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
    fn the_digest_of_a_stream_is_that_of_its_bytes() {
        let mut digest = Digest::new();
        digest.add(b"a");
        digest.add(b"bc");
        assert_eq!(
            digest.hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn another_seed_is_another_stream() {
        assert_ne!(Pattern::new(1).take(64), Pattern::new(2).take(64));
    }
}

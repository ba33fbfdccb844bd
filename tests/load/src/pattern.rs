//! The endless stream of the bulk transfers: byte `n` is `n` modulo a prime, so that a lost, a
//! doubled or a displaced piece is seen by looking at the ends of what arrives.

/// Bytes until the stream repeats: a prime, so that no buffer size is a multiple of it.
const PERIOD: u64 = 251;
/// Most bytes that [`Pattern::from`] gives, a large write.
const PIECE: usize = 256 * 1024;

/// Enough of the stream to begin at any phase.
#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Box<[u8]>,
}

impl Pattern {
    /// The bytes.
    pub(crate) fn new() -> Self {
        let bytes = (0..PERIOD).cycle().map(byte_at).take(PIECE + phase(PERIOD - 1)).collect();
        Self { bytes }
    }

    /// The stream from a position on.
    pub(crate) fn from(&self, position: u64) -> &[u8] {
        let phase = phase(position);
        self.bytes.get(phase..phase + PIECE).unwrap_or_default()
    }
}

/// Whether the first and the last of these bytes are those of the stream from a position on.
pub(crate) fn fits(position: u64, bytes: &[u8]) -> bool {
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return true };
    let end = position + bytes.len() as u64 - 1;
    *first == byte_at(position) && *last == byte_at(end)
}

fn byte_at(position: u64) -> u8 {
    u8::try_from(position % PERIOD).unwrap_or(0)
}

fn phase(position: u64) -> usize {
    usize::from(byte_at(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_continue_each_other() {
        let pattern = Pattern::new();
        let mut position = 0;
        for size in [1, 250, 251, 252, 70_000, PIECE] {
            let piece = &pattern.from(position)[..size];
            assert!(fits(position, piece), "{size} bytes at {position}");
            position += size as u64;
        }
    }

    #[test]
    fn a_lost_or_doubled_byte_is_seen() {
        let pattern = Pattern::new();
        let piece = &pattern.from(1000)[..5000];
        assert!(fits(1000, piece) && fits(0, &[]));
        assert!(!fits(999, piece) && !fits(1001, piece));
        let mut lost = piece.to_vec();
        lost.remove(2500);
        assert!(!fits(1000, &lost));
    }
}

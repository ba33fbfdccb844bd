//! The binary frame of the handoff channel: header, checksum, body.
//!
//! No I/O happens here. A frame is one packet of a `SOCK_SEQPACKET` socket, so there is no
//! streaming: a packet is a whole frame or it is an error. All numbers are little-endian.
//!
//! ```text
//! magic "HRP1" | version u16 | kind u16 | flags u16 | nfds u16 | seq u64 | generation u64
//! | length u32 | crc32 u32 | body
//! ```
//! The checksum (CRC-32, IEEE) covers the 32 bytes before it and the body.

/// First four bytes of each frame.
pub const MAGIC: [u8; 4] = *b"HRP1";
/// Size of the header, bytes.
pub const HEADER_LEN: usize = 36;
/// Largest body, bytes. A manifest of 253 listeners needs about 40 KiB.
pub const MAX_BODY_LEN: usize = 64 * 1024 - HEADER_LEN;
/// Largest frame, bytes.
pub const MAX_FRAME_LEN: usize = HEADER_LEN + MAX_BODY_LEN;
/// Most descriptors one frame may carry; the kernel refuses more (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// Bytes of the header the checksum covers.
const CHECKED_HEADER_LEN: usize = 32;

/// One packet of the handoff channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Protocol version the sender speaks in this frame.
    pub version: u16,
    /// Kind of message, see [`crate::message`].
    pub kind: u16,
    /// No flag is defined in version 1; receivers ignore unknown ones.
    pub flags: u16,
    /// Number of descriptors that travel with the frame, at most [`MAX_FDS`].
    pub nfds: u16,
    /// Sequence number, counted by each sender from 1. Answers name it.
    pub seq: u64,
    /// The generation the frame is about.
    pub generation: u64,
    /// The message, at most [`MAX_BODY_LEN`] bytes.
    pub body: Vec<u8>,
}

/// Why bytes are not a frame, or a frame cannot be bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Shorter than a header.
    #[error("a frame has at least {HEADER_LEN} bytes, this one has {got}")]
    Short {
        /// Bytes received.
        got: usize,
    },
    /// It does not start with [`MAGIC`].
    #[error("a frame starts with \"HRP1\", this one does not")]
    Magic,
    /// The header names another length than arrived.
    #[error("the header names a body of {named} bytes, {got} arrived")]
    Length {
        /// Length in the header.
        named: usize,
        /// Body bytes received.
        got: usize,
    },
    /// The body is larger than [`MAX_BODY_LEN`].
    #[error("a body has at most {MAX_BODY_LEN} bytes, this one has {got}")]
    TooLong {
        /// Bytes of the body.
        got: usize,
    },
    /// More than [`MAX_FDS`] descriptors are announced.
    #[error("a frame carries at most {MAX_FDS} descriptors, this one announces {named}")]
    TooManyDescriptors {
        /// Descriptors the frame announces.
        named: usize,
    },
    /// The checksum is wrong.
    #[error("the checksum of the frame is wrong")]
    Checksum,
}

impl Frame {
    /// The bytes of the frame.
    ///
    /// # Errors
    /// When the body or the number of descriptors is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        if self.body.len() > MAX_BODY_LEN {
            return Err(FrameError::TooLong { got: self.body.len() });
        }
        let named = usize::from(self.nfds);
        if named > MAX_FDS {
            return Err(FrameError::TooManyDescriptors { named });
        }
        let length = u32::try_from(self.body.len())
            .map_err(|_| FrameError::TooLong { got: self.body.len() })?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.kind.to_le_bytes());
        bytes.extend_from_slice(&self.flags.to_le_bytes());
        bytes.extend_from_slice(&self.nfds.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let checksum = checksum(&bytes, &self.body);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    /// Reads one whole packet.
    ///
    /// # Errors
    /// When the bytes are not exactly one valid frame.
    pub fn decode(packet: &[u8]) -> Result<Self, FrameError> {
        let short = FrameError::Short { got: packet.len() };
        let (header, body) = packet.split_first_chunk::<HEADER_LEN>().ok_or(short)?;
        let mut fields = Fields(header);
        if fields.take::<4>().ok_or(short)? != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = u16::from_le_bytes(fields.take().ok_or(short)?);
        let kind = u16::from_le_bytes(fields.take().ok_or(short)?);
        let flags = u16::from_le_bytes(fields.take().ok_or(short)?);
        let nfds = u16::from_le_bytes(fields.take().ok_or(short)?);
        let seq = u64::from_le_bytes(fields.take().ok_or(short)?);
        let generation = u64::from_le_bytes(fields.take().ok_or(short)?);
        let length = u32::from_le_bytes(fields.take().ok_or(short)?);
        let stored = u32::from_le_bytes(fields.take().ok_or(short)?);
        let named = usize::try_from(length).unwrap_or(usize::MAX);
        if named != body.len() {
            return Err(FrameError::Length { named, got: body.len() });
        }
        if named > MAX_BODY_LEN {
            return Err(FrameError::TooLong { got: named });
        }
        let checked = header.first_chunk::<CHECKED_HEADER_LEN>().ok_or(short)?;
        if checksum(checked, body) != stored {
            return Err(FrameError::Checksum);
        }
        if usize::from(nfds) > MAX_FDS {
            return Err(FrameError::TooManyDescriptors { named: usize::from(nfds) });
        }
        Ok(Self { version, kind, flags, nfds, seq, generation, body: body.to_vec() })
    }
}

/// Checksum of a header without its checksum field, and of a body.
fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Cuts fixed-size fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

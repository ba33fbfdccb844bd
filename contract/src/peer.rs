//! What two workers say to each other while connections move from one to the other.
//!
//! The supervisor makes the channel between them and hands each its end (PEER); the bytes of a
//! connection never pass through it. Frames are those of the handoff channel, bodies are
//! [records](crate::record).
//!
//! ```text
//! old generation                             new generation
//!   CONFIG + memfd  ─────────────────────────→  the configuration that governs what is in progress
//!   OFFER + descriptors ─────────────────────→  builds the connection, does not touch the sockets
//!         ←───────────────────── ACCEPT | REJECT
//!   (compare-and-swap of the owner in shared memory)
//!   COMMIT ──────────────────────────────────→  serves it
//!   or WITHDRAW ─────────────────────────────→  forgets it, without a `shutdown`
//! ```
//! The word in shared memory decides, not the messages: whoever waits too long, or sees the other
//! one gone, asks it (`shm/connections.rs`).

use crate::{
    frame::Frame,
    generation::Generation,
    record::{Reader, RecordError, Writer},
    shm::Ticket,
    version::PROTO_MAX,
};

/// Name of the feature in HELLO. The number changes when old and new could not understand each
/// other; unknown fields and kinds alone are no reason.
pub const FEATURE: &str = "migrate-1";

/// Largest record that travels in its frame, bytes; a larger one comes as a sealed memfd, the last
/// descriptor of the frame.
pub const MAX_INLINE: usize = 48 * 1024;

/// Largest record at all, bytes. Two full sets of buffers of a connection are below 2 MiB.
pub const MAX_RECORD: usize = 16 * 1024 * 1024;

/// Most tickets in one ACCEPT, COMMIT or WITHDRAW.
pub const MAX_TICKETS: usize = 1024;

/// Why a connection stays where it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u16)]
pub enum Stay {
    /// The new configuration has no such listener, or no filter chain for it.
    NoListener = 1,
    /// The new generation does not know this kind or version of record.
    Version = 2,
    /// The record is malformed or its descriptors do not fit.
    Malformed = 3,
    /// The new generation has no descriptors or no room left.
    Overload = 4,
    /// The configuration that governs it cannot be used by the new generation.
    Config = 5,
    /// It was not answered in time.
    Timeout = 6,
    /// It is at a point of its life at which it cannot be moved, such as a connect in progress.
    Busy = 7,
    /// There is no other generation that could take it.
    NoPeer = 8,
}

impl Stay {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::NoListener,
        Self::Version,
        Self::Malformed,
        Self::Overload,
        Self::Config,
        Self::Timeout,
        Self::Busy,
        Self::NoPeer,
    ];

    /// `no_listener`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoListener => "no_listener",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Overload => "overload",
            Self::Config => "config",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::NoPeer => "no_peer",
        }
    }

    /// Whether asking again may have another answer.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::NoListener | Self::Version | Self::Malformed | Self::Config => true,
            Self::Overload | Self::Timeout | Self::Busy | Self::NoPeer => false,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u64 == number)
    }
}

/// Why a frame of the other worker cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The kind is not known to this build.
    #[error("unknown message kind {0}")]
    UnknownKind(u16),
    /// The body is malformed.
    #[error("the body of a message is malformed")]
    Body(#[from] RecordError),
    /// It is larger than a frame can carry.
    #[error("a message of {0} bytes does not fit into a frame")]
    TooLong(usize),
}

/// One message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// A configuration that offers may name. One descriptor: a memfd with its bytes.
    Config {
        /// Hash of the bytes.
        hash: u128,
        /// Its path, for messages.
        path: String,
    },
    /// A connection. Its descriptors come with it, and a memfd as the last one when the record is
    /// not in the frame.
    Offer {
        /// Its word in shared memory.
        ticket: Ticket,
        /// The record; `None` = in the memfd.
        record: Option<Vec<u8>>,
    },
    /// These can be taken over.
    Accept(Vec<Ticket>),
    /// This one cannot.
    Reject(Ticket, Stay),
    /// These are yours.
    Commit(Vec<Ticket>),
    /// Forget these.
    Withdraw(Vec<Ticket>),
}

const CONFIG: u16 = 64;
const OFFER: u16 = 65;
const ACCEPT: u16 = 66;
const REJECT: u16 = 67;
const COMMIT: u16 = 68;
const WITHDRAW: u16 = 69;

/// Tags of the fields.
mod tag {
    pub(super) const TICKETS: u16 = 1;
    pub(super) const RECORD: u16 = 2;
    pub(super) const REASON: u16 = 3;
    pub(super) const HASH: u16 = 4;
    pub(super) const PATH: u16 = 5;
}

impl Message {
    /// Number of the message on the wire.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Config { .. } => CONFIG,
            Self::Offer { .. } => OFFER,
            Self::Accept(_) => ACCEPT,
            Self::Reject(..) => REJECT,
            Self::Commit(_) => COMMIT,
            Self::Withdraw(_) => WITHDRAW,
        }
    }

    /// The frame that carries this message with `nfds` descriptors.
    ///
    /// # Errors
    /// When it does not fit into a frame.
    pub fn to_frame(
        &self,
        generation: Generation,
        seq: u64,
        nfds: u16,
    ) -> Result<Frame, PeerError> {
        let mut writer = Writer::new(self.kind(), 1);
        match self {
            Self::Config { hash, path } => {
                writer.bytes(tag::HASH, &hash.to_le_bytes()).text(tag::PATH, path);
            }
            Self::Offer { ticket, record } => {
                writer.bytes(tag::TICKETS, &tickets_to_bytes(&[*ticket]));
                if let Some(record) = record {
                    writer.bytes(tag::RECORD, record);
                }
            }
            Self::Accept(tickets) | Self::Commit(tickets) | Self::Withdraw(tickets) => {
                writer.bytes(tag::TICKETS, &tickets_to_bytes(tickets));
            }
            Self::Reject(ticket, reason) => {
                writer.bytes(tag::TICKETS, &tickets_to_bytes(&[*ticket]));
                writer.number(tag::REASON, *reason as u64);
            }
        }
        let body = writer.finish();
        if body.len() > crate::frame::MAX_BODY_LEN {
            return Err(PeerError::TooLong(body.len()));
        }
        let generation = u64::from(generation.0);
        Ok(Frame { version: PROTO_MAX, kind: self.kind(), flags: 0, nfds, seq, generation, body })
    }

    /// Reads the message in a frame.
    ///
    /// # Errors
    /// When the kind is unknown or the body malformed.
    pub fn from_frame(frame: &Frame) -> Result<Self, PeerError> {
        let mut reader = Reader::new(&frame.body)?;
        let message = match frame.kind {
            CONFIG => {
                let hash = reader.bytes(tag::HASH)?;
                let hash = hash.try_into().map_err(|_| RecordError::Malformed(tag::HASH))?;
                let path = reader.text(tag::PATH)?.to_owned();
                Self::Config { hash: u128::from_le_bytes(hash), path }
            }
            OFFER => Self::Offer {
                ticket: one_ticket(&mut reader)?,
                record: reader.maybe_bytes(tag::RECORD).map(<[u8]>::to_vec),
            },
            ACCEPT => Self::Accept(tickets(&mut reader)?),
            REJECT => {
                let ticket = one_ticket(&mut reader)?;
                let reason = reader.number(tag::REASON)?;
                // A reason of a later version: what matters is that it stays.
                Self::Reject(ticket, Stay::from_number(reason).unwrap_or(Stay::Version))
            }
            COMMIT => Self::Commit(tickets(&mut reader)?),
            WITHDRAW => Self::Withdraw(tickets(&mut reader)?),
            kind => return Err(PeerError::UnknownKind(kind)),
        };
        reader.finish()?;
        Ok(message)
    }
}

fn tickets_to_bytes(tickets: &[Ticket]) -> Vec<u8> {
    let bytes = tickets
        .iter()
        .flat_map(|ticket| (u64::from(ticket.index) << 32 | u64::from(ticket.nonce)).to_le_bytes());
    bytes.collect()
}

fn tickets(reader: &mut Reader<'_>) -> Result<Vec<Ticket>, RecordError> {
    let bytes = reader.bytes(tag::TICKETS)?;
    let (chunks, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || chunks.len() > MAX_TICKETS {
        return Err(RecordError::Malformed(tag::TICKETS));
    }
    let ticket = |bytes: &[u8; 8]| {
        let number = u64::from_le_bytes(*bytes);
        let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0);
        Ticket { index: half(number >> 32), nonce: half(number) }
    };
    Ok(chunks.iter().map(ticket).collect())
}

fn one_ticket(reader: &mut Reader<'_>) -> Result<Ticket, RecordError> {
    match tickets(reader)?.as_slice() {
        [ticket] => Ok(*ticket),
        _ => Err(RecordError::Malformed(tag::TICKETS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_read_back() {
        let ticket = Ticket { index: 7, nonce: u32::MAX };
        let check = |message: Message| {
            let frame = message.to_frame(Generation(4), 9, 0).expect("a frame");
            assert_eq!(Message::from_frame(&frame), Ok(message));
        };
        check(Message::Config { hash: u128::MAX / 3, path: "envoy.yaml".to_owned() });
        check(Message::Offer { ticket, record: Some(vec![1, 2, 3]) });
        check(Message::Offer { ticket, record: None });
        check(Message::Accept(vec![ticket; MAX_TICKETS]));
        for reason in Stay::ALL {
            check(Message::Reject(ticket, reason));
        }
        check(Message::Commit(vec![ticket, ticket]));
        check(Message::Withdraw(vec![]));
    }

    #[test]
    fn a_reason_of_a_later_version_is_understood_as_such() {
        let ticket = Ticket { index: 1, nonce: 2 };
        let mut writer = Writer::new(REJECT, 1);
        writer.bytes(tag::TICKETS, &tickets_to_bytes(&[ticket])).number(tag::REASON, 999);
        let frame = Message::Accept(vec![]).to_frame(Generation(1), 1, 0).expect("a frame");
        let frame = Frame { kind: REJECT, body: writer.finish(), ..frame };
        assert_eq!(Message::from_frame(&frame), Ok(Message::Reject(ticket, Stay::Version)));
    }

    #[test]
    fn what_is_too_long_is_no_frame() {
        let ticket = Ticket { index: 1, nonce: 2 };
        let message = Message::Offer { ticket, record: Some(vec![0; 70_000]) };
        assert!(matches!(message.to_frame(Generation(1), 1, 0), Err(PeerError::TooLong(_))));
    }
}

//! Bodies of ESCROW, UNESCROW and ADOPT: connections that outlive their worker.

use serde::{Deserialize, Serialize};

use crate::shm::EscrowId;

/// Which connections outlive their worker.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CrashEscrow {
    /// None.
    Off,
    /// Tunnels: TCP, WebSocket and CONNECT.
    #[default]
    Tunnels,
    /// Tunnels, and HTTP/1 connections between two requests.
    Idle,
}

/// Longest record of a connection in escrow, bytes.
pub const MAX_ESCROW_RECORD: usize = 8192;
/// Most bytes of records in one message; hexadecimal they take twice as many.
pub const MAX_ESCROW_RECORDS: usize = 24 * 1024;

/// ESCROW: the frame carries the descriptors of all connections, one after the other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Escrow {
    /// The connections.
    pub connections: Vec<EscrowEntry>,
}

/// One connection in escrow.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct EscrowEntry {
    /// Its word in the segment.
    pub id: EscrowId,
    /// Number of its descriptors.
    pub descriptors: u16,
    /// What is needed to go on with it, beside them: a [record](crate::record), hexadecimal.
    pub record: Hex,
    /// Hash of the configuration that governs it, hexadecimal; empty = that of the worker. Only in
    /// ESCROW.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// Time since the supervisor has it, ms. Only in ADOPT.
    #[serde(default)]
    pub held_ms: u64,
}

/// UNESCROW: the copies can be closed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Unescrow {
    /// The connections.
    pub connections: Vec<EscrowId>,
}

/// ADOPT: the frame carries the configuration as a sealed memfd, then the descriptors of all
/// connections, one after the other. The supervisor keeps its copies.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Adopt {
    /// Hash of the configuration that governs the connections, hexadecimal.
    pub hash: String,
    /// Its path, for messages.
    pub path: String,
    /// The connections.
    pub connections: Vec<EscrowEntry>,
}

/// Bytes that are written as hexadecimal text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write as _;
        let mut text = String::with_capacity(self.0.len().saturating_mul(2));
        for byte in &self.0 {
            write!(text, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let malformed = || serde::de::Error::custom("not hexadecimal");
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(malformed());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let byte = |pair: &[u8; 2]| {
            let [high, low] = *pair;
            Some(digit(high)? << 4 | digit(low)?)
        };
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        bytes.map(Self).ok_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_as_hexadecimal_and_other_text_is_refused() {
        let all = Hex((0..=255).collect());
        let text = serde_json::to_string(&all).expect("text");
        assert_eq!(serde_json::from_str::<Hex>(&text).expect("bytes"), all);
        for bad in ["\"0\"", "\"0g\"", "\"é\"", "7"] {
            assert!(serde_json::from_str::<Hex>(bad).is_err(), "{bad}");
        }
    }
}

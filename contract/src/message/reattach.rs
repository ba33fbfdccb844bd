//! Bodies of the messages by which an orphan comes back to a new supervisor.
//!
//! ```text
//! worker (orphan)                          new supervisor
//!   REATTACH + memfd of its configuration ─→
//!   HOLDING + sockets (several, `last`) ───→  takes what it has no copy of
//!         ←──────────────── REATTACHED       or why not
//!   from here on as on any other channel
//! ```

use serde::{Deserialize, Serialize};

use super::{Config, Hello, SegmentRef};
use crate::{
    generation::{Generation, State},
    listener_key::ListenerSpec,
};

/// REATTACH: who the orphan is. Carries one descriptor, a sealed memfd with its configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Reattach {
    /// What it speaks, and its process.
    pub hello: Hello,
    /// Its number.
    pub generation: Generation,
    /// SERVING, `HANDING_OFF` or DRAINING.
    pub state: State,
    /// Worker threads.
    pub concurrency: u32,
    /// What its configuration was identified by.
    pub config: Config,
    /// Its place in the segment; `None` = it keeps its statistics to itself.
    #[serde(default)]
    pub segment: Option<SegmentRef>,
    /// Time until it ends by itself, ms; `None` = it does not.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
}

/// HOLDING: sockets of the orphan. The frame carries a copy of each, in the same order.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Holding {
    /// What the descriptors are.
    pub manifest: Vec<HeldShard>,
    /// No more of these messages follow.
    pub last: bool,
}

/// One listening socket an orphan has.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct HeldShard {
    /// The listener as its configuration has it.
    pub spec: ListenerSpec,
    /// Number of the socket among those of the listener, from 0.
    pub shard: u32,
    /// Number of sockets of this listener.
    pub shards: u32,
}

/// REATTACHED: the worker is an orphan no more and closes every older channel.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Reattached {
    /// Protocol version to use.
    pub proto: u16,
    /// Features both sides know.
    pub features: Vec<String>,
    /// Epoch of this supervisor, as in [`super::Welcome`].
    pub epoch: u64,
    /// The segment in which the epoch is counted. A worker that has another one cannot look there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os_id: String,
    /// Why the worker cannot come back; empty = it is back.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refused: String,
}

//! Listeners that a serving generation gives up while it goes on: `/drain_listeners`.
//!
//! ```text
//! worker                                   supervisor
//!   DRAIN_LISTENERS ──────────────────────→  lets no new connection in
//!         ←──────────────── RELEASE          the worker empties the queues and closes them
//!   ACK, RELEASED ────────────────────────→  closes its own copies: clients are refused
//! ```

use serde::{Deserialize, Serialize};

use crate::listener_key::ListenerKey;

/// Name of the feature in HELLO and WELCOME. Without it on both sides a worker can stop polling, but
/// the sockets stay open and clients wait.
pub const DRAIN_LISTENERS_FEATURE: &str = "drain-listeners-1";
/// Most bytes of keys in one message, as JSON; half of what a frame holds.
const MAX_KEYS_LEN: usize = 32 * 1024;

/// `DRAIN_LISTENERS`: nobody shall connect to these listeners any more, until the next generation.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct DrainListeners {
    /// The listeners.
    pub keys: Vec<ListenerKey>,
}

/// RELEASE: accept what waits on these listeners, close them, say RELEASED; acknowledged. No new
/// connection gets into their queues any more.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Release {
    /// The listeners.
    pub keys: Vec<ListenerKey>,
}

impl DrainListeners {
    /// The messages for these listeners: as many as it takes to fit into frames.
    pub fn messages(keys: impl IntoIterator<Item = ListenerKey>) -> Vec<Self> {
        let mut messages: Vec<Self> = Vec::new();
        let mut room = 0_usize;
        for key in keys {
            let length = serde_json::to_string(&key).map_or(MAX_KEYS_LEN, |json| json.len() + 1);
            match (room.checked_sub(length), messages.last_mut()) {
                (Some(rest), Some(last)) => {
                    room = rest;
                    last.keys.push(key);
                }
                _ => {
                    room = MAX_KEYS_LEN.saturating_sub(length);
                    messages.push(Self { keys: vec![key] });
                }
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::Generation,
        message::{FromWorker, ToWorker},
    };

    #[test]
    fn listeners_are_split_so_that_each_message_fits_into_a_frame() {
        let keys: Vec<_> =
            (0..16_384).map(|at| ListenerKey::unix(format!("/run/{at:0>90}"))).collect();
        let messages = DrainListeners::messages(keys.clone());
        for message in &messages {
            let release = Release { keys: message.keys.clone() };
            for frame in [
                FromWorker::from(message.clone()).to_frame(Generation(1), 1, 0),
                ToWorker::from(release).to_frame(Generation(1), 1, 0),
            ] {
                assert!(frame.expect("it fits").encode().is_ok());
            }
        }
        let told: Vec<_> = messages.into_iter().flat_map(|message| message.keys).collect();
        assert_eq!(told, keys, "all of them, in order");
        assert!(DrainListeners::messages([]).is_empty());
    }
}

//! Listeners that come and go while a generation serves.
//!
//! Those it gives up, because of `/drain_listeners` or because its configuration has them no more:
//!
//! ```text
//! worker                                   supervisor
//!   DRAIN_LISTENERS ──────────────────────→  lets no new connection in
//!         ←──────────────── RELEASE          the worker empties the queues and closes them
//!   ACK, RELEASED ────────────────────────→  closes its own copies: clients are refused
//! ```
//!
//! Those it needs in addition, once it could serve them:
//!
//! ```text
//!   NEED_LISTENERS, request N ────────────→  binds what is not held, each for itself; all accept
//!         ←──────────────── UNBOUND*         what could not be had, and why
//!         ←──────────────── LISTENERS* …, request N, last
//! ```

use serde::{Deserialize, Serialize};

use super::bodies::cut_to;
use crate::listener_key::ListenerKey;

/// Name of the feature in HELLO and WELCOME. Without it on both sides a worker can stop polling, but
/// the sockets stay open and clients wait.
pub const DRAIN_LISTENERS_FEATURE: &str = "drain-listeners-1";
/// Name of the feature in HELLO and WELCOME. Without it on both sides a generation keeps the listeners
/// it began with: it says neither `NEED_LISTENERS` again nor [`DrainListeners::removed`].
///
/// The socket of a listener accepts before the worker gets it, so it is asked for when it could be
/// served at once. Whatever the generation has meanwhile stays: it polls what it gives up until RELEASE
/// comes, and is given what it needs again after RELEASED only. What it asks while it is on its way,
/// paused, or an older one could still come back, waits until it serves alone; once it drains nothing
/// is answered.
pub const LIVE_LISTENERS_FEATURE: &str = "live-listeners-1";
/// Most bytes of keys in one message, as JSON; half of what a frame holds.
const MAX_KEYS_LEN: usize = 32 * 1024;

/// Longest reason in [`Unbound`], bytes.
const MAX_REASON_LEN: usize = 1024;

/// `DRAIN_LISTENERS`: nobody shall connect to these listeners any more, until the next generation.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct DrainListeners {
    /// The listeners.
    pub keys: Vec<ListenerKey>,
    /// The configuration of the generation has them no more. Otherwise somebody asked for it, and the
    /// next generation, or this one when it resumes, listens again. Unlike that it does not end the
    /// probation: it waits until no older generation could come back that has them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

/// UNBOUND: listeners of a `NEED_LISTENERS` that the generation does not get. It keeps the sockets it had
/// of them, with the options they had.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Unbound {
    /// Which, and why.
    pub listeners: Vec<UnboundListener>,
}

/// A listener that could not be bound, or could not be changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct UnboundListener {
    /// Which.
    pub key: ListenerKey,
    /// Why, as a failed reload says it.
    #[serde(default)]
    pub text: String,
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
    /// The messages for these listeners, as many as it takes to fit into frames, when somebody asked for
    /// it.
    pub fn messages(keys: impl IntoIterator<Item = ListenerKey>) -> Vec<Self> {
        split(keys).into_iter().map(|keys| Self { keys, removed: false }).collect()
    }

    /// The same when the configuration has them no more.
    pub fn removals(keys: impl IntoIterator<Item = ListenerKey>) -> Vec<Self> {
        split(keys).into_iter().map(|keys| Self { keys, removed: true }).collect()
    }
}

impl Release {
    /// The messages for these listeners: as many as it takes to fit into frames.
    pub fn messages(keys: impl IntoIterator<Item = ListenerKey>) -> Vec<Self> {
        split(keys).into_iter().map(|keys| Self { keys }).collect()
    }
}

impl Unbound {
    /// The messages for these listeners: as many as it takes to fit into frames. Reasons that are too
    /// long are cut.
    pub fn messages(listeners: impl IntoIterator<Item = UnboundListener>) -> Vec<Self> {
        let cut =
            |it: UnboundListener| UnboundListener { text: cut_to(&it.text, MAX_REASON_LEN), ..it };
        let parts = split(listeners.into_iter().map(cut));
        parts.into_iter().map(|listeners| Self { listeners }).collect()
    }
}

/// Parts of a list, each of which fits into a frame.
fn split<T: Serialize>(items: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let mut parts: Vec<Vec<T>> = Vec::new();
    let mut room = 0_usize;
    for item in items {
        let length = serde_json::to_string(&item).map_or(MAX_KEYS_LEN, |json| json.len() + 1);
        match (room.checked_sub(length), parts.last_mut()) {
            (Some(rest), Some(last)) => {
                room = rest;
                last.push(item);
            }
            _ => {
                room = MAX_KEYS_LEN.saturating_sub(length);
                parts.push(vec![item]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generation::Generation,
        message::{FromWorker, Listeners, NeedListeners, ToWorker},
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
        assert!(DrainListeners::removals(keys).iter().all(|message| message.removed));
    }

    #[test]
    fn reasons_are_split_and_cut_so_that_each_message_fits_into_a_frame() {
        let unbound = |at: usize| UnboundListener {
            key: ListenerKey::unix(format!("/run/{at}")),
            text: "\u{1}\"".repeat(at),
        };
        let messages = Unbound::messages((0..2000).map(unbound));
        assert!(messages.len() < 1000, "they would not fit into the queue of a channel");
        for message in &messages {
            let frame = ToWorker::from(message.clone()).to_frame(Generation(1), 1, 0);
            assert!(frame.expect("it fits").encode().is_ok());
        }
        let told = messages.into_iter().flat_map(|message| message.listeners);
        assert!(told.map(|it| it.key).eq((0..2000).map(|at| unbound(at).key)), "all, in order");
    }

    #[test]
    fn what_an_older_program_says_means_what_it_meant() {
        let drain: DrainListeners = serde_json::from_str(r#"{"keys":["unix:@a"]}"#).expect("old");
        assert!(!drain.removed);
        let need = r#"{"listeners":[],"last":true}"#;
        let NeedListeners { request, .. } = serde_json::from_str(need).expect("old");
        let Listeners { request: answered, .. } =
            serde_json::from_str(r#"{"manifest":[],"last":true}"#).expect("old");
        assert_eq!((request, answered), (0, 0));
        let own = NeedListeners { listeners: Vec::new(), last: true, request: 0 };
        assert_eq!(serde_json::to_string(&own).expect("text"), need, "and is told the same");
        let unbound: Unbound =
            serde_json::from_str(r#"{"listeners":[{"key":"unix:@a","x":1}]}"#).expect("newer");
        assert_eq!(unbound.listeners.first().map(|it| it.text.as_str()), Some(""));
    }
}

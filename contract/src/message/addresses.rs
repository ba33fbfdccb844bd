//! What names resolved to: told by workers, and given to new ones for the case that DNS fails.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Name of the feature in HELLO and WELCOME. A worker without it tells nothing and is given nothing.
pub const ADDRESSES_FEATURE: &str = "addresses-1";
/// Most names that are remembered or given to a worker. Of more, the last ones are left out.
pub const MAX_RESOLVED_NAMES: usize = 16_384;
/// Most addresses of one name that are remembered.
pub const MAX_REMEMBERED_ADDRESSES: usize = 256;
/// Most bytes of answers in one message, as JSON; half of what a frame holds.
const MAX_ANSWERS_LEN: usize = 32 * 1024;

/// ADDRESSES: the last good answers of DNS.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Addresses {
    /// What names resolved to.
    pub answers: Vec<Resolved>,
}

/// What a name resolved to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Resolved {
    /// The cluster that asked.
    pub cluster: String,
    /// The name.
    pub name: String,
    /// None: a generation serves without.
    pub addresses: Vec<IpAddr>,
}

impl Addresses {
    /// The messages for these answers: as many as it takes to fit into frames. Names that alone would
    /// fill a message are left out.
    pub fn messages(answers: impl IntoIterator<Item = Resolved>) -> Vec<Self> {
        let mut messages: Vec<Self> = Vec::new();
        let mut room = 0_usize;
        for mut answer in answers.into_iter().take(MAX_RESOLVED_NAMES) {
            answer.addresses.truncate(MAX_REMEMBERED_ADDRESSES);
            let length = serde_json::to_string(&answer).map_or(usize::MAX, |json| json.len());
            if length >= MAX_ANSWERS_LEN {
                continue;
            }
            match (room.checked_sub(length), messages.last_mut()) {
                (Some(rest), Some(last)) => {
                    room = rest;
                    last.answers.push(answer);
                }
                _ => {
                    room = MAX_ANSWERS_LEN - length;
                    messages.push(Self { answers: vec![answer] });
                }
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generation::Generation, message::ToWorker};

    #[test]
    fn answers_are_split_so_that_each_message_fits_into_a_frame() {
        let answer = |at: usize, count: usize| Resolved {
            cluster: format!("c{at}"),
            name: "\u{1}".repeat(200),
            addresses: vec![IpAddr::from([255_u16; 8]); count],
        };
        let long = Resolved { name: "x".repeat(MAX_ANSWERS_LEN), ..answer(0, 1) };
        let answers = (0..20_000).map(|at| answer(at, at % 2000)).chain([long]);
        let messages = Addresses::messages(answers);
        for message in &messages {
            let frame = ToWorker::from(message.clone()).to_frame(Generation(1), 1, 0);
            assert!(frame.expect("it fits").encode().is_ok());
        }
        let told: usize = messages.iter().map(|message| message.answers.len()).sum();
        assert_eq!(told, MAX_RESOLVED_NAMES);
    }
}

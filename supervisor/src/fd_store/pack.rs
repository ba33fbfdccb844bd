//! The listening sockets on their way to the program that is executed in place of this one.

use std::{os::fd::AsFd, path::PathBuf};

use baton_contract::listener_key::{ListenerKey, SocketOptions};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::{FdStore, Held, Inherited, Shard, bind};
use crate::reexec::{Baggage, BaggageError};

/// A listener without its sockets.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct HeldState {
    key: ListenerKey,
    #[serde(default)]
    options: SocketOptions,
    /// For each socket, whether it accepts.
    shards: Vec<bool>,
    #[serde(default)]
    width: usize,
    #[serde(default)]
    deaf: bool,
    #[serde(default)]
    adopted: bool,
    #[serde(default)]
    file: Option<(PathBuf, u64, u64)>,
}

/// All listeners without their sockets.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct StoreState {
    held: Vec<HeldState>,
    /// Names of sockets nobody asked for yet.
    inherited: Vec<String>,
}

impl FdStore {
    /// Puts all sockets into the baggage.
    pub(crate) fn pack(&self, baggage: &mut Baggage) -> Result<(), BaggageError> {
        let mut state = StoreState::default();
        for (key, held) in &self.held {
            for (number, shard) in held.shards.iter().enumerate() {
                baggage.put_fd(format!("listener.{key}.{number}"), shard.socket.as_fd())?;
            }
            state.held.push(HeldState {
                key: key.clone(),
                options: held.options.clone(),
                shards: held.shards.iter().map(|shard| shard.listening).collect(),
                width: held.width,
                deaf: held.deaf,
                adopted: held.adopted,
                file: held.file.clone(),
            });
        }
        for (number, inherited) in self.inherited.iter().enumerate() {
            baggage.put_fd(format!("inherited.{number}"), inherited.socket.as_fd())?;
            state.inherited.push(inherited.name.clone());
        }
        baggage.put("store", &state)
    }

    /// The store as it was packed.
    pub(crate) fn unpack(
        state: StoreState,
        baggage: &mut Baggage,
        program: PathBuf,
    ) -> Result<Self, BaggageError> {
        let mut store = Self { program, ..Self::default() };
        for held in state.held {
            let mut shards = Vec::new();
            for (number, listening) in held.shards.iter().enumerate() {
                let fd = baggage.take_fd(&format!("listener.{}.{number}", held.key))?;
                shards.push(Shard { socket: Socket::from(fd), listening: *listening });
            }
            let HeldState { key, options, width, deaf, adopted, file, .. } = held;
            store.held.insert(key, Held { options, shards, width, deaf, adopted, file });
        }
        for (number, name) in state.inherited.into_iter().enumerate() {
            let socket = Socket::from(baggage.take_fd(&format!("inherited.{number}"))?);
            let key = bind::key_of(&socket);
            store.inherited.push(Inherited { socket, name, key });
        }
        Ok(store)
    }
}

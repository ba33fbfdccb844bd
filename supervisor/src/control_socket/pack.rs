//! The control socket, its lock and its clients on their way to the program that is executed in
//! place of this one. Who waits for an upgrade gets its outcome on the same connection.

use std::{collections::BTreeMap, os::fd::AsFd, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Client, ControlSocket, home::Home};
use crate::{
    reexec::{Baggage, BaggageError},
    state::event::Waiter,
};

/// A client without its connection.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct ClientState {
    number: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    asked: bool,
    last: bool,
}

/// Everything but descriptors.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ControlState {
    clients: Vec<ClientState>,
    next: u64,
}

impl ControlSocket {
    /// Puts everything into the baggage.
    pub(crate) fn pack(&self, baggage: &mut Baggage) -> Result<(), BaggageError> {
        baggage.put_fd("control.lock".to_owned(), self.home.lock_file())?;
        baggage.put_fd("control.listener".to_owned(), self.listener.as_fd())?;
        let mut state = ControlState { clients: Vec::new(), next: self.next };
        for (Waiter(number), client) in &self.clients {
            baggage.put_fd(format!("control.client.{number}"), client.stream.as_fd())?;
            state.clients.push(ClientState {
                number: *number,
                input: client.input.clone(),
                output: client.output.clone(),
                asked: client.asked,
                last: client.last,
            });
        }
        baggage.put("control", &state)
    }

    /// The control socket as it was packed.
    pub(crate) fn unpack(
        state: ControlState,
        baggage: &mut Baggage,
        socket: PathBuf,
    ) -> Result<Self, BaggageError> {
        let lock = baggage.take_fd("control.lock")?;
        let home = Home::restore(socket, lock).map_err(BaggageError::Read)?;
        let listener = baggage.take_fd("control.listener")?.into();
        let mut clients = BTreeMap::new();
        for client in state.clients {
            let ClientState { number, input, output, asked, last } = client;
            // One that is missing would only miss its answer.
            if let Ok(stream) = baggage.take_fd(&format!("control.client.{number}")) {
                let client = Client { stream: stream.into(), input, output, asked, last };
                clients.insert(Waiter(number), client);
            }
        }
        Ok(Self { listener, clients, next: state.next, home, leaves: false })
    }
}

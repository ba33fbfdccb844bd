//! The channel to another generation, over which connections move.

use std::os::fd::OwnedFd;

use baton_contract::{
    channel::Channel,
    generation::Generation,
    peer::{Message, PeerError},
};

use super::wire::{Wire, WireError};

/// Why a message did not leave.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerLinkError {
    /// The channel is of no use any more.
    #[error("the channel to the other generation failed")]
    Wire(#[from] WireError),
    /// This message cannot be sent.
    #[error("cannot encode a message to the other generation")]
    Encode(#[from] PeerError),
}

/// One end of the channel.
#[derive(Debug)]
pub struct PeerLink {
    wire: Wire,
    generation: Generation,
    last_seq: u64,
}

impl PeerLink {
    /// Takes over this worker's end. `generation` is its own number.
    ///
    /// # Errors
    /// When it cannot be polled.
    pub fn new(end: OwnedFd, generation: Generation) -> Result<Self, WireError> {
        let channel = Channel::from_fd(end).map_err(WireError::Io)?;
        Ok(Self { wire: Wire::new(channel)?, generation, last_seq: 0 })
    }

    /// Sends a message, or keeps it until the socket takes it.
    ///
    /// # Errors
    /// When the other side is gone, has not read for a long time, or the message is too long.
    pub fn send(&mut self, message: &Message, fds: Vec<OwnedFd>) -> Result<(), PeerLinkError> {
        self.last_seq += 1;
        let count = u16::try_from(fds.len()).unwrap_or(u16::MAX);
        let frame = message.to_frame(self.generation, self.last_seq, count)?;
        Ok(self.wire.send(frame, fds)?)
    }

    /// The next message; `None` when the other side is gone. What is not understood is left out:
    /// an offer that is not answered stays where it is.
    ///
    /// # Errors
    /// When the socket fails.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, WireError> {
        loop {
            let Some((frame, fds)) = self.wire.recv().await? else { return Ok(None) };
            match Message::from_frame(&frame) {
                Ok(message) => return Ok(Some((message, fds))),
                Err(error) => {
                    tracing::error!(%error, "a message of another generation was left out");
                }
            }
        }
    }
}

//! Frames both ways over a channel, never waiting for the other side: what cannot be sent at once
//! waits in a bounded queue and leaves when the socket is writable.

use std::{io, os::fd::OwnedFd};

use baton_contract::{
    channel::{Channel, Flushed, Outbox, OutboxError, ReceiveError},
    frame::Frame,
};
use tokio::io::{Interest, Ready, unix::AsyncFd};

/// Why a channel can no longer be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The socket cannot be polled or read.
    #[error("cannot use the channel")]
    Io(#[source] io::Error),
    /// A frame cannot be sent.
    #[error("cannot send")]
    Send(#[source] OutboxError),
}

/// A channel with its queue.
#[derive(Debug)]
pub struct Wire {
    channel: AsyncFd<Channel>,
    outbox: Outbox,
}

impl Wire {
    /// Takes over a channel. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be polled.
    pub fn new(channel: Channel) -> Result<Self, WireError> {
        #[expect(
            deprecated,
            reason = "`register` is unsafe; a channel keeps its descriptor for life, which is all it asks"
        )]
        let channel = AsyncFd::new(channel).map_err(WireError::Io)?;
        Ok(Self { channel, outbox: Outbox::default() })
    }

    /// The socket.
    pub fn channel(&self) -> &Channel {
        self.channel.get_ref()
    }

    /// Sends a frame with its descriptors, or keeps it until the socket takes it.
    ///
    /// # Errors
    /// When the other side is gone or has not read for a long time.
    pub fn send(&mut self, frame: Frame, fds: Vec<OwnedFd>) -> Result<(), WireError> {
        self.outbox.push(frame, fds).map_err(WireError::Send)?;
        self.flush().map(drop)
    }

    /// Whether nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The next frame; `None` when the other side is gone. Packets that are no frames are left
    /// out. Sends what waits meanwhile.
    ///
    /// # Errors
    /// When the socket fails.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is taken from the socket before it is returned.
    pub async fn recv(&mut self) -> Result<Option<(Frame, Vec<OwnedFd>)>, WireError> {
        loop {
            match self.channel.get_ref().recv() {
                Ok(received) => return Ok(received),
                Err(ReceiveError::Empty) => self.wait().await?,
                Err(ReceiveError::Io(error)) => return Err(WireError::Io(error)),
                // The packet is gone; whoever waits for it notices by a deadline.
                Err(error) => tracing::error!(%error, "a message was lost"),
            }
        }
    }

    /// Waits until everything was handed to the socket.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn drain(&mut self) -> Result<(), WireError> {
        while self.flush()? == Flushed::Waiting {
            let mut guard = self.channel.writable().await.map_err(WireError::Io)?;
            guard.clear_ready();
        }
        Ok(())
    }

    /// Waits until there may be something to receive; sends when that is possible.
    async fn wait(&mut self) -> Result<(), WireError> {
        let waiting = self.flush()? == Flushed::Waiting;
        let interest =
            if waiting { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let mut guard = self.channel.ready(interest).await.map_err(WireError::Io)?;
        // `recv` and `flush` come next and say whether this was true.
        guard.clear_ready_matching(Ready::READABLE | Ready::READ_CLOSED | Ready::WRITABLE);
        Ok(())
    }

    fn flush(&mut self) -> Result<Flushed, WireError> {
        self.outbox.flush(self.channel.get_ref()).map_err(WireError::Send)
    }
}

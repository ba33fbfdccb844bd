//! Frames that wait until the channel is writable, in order, with a bound.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
};

use super::{Channel, SendError};
use crate::frame::Frame;

/// Most frames that may wait. 64 frames of 253 descriptors are 16,192 listeners.
const MAX_WAITING: usize = 1024;

/// Why a frame was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The other side has not read for a long time.
    #[error("{MAX_WAITING} frames wait already")]
    Full,
    /// The channel failed.
    #[error("cannot send")]
    Send(#[source] SendError),
}

/// What is left after a flush.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flushed {
    /// Nothing waits.
    All,
    /// Wait until the channel is writable, then flush again.
    Waiting,
}

/// Queue in front of a [`Channel`].
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<(Frame, Vec<OwnedFd>)>,
}

impl Outbox {
    /// Puts a frame at the end. Call [`Self::flush`] afterwards.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn push(&mut self, frame: Frame, fds: Vec<OwnedFd>) -> Result<(), OutboxError> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(OutboxError::Full);
        }
        self.waiting.push_back((frame, fds));
        Ok(())
    }

    /// Sends what the channel takes.
    ///
    /// # Errors
    /// When the channel failed; the frame it failed on stays at the front.
    pub fn flush(&mut self, channel: &Channel) -> Result<Flushed, OutboxError> {
        while let Some((frame, fds)) = self.waiting.front() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match channel.send(frame, &borrowed) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(SendError::Full) => return Ok(Flushed::Waiting),
                Err(error) => return Err(OutboxError::Send(error)),
            }
        }
        Ok(Flushed::All)
    }

    /// What waits, in order.
    pub fn waiting(&self) -> impl Iterator<Item = (&Frame, &[OwnedFd])> {
        self.waiting.iter().map(|(frame, fds)| (frame, fds.as_slice()))
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

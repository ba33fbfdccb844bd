//! A tunnel taken apart: all of its state as plain data and copies of its descriptors, to be put
//! together again in the same or in another process.
//!
//! ```text
//! Tunnel ──export──▶ TunnelParts ──import──▶ Tunnel
//!   │ frozen: must not be polled
//!   ├── the other side owns it ──▶ drop both: nothing is sent to either peer
//!   └── it does not ──▶ drop the parts, poll again: nothing has happened
//! ```
//!
//! Lossless at any moment between two polls. As the descriptors are copies, closing one set sends
//! no FIN while the other is open. Exactly one side may read, write or shut down.
//!
//! Not here: how parts are written into a message.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{
    Limits, RESET_CHECK, Side, Tunnel,
    buffers::Held,
    pump::{Direction, Progress},
    splice::Pipe,
};
use crate::transport::Stream;

/// A tunnel taken apart.
#[derive(Debug)]
pub struct TunnelParts {
    /// The client's socket.
    pub downstream: OwnedFd,
    /// The endpoint's socket.
    pub upstream: OwnedFd,
    /// From the client to the endpoint.
    pub to_upstream: DirectionParts,
    /// From the endpoint to the client.
    pub to_downstream: DirectionParts,
    /// Time since a byte moved last.
    pub idle: Duration,
    /// The side whose end was passed on first.
    pub first_end: Option<Side>,
    /// The side that failed; the other one gets what is left and is reset then.
    pub failed: Option<Side>,
    /// How long the reset still waits for the survivor to take what is left, once it waits.
    pub reset_within: Option<Duration>,
}

/// One direction of a tunnel taken apart.
#[derive(Debug)]
pub struct DirectionParts {
    /// Bytes that were read and not written, which go before those in the pipe.
    pub held: Vec<u8>,
    /// A pipe with bytes in it, or any pipe if it is kept.
    pub pipe: Option<PipeParts>,
    /// No byte is in a process only, see [`Tunnel::keep`].
    pub kept: bool,
    /// Small messages may go without the pipe, because the record in escrow says the lead.
    pub passes: bool,
    /// The source sent its end, which may still wait behind the bytes that are on their way.
    pub source_ended: bool,
    /// What the direction has come to.
    pub progress: Progress,
    /// Bytes written to the sink.
    pub bytes: u64,
    /// Those of them that went through a pipe.
    pub spliced: u64,
    /// Bytes of large reads in a row, which decide when the pipe is used.
    pub bulk_run: usize,
}

/// A pipe with bytes in it. How many is asked of the kernel.
#[derive(Debug)]
pub struct PipeParts {
    /// The end to read from.
    pub read: OwnedFd,
    /// The end to write to.
    pub write: OwnedFd,
}

impl TunnelParts {
    /// Takes bytes out of the account that went through the sockets before the tunnel began, to the
    /// endpoint and to the client.
    pub fn not_counting(&mut self, (up, down): (u64, u64)) {
        for (direction, before) in [(&mut self.to_upstream, up), (&mut self.to_downstream, down)] {
            direction.bytes = direction.bytes.saturating_sub(before);
            direction.spliced = direction.spliced.saturating_sub(before);
        }
    }
}

impl Tunnel {
    /// Takes a frozen tunnel apart. The tunnel must not be polled while the parts may be in use:
    /// drop it when they are (which sends nothing to the peers, as the sockets stay open there),
    /// or drop the parts and go on polling.
    ///
    /// # Errors
    /// When a descriptor cannot be copied, usually because there are too many; nothing has
    /// happened then.
    pub fn export(&self, now: Instant) -> io::Result<TunnelParts> {
        Ok(TunnelParts {
            downstream: self.downstream.duplicate()?,
            upstream: self.upstream.duplicate()?,
            to_upstream: self.to_upstream.export()?,
            to_downstream: self.to_downstream.export()?,
            idle: now.saturating_duration_since(self.last_activity),
            first_end: self.first_end,
            failed: self.failed,
            reset_within: self.resetting.map(|(_, give_up)| give_up.saturating_duration_since(now)),
        })
    }

    /// Puts a tunnel together. Poll it at once: what was ready before is ready now.
    ///
    /// # Errors
    /// When a descriptor is not what it should be or cannot be watched. The descriptors are
    /// closed then, which sends nothing while the exporter still has its own.
    pub fn import(parts: TunnelParts, limits: Limits, now: Instant) -> io::Result<Self> {
        Ok(Self {
            downstream: Stream::adopt(parts.downstream)?,
            upstream: Stream::adopt(parts.upstream)?,
            to_upstream: Direction::import(parts.to_upstream, limits)?,
            to_downstream: Direction::import(parts.to_downstream, limits)?,
            limits,
            // A clock that is younger than that cannot say it; then the idle time begins anew.
            last_activity: now.checked_sub(parts.idle).unwrap_or(now),
            first_end: parts.first_end,
            failed: parts.failed,
            resetting: parts.reset_within.map(|left| (now + left.min(RESET_CHECK), now + left)),
            hold: None,
        })
    }
}

impl Direction {
    fn export(&self) -> io::Result<DirectionParts> {
        let pipe = match &self.pipe {
            Some(pipe) if pipe.filled() > 0 || self.kept => {
                let (read, write) = pipe.duplicate()?;
                Some(PipeParts { read, write })
            }
            Some(_) | None => None,
        };
        Ok(DirectionParts {
            held: self.held.bytes().to_vec(),
            pipe,
            kept: self.kept,
            passes: self.passes,
            source_ended: self.source_ended,
            progress: self.outcome(),
            bytes: self.bytes,
            spliced: self.spliced,
            bulk_run: self.run,
        })
    }

    fn import(parts: DirectionParts, limits: Limits) -> io::Result<Self> {
        let pipe = parts.pipe.map(|ends| Pipe::adopt(ends.read, ends.write)).transpose()?;
        Ok(Self {
            held: Held::copy_of(&parts.held),
            kept: parts.kept && pipe.is_some(),
            passes: parts.passes && parts.kept && pipe.is_some(),
            pipe,
            run: parts.bulk_run,
            source_ended: parts.source_ended,
            outcome: parts.progress,
            bytes: parts.bytes,
            spliced: parts.spliced,
            ..Self::new(&[], limits.splice)
        })
    }
}

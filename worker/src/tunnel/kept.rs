//! Tunnels whose whole state is in the kernel: two TCP sockets and a pipe for each direction. Whoever
//! has copies of the six descriptors can go on with it after this process died at any instruction.
//!
//! ```text
//!            ┌ splice ─▶ pipe ─ splice ┐
//! downstream ┤                         ├ upstream        what is small is passed on before it is
//!            └ splice ◀─ pipe ◀─ splice┘                  taken, see `pass` and `lead`
//! ```
//! What the one who goes on has to find out, it asks the kernel: how much is in the pipes, how many
//! bytes went through, since when nothing came. An end that was seen is seen again by reading, and
//! is passed on again, which changes nothing if it was passed on already. Only a failure is seen
//! just once; that a socket is over whose peer never ended it gives it away.
//!
//! As descriptors may be open elsewhere, the end of a kept tunnel is sent by `shutdown(2)`, and a
//! reset by disconnecting; closing alone would send nothing.

use std::{io, os::fd::OwnedFd};

use baton_contract::shm::EscrowId;

use super::{
    DirectionParts, PipeParts, Progress, Side, Tunnel, TunnelParts,
    lead::{Lead, Leads, Restored},
    pump::Splice,
};
use crate::{
    escrow::Hold,
    sys::{receive_queue, tcp},
    transport::Stream,
};

/// Descriptors of a kept tunnel.
pub const DESCRIPTORS: usize = 6;

/// What somebody else needs to go on with a kept tunnel.
#[derive(Debug)]
pub struct KeptParts {
    /// The client's socket.
    pub downstream: OwnedFd,
    /// The endpoint's socket.
    pub upstream: OwnedFd,
    /// From the client to the endpoint.
    pub to_upstream: PipeParts,
    /// From the endpoint to the client.
    pub to_downstream: PipeParts,
}

impl KeptParts {
    /// The descriptors in a fixed order.
    pub fn into_descriptors(self) -> [OwnedFd; DESCRIPTORS] {
        let (up, down) = (self.to_upstream, self.to_downstream);
        [self.downstream, self.upstream, up.read, up.write, down.read, down.write]
    }

    /// Takes descriptors in the same order.
    pub fn from_descriptors(descriptors: [OwnedFd; DESCRIPTORS]) -> Self {
        let [downstream, upstream, up_read, up_write, down_read, down_write] = descriptors;
        Self {
            downstream,
            upstream,
            to_upstream: PipeParts { read: up_read, write: up_write },
            to_downstream: PipeParts { read: down_read, write: down_write },
        }
    }

    /// Bytes that went through the sockets to the endpoint and to the client, in the tunnel and before
    /// it.
    ///
    /// # Errors
    /// When a descriptor is not what it should be.
    pub fn bytes(&self) -> io::Result<(u64, u64)> {
        let (down, up) = (tcp::info(&self.downstream)?, tcp::info(&self.upstream)?);
        Ok((
            written(&self.downstream, down.received, &self.to_upstream)?,
            written(&self.upstream, up.received, &self.to_downstream)?,
        ))
    }

    /// How far the two sides of each direction are apart.
    ///
    /// # Errors
    /// When a descriptor is not what it should be.
    fn leads(&self) -> io::Result<Leads> {
        Ok(Leads {
            up: Lead::of(&self.downstream, &self.to_upstream.read, &self.upstream)?,
            down: Lead::of(&self.upstream, &self.to_downstream.read, &self.downstream)?,
        })
    }

    /// Takes from each source what its sink has already. `leads` is what they were when the tunnel
    /// was kept. Returns the side that was reset in such a way that the rest of it is lost.
    fn restore(&self, leads: Leads) -> io::Result<Option<Side>> {
        let (down, up) = (&self.downstream, &self.upstream);
        let to_up = leads.up.restore(down, &self.to_upstream.read, up)?;
        let to_down = leads.down.restore(up, &self.to_downstream.read, down)?;
        Ok(match (to_up, to_down) {
            (Restored::Broken, _) => Some(Side::Downstream),
            (_, Restored::Broken) => Some(Side::Upstream),
            (Restored::Whole, Restored::Whole) => None,
        })
    }

    /// What the kernel knows about the tunnel, whose process is dead. `leads` is what [`Tunnel::keep`]
    /// returned there; without them all bytes must have gone through the pipes.
    ///
    /// # Errors
    /// When a descriptor is not what it should be, or bytes are missing.
    pub fn inspect(self, leads: Option<Leads>) -> io::Result<TunnelParts> {
        let broken = leads.map_or(Ok(None), |leads| self.restore(leads))?;
        let (mut down, mut up) = (tcp::info(&self.downstream)?, tcp::info(&self.upstream)?);
        // As in the dead process: not once an end was passed on.
        let passes = leads.is_some() && down.we_go_on() && up.we_go_on();
        let failed = if broken.is_some() {
            broken
        } else if down.is_closed() && up.peer_goes_on() {
            Some(Side::Downstream)
        } else if up.is_closed() && down.peer_goes_on() {
            Some(Side::Upstream)
        } else {
            None
        };
        for (side, info) in [(Side::Downstream, &mut down), (Side::Upstream, &mut up)] {
            if info.is_closed() && failed != Some(side) {
                // Its end took a place in the sequence numbers.
                info.received = info.received.saturating_sub(1);
            }
        }
        let bytes_up = written(&self.downstream, down.received, &self.to_upstream)?;
        let bytes_down = written(&self.upstream, up.received, &self.to_downstream)?;
        Ok(TunnelParts {
            downstream: self.downstream,
            upstream: self.upstream,
            to_upstream: DirectionParts {
                passes,
                ..direction(self.to_upstream, bytes_up, failed == Some(Side::Upstream))
            },
            to_downstream: DirectionParts {
                passes,
                ..direction(self.to_downstream, bytes_down, failed == Some(Side::Downstream))
            },
            idle: down.last_received.min(up.last_received),
            first_end: None,
            failed,
            reset_within: None,
        })
    }
}

/// Bytes that came from a socket and went through a pipe. What comes meanwhile may make it fewer.
fn written(from: &OwnedFd, received: u64, pipe: &PipeParts) -> io::Result<u64> {
    let unread = receive_queue::readable(from)?;
    let on_the_way = unread.saturating_add(receive_queue::readable(&pipe.read)?);
    Ok(received.saturating_sub(on_the_way as u64))
}

/// A direction of which only the kernel knows anything; `hopeless` when its sink is gone.
fn direction(pipe: PipeParts, bytes: u64, hopeless: bool) -> DirectionParts {
    DirectionParts {
        held: Vec::new(),
        pipe: Some(pipe),
        kept: true,
        passes: false,
        source_ended: false,
        progress: if hopeless { Progress::SinkFailed } else { Progress::Waiting },
        bytes,
        spliced: bytes,
        bulk_run: 0,
    }
}

impl Tunnel {
    /// Whether all of its state can be in the kernel now: both ends are TCP, nothing has failed, and
    /// no byte is in this process.
    pub fn can_be_kept(&self) -> bool {
        let tcp = [&self.downstream, &self.upstream]
            .iter()
            .all(|stream| matches!(stream, Stream::Tcp(_)));
        tcp && self.failed.is_none()
            && self.limits.splice != Splice::Never
            && [&self.to_upstream, &self.to_downstream].iter().all(|direction| {
                direction.held.bytes().is_empty() && direction.splice != Splice::Never
            })
    }

    /// Keeps all state in the kernel from now on, and returns copies of the descriptors. Who goes on
    /// with them needs the leads, if there are any: once an end was passed on, all bytes go through the
    /// pipes.
    ///
    /// # Errors
    /// When there are no descriptors or no memory for pipes; the tunnel goes on as it was.
    pub fn keep(&mut self) -> io::Result<(KeptParts, Option<Leads>)> {
        let waits = |direction: &super::Direction| direction.outcome() == Progress::Waiting;
        let may_pass = waits(&self.to_upstream) && waits(&self.to_downstream);
        let kept = self.to_upstream.keep().and_then(|()| self.to_downstream.keep());
        let copies = kept.and_then(|()| self.copies());
        let copies = copies.and_then(|parts| {
            let leads = may_pass.then(|| parts.leads()).transpose()?;
            Ok((parts, leads))
        });
        let passes = copies.as_ref().is_ok_and(|(_, leads)| leads.is_some());
        for direction in [&mut self.to_upstream, &mut self.to_downstream] {
            (direction.kept, direction.passes) = (copies.is_ok(), passes);
        }
        copies
    }

    /// Its name in escrow, if a supervisor has copies and they are enough to go on with it.
    pub fn name_in_escrow(&self) -> Option<EscrowId> {
        self.hold.as_ref().filter(|hold| self.is_kept() && !hold.is_stale()).map(Hold::id)
    }

    /// Whether all of its state is in the kernel.
    pub(super) fn is_kept(&self) -> bool {
        self.to_upstream.kept && self.to_downstream.kept
    }

    fn copies(&self) -> io::Result<KeptParts> {
        let pipe = |direction: &super::Direction| {
            let pipe = direction.pipe.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let (read, write) = pipe.duplicate()?;
            io::Result::Ok(PipeParts { read, write })
        };
        Ok(KeptParts {
            downstream: self.downstream.duplicate()?,
            upstream: self.upstream.duplicate()?,
            to_upstream: pipe(&self.to_upstream)?,
            to_downstream: pipe(&self.to_downstream)?,
        })
    }
}

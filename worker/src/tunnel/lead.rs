//! How far the sink of a direction is ahead of its source, as the kernel counts.
//!
//! ```text
//! lead = bytes written to the sink − (bytes taken from the source − bytes in the pipe)
//! ```
//! Both sockets have counted since they were opened, so the lead is any number; but it is the same
//! whenever a tunnel waits, over moves and deaths too. Between sending a message and taking it from the
//! source (`pass`) it is larger by the message. Who goes on with a tunnel whose process died in that
//! moment sees how much larger, and takes as much from the source: each byte arrives once.
//!
//! The end of a stream counts as a byte, too. As long as a socket is open its state says whether it
//! came, but not when both sides are done with it. That is why nothing is passed in this way any more
//! once one direction came to its end, and a tunnel kept only then has no leads: what is over is over by
//! a reset, unless the end counted and nothing was being passed. What a peer sent before it reset the
//! connection is given up when nobody can say how much of it is delivered, and what cannot be right at
//! all, such as a smaller lead, is an error: better no connection than a wrong byte.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::sys::{receive_queue, send_queue, tcp};

use super::pass;

/// So often counts that change while they are read are read again. They change only when the peer
/// sends or acknowledges something meanwhile.
const TRIES: usize = 1000;
/// Bytes taken at once of what the sink has already. No message is larger.
const PIECE: usize = 16 * 1024;
/// What a sink is ahead when all is delivered and the end of the source counts: one less.
const END: u64 = u64::MAX;

/// How far one direction's sink is ahead. Wraps around.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lead(pub u64);

/// How far the sinks of both directions are ahead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Leads {
    /// From the client to the endpoint.
    pub up: Lead,
    /// From the endpoint to the client.
    pub down: Lead,
}

/// What is left of a direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Restored {
    /// All that its sink has not.
    Whole,
    /// Nothing: its source was reset, and nobody can say how much of the rest the sink has.
    Broken,
}

/// What the kernel counts in one direction. The source may get more and come to its end at any time;
/// all that is said about it here is of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    lead: Lead,
    /// Bytes in the receive queue of the source.
    unread: usize,
    /// The source is over: reset, or ended by both sides. Its end may count then.
    over: bool,
}

impl Counts {
    /// # Errors
    /// When a descriptor is not what it should be, or a peer is so busy that the counts never rest.
    pub(super) fn of(source: &OwnedFd, pipe: &OwnedFd, sink: &OwnedFd) -> io::Result<Self> {
        let on_the_way = receive_queue::readable(pipe)? as u64;
        let about_source = |info: &tcp::Info| (info.received, info.is_closed());
        let (from, unread) = at_rest(source, about_source, receive_queue::readable)?;
        let (to, queued) = at_rest(sink, |info| info.acknowledged, send_queue::unacknowledged)?;
        let came_out = from.received.wrapping_sub(unread as u64).wrapping_sub(on_the_way);
        let written = to.acknowledged.wrapping_add(queued as u64);
        Ok(Self { lead: Lead(written.wrapping_sub(came_out)), unread, over: from.is_closed() })
    }
}

impl Lead {
    /// That of a direction that waits and never passed an end on.
    ///
    /// # Errors
    /// As [`Counts::of`].
    pub(super) fn of(source: &OwnedFd, pipe: &OwnedFd, sink: &OwnedFd) -> io::Result<Self> {
        Ok(Counts::of(source, pipe, sink)?.lead)
    }

    /// Takes what the sink has already from the source of a direction whose process is dead.
    ///
    /// # Errors
    /// When bytes are missing, or as [`Counts::of`].
    pub(super) fn restore(
        self,
        source: &OwnedFd,
        pipe: &OwnedFd,
        sink: &OwnedFd,
    ) -> io::Result<Restored> {
        let counts = Counts::of(source, pipe, sink)?;
        if !tcp::info(sink)?.we_go_on() {
            // Either everything was delivered before our end was sent, or nothing can be any more.
            return Ok(Restored::Whole);
        }
        self.restore_counted(counts, source)
    }

    /// The same with what was counted, whatever happened to the source since.
    pub(super) fn restore_counted(self, counts: Counts, source: &OwnedFd) -> io::Result<Restored> {
        let Counts { lead, unread, over } = counts;
        let ahead = lead.0.wrapping_sub(self.0);
        if over {
            if ahead == END || unread == 0 {
                return Ok(Restored::Whole);
            }
            discard(source, unread)?;
            return Ok(Restored::Broken);
        }
        match usize::try_from(ahead) {
            Ok(ahead) if ahead <= unread.min(PIECE) => discard(source, ahead)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(Restored::Whole)
    }
}

/// Throws bytes of a receive queue away.
fn discard(source: &OwnedFd, mut bytes: usize) -> io::Result<()> {
    let mut room = vec![0; PIECE];
    while bytes > 0 {
        let piece = bytes.min(room.len());
        pass::take(&source.as_raw_fd(), &mut room[..piece])?;
        bytes -= piece;
    }
    Ok(())
}

/// Reads what the kernel says about a socket and the length of a queue, both of one moment: `what` is
/// the same before and after the queue is asked.
fn at_rest<T: Eq>(
    socket: &OwnedFd,
    what: impl Fn(&tcp::Info) -> T,
    queue: impl Fn(&OwnedFd) -> io::Result<usize>,
) -> io::Result<(tcp::Info, usize)> {
    let mut before = tcp::info(socket)?;
    for _ in 0..TRIES {
        let queued = queue(socket)?;
        let after = tcp::info(socket)?;
        if what(&before) == what(&after) {
            return Ok((before, queued));
        }
        before = after;
    }
    Err(io::ErrorKind::TimedOut.into())
}

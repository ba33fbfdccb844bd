//! Moves bytes both ways between two streams until both ended: TCP proxying, upgraded HTTP
//! connections and CONNECT.
//!
//! ```text
//!            to_upstream (Direction)
//! downstream ─────────────────────────▶ upstream
//!            ◀─────────────────────────
//!            to_downstream (Direction)
//! ```
//!
//! - The end of one direction (FIN) is passed on and the other direction goes on.
//! - A stream that fails (RST) makes the other one be reset too, after everything the failed one
//!   had sent was delivered.
//! - All state is plain data in [`Tunnel`], so that it can be taken apart and put together in
//!   another process at any moment between two polls, see [`TunnelParts`].
//!
//! Not here: timers. The caller wakes the task at [`Tunnel::deadline`] and polls again.

mod buffers;
mod keeping;
mod kept;
mod lead;
mod parts;
mod pass;
mod pump;
pub(crate) mod splice;
#[cfg(test)]
mod tests;

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use self::pump::Direction;
pub use self::{
    keeping::{Due, Keeping, Papers},
    kept::{DESCRIPTORS, KeptParts},
    lead::{Lead, Leads},
    parts::{DirectionParts, PipeParts, TunnelParts},
    pump::{Progress, Splice},
};
use crate::{
    escrow::{Hold, Owner},
    sys::send_queue,
    transport::Stream,
};

/// How long a reset waits for the peer to take what was sent before it, at most.
const RESET_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether the peer has.
const RESET_CHECK: Duration = Duration::from_millis(20);

/// What bounds a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The tunnel ends when no byte moved for this long; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// Whether bulk may go through pipes.
    pub splice: Splice,
}

/// One end of a tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The client.
    Downstream,
    /// The endpoint.
    Upstream,
}

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndCause {
    /// Both sides ended their half; this one did first.
    Closed(Side),
    /// This side failed, usually by a reset; the other one is reset when the tunnel is dropped.
    Reset(Side),
    /// No byte moved for the idle timeout.
    IdleTimeout,
    /// A direction said that it got further, and did not: a fault of ours. Both sides are reset when the
    /// tunnel is dropped.
    Stuck,
}

/// The end of a tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TunnelEnd {
    /// Why.
    pub cause: EndCause,
    /// Bytes written to the client.
    pub bytes_downstream: u64,
    /// Bytes written to the endpoint.
    pub bytes_upstream: u64,
}

/// Two streams and what is on its way between them.
#[derive(Debug)]
pub struct Tunnel {
    downstream: Stream,
    upstream: Stream,
    to_upstream: Direction,
    to_downstream: Direction,
    limits: Limits,
    last_activity: Instant,
    /// The side whose end was passed on first.
    first_end: Option<Side>,
    /// The side that failed.
    failed: Option<Side>,
    /// While the survivor of a failure takes the last bytes: when to look, when to give up.
    resetting: Option<(Instant, Instant)>,
    /// Somebody else has copies of the descriptors, so that closing ours says nothing to the peers.
    hold: Option<Hold>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            // In this order: a tunnel that is to be taken over must not have been ended.
            hold.end();
            self.downstream.end_now();
            self.upstream.end_now();
        }
    }
}

impl Tunnel {
    /// Joins two streams. `from_downstream` and `from_upstream` are bytes that were read from
    /// there already and go first.
    pub fn new(
        (downstream, from_downstream): (Stream, &[u8]),
        (upstream, from_upstream): (Stream, &[u8]),
        limits: Limits,
        now: Instant,
    ) -> Self {
        Self {
            downstream,
            upstream,
            to_upstream: Direction::new(from_downstream, limits.splice),
            to_downstream: Direction::new(from_upstream, limits.splice),
            limits,
            last_activity: now,
            first_end: None,
            failed: None,
            resetting: None,
            hold: None,
        }
    }

    /// Forgets a tunnel that lives on in another process: nothing is sent to the peers.
    pub fn release(mut self, owner: Option<Owner>) {
        match self.hold.take() {
            Some(hold) if self.is_kept() => hold.give(owner),
            // It went without a name: the copies are of no use, and would keep it open.
            Some(hold) => hold.end(),
            None => {}
        }
    }

    /// When the task must poll again even if nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        match self.resetting {
            Some((check, _)) => Some(check),
            None => self.limits.idle_timeout.map(|idle| self.last_activity + idle),
        }
    }

    /// The side of the endpoint.
    pub fn upstream(&self) -> &Stream {
        &self.upstream
    }

    /// When a byte moved last, as given to [`Self::poll`].
    pub fn last_activity(&self) -> Instant {
        self.last_activity
    }

    /// Bytes written to the client and to the endpoint so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.to_downstream.bytes, self.to_upstream.bytes)
    }

    /// Bytes that went through pipes, both directions together.
    pub fn bytes_spliced(&self) -> u64 {
        self.to_downstream.spliced + self.to_upstream.spliced
    }

    /// Bytes read and not yet taken by the kernel, both directions together.
    pub fn bytes_on_the_way(&self) -> usize {
        self.to_upstream.on_the_way() + self.to_downstream.on_the_way()
    }

    /// Moves what can be moved. After `Ready` the tunnel is to be dropped, which closes both
    /// streams: by FIN, or by RST where a side failed.
    pub fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<TunnelEnd> {
        let mut moved = false;
        let (down, up) = (&mut self.downstream, &mut self.upstream);
        let before = self.to_upstream.outcome();
        let outcome = self.to_upstream.poll(down, up, cx, &mut moved);
        if outcome != before {
            self.settled(Side::Downstream, outcome);
        }
        let (down, up) = (&mut self.downstream, &mut self.upstream);
        let before = self.to_downstream.outcome();
        let outcome = self.to_downstream.poll(up, down, cx, &mut moved);
        if outcome != before {
            self.settled(Side::Upstream, outcome);
        }
        if moved {
            self.last_activity = now;
        }
        if let Some(hold) = self.hold.as_ref().filter(|_| !self.is_kept()) {
            // The kernel would not splice after all.
            hold.suspend();
        }
        self.ended(now).map(|cause| TunnelEnd {
            cause,
            bytes_downstream: self.to_downstream.bytes,
            bytes_upstream: self.to_upstream.bytes,
        })
    }

    /// The direction that comes from `source` has come to its end.
    fn settled(&mut self, source: Side, outcome: Progress) {
        let sink = match source {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        };
        // Later, what the kernel counts may not be enough any more, see `lead`.
        (self.to_upstream.passes, self.to_downstream.passes) = (false, false);
        match outcome {
            Progress::Waiting | Progress::Stuck => {}
            Progress::Finished => {
                self.first_end.get_or_insert(source);
                // After a failure of the source its end is not a proper one.
                if self.failed.is_none() && self.stream(sink).shutdown_write().is_err() {
                    self.fail(sink);
                }
            }
            Progress::SourceFailed => self.fail(source),
            Progress::SinkFailed => self.fail(sink),
        }
    }

    /// Nothing can be delivered to `side` any more, but what it sent before still can.
    fn fail(&mut self, side: Side) {
        self.failed.get_or_insert(side);
        match side {
            Side::Downstream => self.to_downstream.abandon(),
            Side::Upstream => self.to_upstream.abandon(),
        }
    }

    /// Both peers see that what they have is not all.
    #[cold]
    fn give_up(&self) {
        tracing::error!(
            on_the_way_bytes = self.bytes_on_the_way(),
            downstream_bytes = self.to_downstream.bytes,
            upstream_bytes = self.to_upstream.bytes,
            "a tunnel is cut, because it does not get further: please report this fault of baton"
        );
        for stream in [&self.downstream, &self.upstream] {
            self.reset_stream(stream);
        }
    }

    /// Makes the end of a stream a reset.
    fn reset_stream(&self, stream: &Stream) {
        if self.hold.is_some() {
            stream.reset_now();
        } else {
            stream.reset_on_close();
        }
    }

    fn stream(&self, side: Side) -> &Stream {
        match side {
            Side::Downstream => &self.downstream,
            Side::Upstream => &self.upstream,
        }
    }

    fn ended(&mut self, now: Instant) -> Poll<EndCause> {
        if [self.to_upstream.outcome(), self.to_downstream.outcome()].contains(&Progress::Stuck) {
            self.give_up();
            return Poll::Ready(EndCause::Stuck);
        }
        if let Some(side) = self.failed {
            let (delivering, survivor) = match side {
                Side::Downstream => (self.to_upstream.outcome(), Side::Upstream),
                Side::Upstream => (self.to_downstream.outcome(), Side::Downstream),
            };
            if delivering != Progress::Waiting {
                return self.reset(survivor, now).map(|()| EndCause::Reset(side));
            }
        } else if self.to_upstream.outcome() == Progress::Finished
            && self.to_downstream.outcome() == Progress::Finished
        {
            return Poll::Ready(EndCause::Closed(self.first_end.unwrap_or(Side::Downstream)));
        }
        match self.limits.idle_timeout {
            Some(idle) if now >= self.last_activity + idle && !self.has_unread() => {
                Poll::Ready(EndCause::IdleTimeout)
            }
            _ => Poll::Pending,
        }
    }

    /// Whether there are bytes that are going to be read as soon as the reactor knows of them.
    fn has_unread(&self) -> bool {
        [(&self.to_upstream, &self.downstream), (&self.to_downstream, &self.upstream)]
            .into_iter()
            .any(|(direction, source)| {
                direction.outcome() == Progress::Waiting
                    && !direction.source_ended
                    && direction.on_the_way() == 0
                    && source.has_unread()
            })
    }

    /// Resets the survivor once it has what was sent before the failure: a reset throws away
    /// what is still in the send queue.
    fn reset(&mut self, survivor: Side, now: Instant) -> Poll<()> {
        let give_up = self.resetting.map_or(now + RESET_PATIENCE, |(_, give_up)| give_up);
        let stream = self.stream(survivor);
        let queued = match stream {
            Stream::Tcp(stream) => send_queue::unacknowledged(stream).unwrap_or(0),
            Stream::Unix(_) => 0,
        };
        if queued == 0 || now >= give_up {
            self.reset_stream(stream);
            return Poll::Ready(());
        }
        self.resetting = Some((now + RESET_CHECK, give_up));
        Poll::Pending
    }
}

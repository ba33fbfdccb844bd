//! The end of a connection: who is asked to go, and how the client gets all that was sent to it.
//!
//! ```text
//! last call ── silence ──┐
//! last response left ────┴──→ our end ── what still comes is thrown away ──→ the client's end
//!                        └──→ nothing ── until the client has everything ──→ a reset
//! ```
//! The kernel sends a reset when a socket is closed that has unread bytes, or gets some later, and a reset
//! may take from the client what it has not read yet (RFC 9112 §9.6).

use std::{
    ops::ControlFlow,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    connection::{Connection, Flow, Phase},
    downstream::Downstream,
};
use crate::{
    buffer::{BUFFER_BYTES, Inbound},
    stats::EndReason,
    sys::send_queue,
    transport::Stream,
};

/// A connection that shall end without a response that says so is waited for until it was silent for this
/// long: a client that was about to send a request is served and told.
const LAST_CALL: Duration = Duration::from_secs(1);
/// The client's end is waited for no longer than this, however much the client sends.
const LONGEST: Duration = Duration::from_secs(30);
/// So many bytes of a client are thrown away at most.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// How long a reset waits for the client to take what was sent before it, at most.
const RESET_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether the client has.
const RESET_CHECK: Duration = Duration::from_millis(20);

/// Since when the end is near.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    since: Instant,
    /// When the client sent something last, or a reset was looked at.
    last: Instant,
}

impl Connection {
    /// When and why a connection without a request ends although nobody told the client; `None` when it
    /// may go on.
    pub(super) fn last_call(&self) -> Option<(Instant, EndReason)> {
        let stopping = self.down.hcm.thread.drain.stopping_since();
        let farewell = self.down.belongs.origin.term.farewell().map(|farewell| farewell.end());
        let call = stopping.into_iter().chain(self.down.dismissed).chain(farewell).min();
        let call = call.map(|at| (at, EndReason::Drained));
        let age = self.down.hcm.config.max_connection_duration.map(|age| self.down.opened + age);
        let age = age.filter(|at| *at <= self.down.now).map(|at| (at, EndReason::Timeout));
        let (call, reason) = call.into_iter().chain(age).min_by_key(|(at, _)| *at)?;
        Some((call.max(self.idle_since) + LAST_CALL, reason))
    }

    /// Sends our end and waits for the client's.
    pub(super) fn begin_linger(&mut self, reason: EndReason) -> Flow {
        if reason == EndReason::Timeout && self.down.closing.is_none() {
            self.down.hcm.stats.downstream_cx_max_duration_reached.inc();
        }
        self.down.closing.get_or_insert(reason);
        let nothing_comes =
            self.client_is_done && self.down.inbound.is_empty() && self.down.socket.is_quiet();
        let is_over = nothing_comes || self.down.hcm.config.delayed_close_timeout.is_none();
        if self.down.ends_with_reset {
            self.forget_idle();
            self.phase = Phase::Lingering(Linger { since: self.down.now, last: self.down.now });
            return self.try_reset();
        }
        if self.down.read_closed || is_over || self.down.socket.shutdown_write().is_err() {
            return ControlFlow::Break(reason);
        }
        self.forget_idle();
        self.phase = Phase::Lingering(Linger { since: self.down.now, last: self.down.now });
        ControlFlow::Continue(true)
    }

    pub(super) fn linger(&mut self, cx: &mut Context<'_>) -> Flow {
        let moved = self.down.discard(cx)?;
        let reason = self.down.closing.unwrap_or(EndReason::Client);
        let Phase::Lingering(linger) = &mut self.phase else { return ControlFlow::Continue(moved) };
        if self.down.ends_with_reset {
            return ControlFlow::Continue(moved && !self.down.read_closed);
        }
        if moved {
            linger.last = self.down.now;
        }
        if self.down.read_closed || self.down.discarded >= MOST_BYTES {
            return ControlFlow::Break(reason);
        }
        ControlFlow::Continue(moved)
    }

    /// When waiting has been long enough.
    pub(super) fn linger_limit(&self, linger: &Linger) -> Instant {
        if self.down.ends_with_reset {
            return linger.last + RESET_CHECK;
        }
        let silence = self.down.hcm.config.delayed_close_timeout.unwrap_or_default();
        (linger.last + silence).min(linger.since + LONGEST)
    }

    /// The limit was reached.
    pub(super) fn linger_is_over(&mut self) -> Flow {
        if self.down.ends_with_reset {
            return self.try_reset();
        }
        self.down.hcm.stats.downstream_cx_delayed_close_timeout.inc();
        ControlFlow::Break(self.down.closing.unwrap_or(EndReason::Timeout))
    }

    /// Resets the connection once the client has what was sent before: a reset throws away what is still in
    /// the send queue.
    fn try_reset(&mut self) -> Flow {
        let Phase::Lingering(linger) = &mut self.phase else { return ControlFlow::Continue(false) };
        linger.last = self.down.now;
        let late = self.down.now.saturating_duration_since(linger.since) >= RESET_PATIENCE;
        let waits = match &self.down.socket {
            Stream::Tcp(stream) => send_queue::unacknowledged(stream).unwrap_or(0),
            Stream::Unix(_) => 0,
        };
        if waits > 0 && !late {
            return ControlFlow::Continue(false);
        }
        self.down.socket.reset_now();
        ControlFlow::Break(self.down.closing.unwrap_or(EndReason::Upstream))
    }
}

impl Downstream {
    /// Reads once from the client what nobody will look at.
    pub(super) fn discard(&mut self, cx: &mut Context<'_>) -> Flow {
        if self.read_closed || self.discarded >= MOST_BYTES {
            return ControlFlow::Continue(false);
        }
        self.inbound = Inbound::new(&self.hcm.thread.buffers);
        match self.inbound.poll_fill(cx, &mut self.socket, BUFFER_BYTES) {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(0)) => {
                self.active.client_ended();
                self.read_closed = true;
                ControlFlow::Continue(true)
            }
            Poll::Ready(Ok(count)) => {
                self.inbound.consume(count);
                self.discarded += count as u64;
                self.hcm.stats.downstream_cx_rx_bytes_total.add(count as u64);
                ControlFlow::Continue(true)
            }
            Poll::Ready(Err(_)) => {
                self.active.client_ended();
                ControlFlow::Break(self.closing.unwrap_or(EndReason::Client))
            }
        }
    }
}

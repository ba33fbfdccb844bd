//! Connections between two requests in escrow (`--crash-escrow idle`): while nothing of a request is in
//! this process, another one can go on with the connection.
//!
//! ```text
//! busy ── response left, nothing read ──→ kept
//!   ↑                                      │
//!   └────── a byte may be there: marked ───┘ and only then read
//! ```
//! The mark in shared memory is made before the first byte of a request leaves the kernel, and taken
//! back only after the last byte of the response is in it. So whatever the moment of a crash, a
//! connection that is adopted has its whole next request still in the kernel.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use baton_contract::shm::EscrowId;

use super::{
    connection::{Connection, Phase},
    downstream::Downstream,
    migrate::tag,
};
use crate::{
    escrow::{Desk, Hold, Refused, Taken},
    stats::EscrowStats,
};

/// A connection is put into escrow once it was idle for this long the first time: those with one
/// request do not cost what it takes.
const KEEP_AFTER: Duration = Duration::from_millis(20);

/// What a connection knows about its escrow.
#[derive(Debug, Default)]
pub(super) struct Idle {
    hold: Option<Hold>,
    /// The mark says that all of it is in the kernel.
    kept: bool,
    /// It was refused; not tried again.
    refused: bool,
}

impl Idle {
    /// A connection that was in escrow already; `None` when this process is not to go on with it.
    pub(super) fn resumed(desk: &Desk, id: EscrowId) -> Option<Self> {
        match desk.take(id) {
            Taken::Held(hold) => Some(Self { hold: Some(hold), kept: true, refused: false }),
            Taken::Unheld => Some(Self::default()),
            Taken::Elsewhere => None,
        }
    }

    /// Gives the hold away, with the connection. One that is busy is not in escrow any more.
    pub(super) fn give(&mut self, owner: Option<crate::escrow::Owner>) {
        if let Some(hold) = self.hold.take().filter(|_| self.kept) {
            hold.give(owner);
        }
    }

    /// Its name, while all of it is in the kernel.
    pub(super) fn id(&self) -> Option<EscrowId> {
        self.hold.as_ref().filter(|hold| self.kept && !hold.is_stale()).map(Hold::id)
    }
}

impl Connection {
    /// When nothing else is to be done: says that all of the connection is in the kernel, if it is,
    /// and puts it into escrow when it is time. Returns when it is.
    pub(super) fn keep_idle(&mut self) -> Option<Instant> {
        if let Some(stale) = self.down.idle.hold.take_if(|hold| hold.is_stale()) {
            stale.forget();
            self.down.idle.kept = false;
        }
        if self.down.idle.kept
            || self.down.idle.refused
            || !self.down.hcm.thread.escrow.holds_idle()
        {
            return None;
        }
        if !self.is_between_requests() {
            return None;
        }
        if let Some(hold) = &self.down.idle.hold {
            hold.resume();
            self.down.idle.kept = true;
            return None;
        }
        let at = self.idle_since + KEEP_AFTER;
        if self.down.now < at {
            return Some(at);
        }
        let stats = EscrowStats::new(&self.down.hcm.thread.stats);
        match self.deposit() {
            Ok(hold) => {
                stats.deposited.inc();
                self.down.idle = Idle { hold: Some(hold), kept: true, refused: false };
            }
            Err(why) => {
                self.down.idle.refused = true;
                match why {
                    Refused::Full => stats.full.inc(),
                    Refused::Impossible => stats.failed.inc(),
                }
            }
        }
        None
    }

    fn is_between_requests(&self) -> bool {
        matches!(self.phase, Phase::Reading)
            && self.down.inbound.is_empty()
            && self.down.out.is_empty()
            && self.head_started.is_none()
            && self.down.closing.is_none()
            && !self.down.read_closed
            && !self.down.upgrading
            && !self.down.cut_short
    }

    fn deposit(&self) -> Result<Hold, Refused> {
        let mut hold = self.down.hcm.thread.escrow.claim()?;
        let (mut writer, descriptors) = self.begin_record().map_err(|_| Refused::Impossible)?;
        writer.number(tag::ESCROW, hold.id().to_number());
        let config = self.down.belongs.origin.file_hash();
        hold.deposit(writer.finish(), config, descriptors)?;
        Ok(hold)
    }

    /// The end of a connection that others have a descriptor of: it is said to the client, not left
    /// to the close.
    pub(super) fn end_idle(&mut self) {
        if let Some(hold) = self.down.idle.hold.take() {
            hold.end();
            self.down.socket.end_now();
        }
    }

    /// It becomes something else, which is not in escrow.
    pub(super) fn forget_idle(&mut self) {
        self.down.idle = Idle { refused: true, ..Idle::default() };
    }
}

impl Downstream {
    /// Before reading: waits until there may be something, and makes the mark then.
    pub(super) fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.idle.kept {
            return Poll::Ready(());
        }
        if self.socket.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        self.idle.kept = false;
        if let Some(hold) = &self.idle.hold {
            hold.suspend();
        }
        Poll::Ready(())
    }
}

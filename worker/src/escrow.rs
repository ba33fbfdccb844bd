//! Connections that outlive this process: the side of the threads.
//!
//! A connection whose whole state is in the kernel leaves copies of its descriptors with the
//! supervisor. If this process is killed, a generation that serves goes on with it. One word in
//! shared memory says at every moment whether that is possible, so what the supervisor does never
//! depends on a message that was on its way.
//!
//! ```text
//! Desk::deposit ──▶ main thread ──▶ ESCROW, in batches ──▶ supervisor
//! Hold::end     ──▶ main thread ──▶ UNESCROW
//! ```
//! A connection that ends before its batch leaves is never sent. Not here: the batches
//! (`server::escrow`), and what is in a record.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use baton_contract::{
    message::{CrashEscrow, MAX_ESCROW_RECORD},
    shm::{EscrowId, EscrowState, SegmentWorker, SlotIndex},
};
use tokio::sync::mpsc;

/// Another generation's row in the segment, as the new owner of a connection.
pub type Owner = SlotIndex;

/// What the main thread is to tell the supervisor.
#[derive(Debug)]
pub enum Errand {
    /// ESCROW.
    Deposit(Deposit),
    /// UNESCROW.
    Withdraw(EscrowId),
}

/// A connection to be put into escrow.
#[derive(Debug)]
pub struct Deposit {
    /// Its word.
    pub id: EscrowId,
    /// What is needed to go on with it.
    pub record: Vec<u8>,
    /// Hash of the configuration that governs it; `None` = that of this generation.
    pub config: Option<u128>,
    /// Copies of its descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// They count until they are sent.
    pub copies: Copies,
}

/// Copies of descriptors on their way to the supervisor, and how many there may be.
static COPIES: AtomicUsize = AtomicUsize::new(0);
static COPIES_MAX: AtomicUsize = AtomicUsize::new(usize::MAX);

/// While so many copies of descriptors are on their way, other connections wait.
pub fn limit_copies(max: usize) {
    COPIES_MAX.store(max, Relaxed);
}

/// Copies of descriptors on their way, counted until dropped.
#[derive(Debug)]
pub struct Copies(usize);

impl Copies {
    /// Counts so many.
    pub fn count(descriptors: usize) -> Self {
        COPIES.fetch_add(descriptors, Relaxed);
        Self(descriptors)
    }

    /// Whether there may be more now.
    pub fn may_be_more() -> bool {
        COPIES.load(Relaxed) < COPIES_MAX.load(Relaxed)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        COPIES.fetch_sub(self.0, Relaxed);
    }
}

/// Where connections are put into escrow; without one they are not.
#[derive(Clone, Debug, Default)]
pub struct Desk(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    mode: CrashEscrow,
    limit: u32,
    segment: Arc<SegmentWorker>,
    /// Where to look for a free word next.
    next: AtomicU32,
    /// Counts the supervisors: what an earlier one had is nowhere any more.
    supervisor: AtomicU32,
    errands: mpsc::UnboundedSender<Errand>,
}

/// Why a connection was not put into escrow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// There are as many as there may be.
    Full,
    /// There is no supervisor, or the connection is not of a kind that can be held.
    Impossible,
}

impl Desk {
    /// A desk; errands go to the main thread.
    pub fn open(
        mode: CrashEscrow,
        limit: u32,
        segment: &Arc<SegmentWorker>,
        errands: mpsc::UnboundedSender<Errand>,
    ) -> Self {
        if mode == CrashEscrow::Off || limit == 0 {
            return Self(None);
        }
        let segment = Arc::clone(segment);
        Self(Some(Arc::new(Inner {
            mode,
            limit,
            segment,
            next: AtomicU32::new(0),
            supervisor: AtomicU32::new(0),
            errands,
        })))
    }

    /// Another supervisor commands, and has no copies. Connections put themselves into escrow again
    /// when they are woken.
    pub fn renew(&self) {
        if let Some(inner) = &self.0 {
            inner.supervisor.fetch_add(1, Release);
        }
    }

    /// Whether tunnels are held.
    pub fn holds_tunnels(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.mode != CrashEscrow::Off)
    }

    /// Whether connections between two requests are held.
    pub fn holds_idle(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.mode == CrashEscrow::Idle)
    }

    /// Takes a name for a connection that is to be put into escrow.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn claim(&self) -> Result<Hold, Refused> {
        let inner = self.0.as_ref().ok_or(Refused::Impossible)?;
        let hint = inner.next.fetch_add(1, Relaxed);
        let id = inner.segment.escrow_claim(inner.limit, hint).ok_or(Refused::Full)?;
        Ok(Hold::new(inner, id, false))
    }

    /// The hold of a connection that came from another generation, by a live move or after its
    /// death.
    pub fn take(&self, id: EscrowId) -> Taken {
        match &self.0 {
            Some(inner) if inner.segment.escrow_take(id) => Taken::Held(Hold::new(inner, id, true)),
            Some(inner) if !inner.segment.escrow_is_gone(id) => Taken::Elsewhere,
            Some(_) | None => Taken::Unheld,
        }
    }

    /// Makes a connection that came with ADOPT this generation's, which counts it now and takes it
    /// later. `false` when it is not to be had.
    pub fn book(&self, id: EscrowId) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.segment.escrow_book(id))
    }

    /// Whether a connection that came with ADOPT is still to be taken.
    pub fn is_given(&self, id: EscrowId) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.segment.escrow_is_given(id))
    }

    /// Everything that is left here ends with this process.
    pub fn close(&self) {
        if let Some(inner) = &self.0 {
            inner.segment.escrow_end_all();
        }
    }
}

/// What became of a connection that was in escrow when it was sent here.
#[derive(Debug)]
pub enum Taken {
    /// It is served here, and still in escrow.
    Held(Hold),
    /// It came by a live move and is served here; the supervisor that had the copies died.
    Unheld,
    /// Another process serves it, or it has ended.
    Elsewhere,
}

/// A connection in escrow; the owner of the connection has it.
#[derive(Debug)]
pub struct Hold {
    desk: Arc<Inner>,
    id: EscrowId,
    /// The supervisor that has the copies, as [`Inner::supervisor`] counts them.
    supervisor: u32,
    /// The main thread or the supervisor knows about it.
    deposited: bool,
    ended: bool,
}

impl Hold {
    fn new(desk: &Arc<Inner>, id: EscrowId, deposited: bool) -> Self {
        let supervisor = desk.supervisor.load(Acquire);
        Self { desk: Arc::clone(desk), id, supervisor, deposited, ended: false }
    }

    /// Whether the supervisor that had the copies is gone.
    pub fn is_stale(&self) -> bool {
        self.supervisor != self.desk.supervisor.load(Acquire)
    }

    /// Forgets a hold whose supervisor is gone.
    pub fn forget(mut self) {
        self.ended = true;
        self.desk.segment.escrow_free(self.id);
    }

    /// Its name.
    pub fn id(&self) -> EscrowId {
        self.id
    }

    /// Puts the connection into escrow. Its whole state must be in the kernel from now on, until
    /// the hold says otherwise.
    ///
    /// # Errors
    /// When it cannot be; the descriptors are closed then, which says nothing to the peers.
    pub fn deposit(
        &mut self,
        record: Vec<u8>,
        config: Option<u128>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Refused> {
        if record.len() > MAX_ESCROW_RECORD {
            return Err(Refused::Impossible);
        }
        self.resume();
        let copies = Copies::count(descriptors.len());
        let deposit = Deposit { id: self.id, record, config, descriptors, copies };
        let errand = Errand::Deposit(deposit);
        self.desk.errands.send(errand).map_err(|_| Refused::Impossible)?;
        self.deposited = true;
        Ok(())
    }

    /// Some state is about to be in this process only. To be called before it is.
    pub fn suspend(&self) {
        self.desk.segment.escrow_set(self.id, EscrowState::Busy);
    }

    /// All state is in the kernel again.
    pub fn resume(&self) {
        self.desk.segment.escrow_set(self.id, EscrowState::Kept);
    }

    /// The connection ends; nobody goes on with it.
    pub fn end(self) {
        drop(self);
    }

    /// The connection goes to another generation, which has to [`Desk::take`] it.
    pub fn give(mut self, owner: Option<Owner>) {
        if self.is_stale() {
            return self.forget();
        }
        self.ended = true;
        if let Some(owner) = owner {
            self.desk.segment.escrow_give(self.id, owner);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if !self.deposited {
            self.desk.segment.escrow_free(self.id);
        } else if self.desk.segment.escrow_set(self.id, EscrowState::Ended) {
            // Without a main thread the process ends, and the supervisor closes its copies then.
            self.desk.errands.send(Errand::Withdraw(self.id)).ok();
        }
    }
}

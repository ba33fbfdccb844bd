//! What moves connections between the main thread's tasks and the worker threads.

use std::{os::fd::OwnedFd, sync::Arc};

use baton_contract::{
    message::OnRemoved,
    peer::Stay,
    shm::{EscrowId, SegmentWorker, Ticket},
};
use tokio::sync::mpsc;

use super::{import::PinnedConfig, threads::Command};
use crate::{listener::limit::Permit, migrate::Export};

/// Where a thread's offers go.
#[derive(Clone, Debug)]
pub(super) struct GiveAway {
    pub exports: mpsc::UnboundedSender<Export>,
    /// Connections of listeners that are gone are closed.
    pub closes_removed: bool,
}

/// Something another generation offers.
#[derive(Debug)]
pub(super) struct Import {
    pub record: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// The configuration that governs it; `None` = that of this generation.
    pub pinned: Option<Arc<PinnedConfig>>,
    pub on_removed: OnRemoved,
}

/// What is ready to be taken over. Dropped, it has no effect.
pub(super) struct Landing {
    /// Position of its listener in this configuration, if it has one there.
    pub listener: Option<usize>,
    /// Counts it as open and serves it.
    pub start: Box<dyn FnOnce(Permit)>,
}

/// What a thread says to an offer.
pub(super) type Reply = (Ticket, Result<(), Stay>);

/// Reaches the threads from a task of the main thread.
#[derive(Clone, Debug)]
pub(super) struct Crew(pub(super) Vec<mpsc::UnboundedSender<Command>>);

impl Crew {
    /// Number of threads.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Lets a thread look at an offer; it replies to `replies`. `false` when it is gone.
    pub(super) fn import(
        &self,
        thread: usize,
        ticket: Ticket,
        import: Import,
        replies: &mpsc::UnboundedSender<Reply>,
    ) -> bool {
        self.send(thread, Command::Import { ticket, import, replies: replies.clone() })
    }

    /// Lets a thread serve what it was offered.
    pub(super) fn start(&self, thread: usize, ticket: Ticket, segment: &Arc<SegmentWorker>) {
        self.send(thread, Command::Land { ticket, segment: Arc::clone(segment) });
    }

    /// Lets a thread forget what it was offered.
    pub(super) fn forget(&self, thread: usize, ticket: Ticket) {
        self.send(thread, Command::Forget(ticket));
    }

    /// Lets a thread serve a connection of a dead generation.
    pub(super) fn adopt(&self, thread: usize, id: EscrowId, import: Import) {
        self.send(thread, Command::Adopt { id, import });
    }

    /// Lets every thread give its connections away, or stop it.
    pub(super) fn give_away(&self, to: Option<&GiveAway>) {
        for thread in 0..self.0.len() {
            self.send(thread, Command::GiveAway(to.cloned()));
        }
    }

    /// Lets every thread wake its connections, so that each finds out what has changed.
    pub(super) fn look_again(&self) {
        for thread in 0..self.0.len() {
            self.send(thread, Command::LookAgain);
        }
    }

    fn send(&self, thread: usize, command: Command) -> bool {
        self.0.get(thread).is_some_and(|commands| commands.send(command).is_ok())
    }
}

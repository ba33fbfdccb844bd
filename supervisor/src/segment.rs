//! The books in the shared-memory segment: those of workers are read, and closed when they are gone;
//! the supervisor's own numbers are written.

use std::time::Duration;

use baton_contract::{
    control::Moves,
    fault,
    generation::Generation,
    message::{Ended, Kinds},
    shm::{
        Books, Cell, ConnectionKind, EndReason, GenerationBooks, LedgerTotals, MetricName,
        SegmentOwner, SlotIndex,
    },
};

use crate::{
    perform::Performer,
    state::{
        accounts::{Account, Accounts},
        event::Time,
    },
};

/// How long a connection that was offered by a worker that died may be taken by another one.
const CLAIM_WITHIN: Duration = Duration::from_secs(1);

impl Performer {
    /// What became of connections, as the segment says; `None` without one.
    pub(crate) fn accounts(&self) -> Option<Accounts> {
        let books = self.segment.as_ref()?.books();
        books
            .inspect_err(|error| tracing::warn!(%error, "statistics are late"))
            .ok()
            .map(Into::into)
    }

    /// Forgets a worker that is gone.
    pub(crate) fn retire(&mut self, generation: Generation) {
        self.close_books(generation);
        self.learn_addresses(generation);
        self.workers.remove(&generation);
        self.tidy_addresses();
    }

    /// Its process is gone: what it had is counted as lost, unless somebody else has it.
    pub(crate) fn close_books(&mut self, generation: Generation) {
        self.keep_escrow(generation);
        let slot = self.workers.get_mut(&generation).and_then(|worker| worker.slot.take());
        let (Some(segment), Some(slot)) = (&self.segment, slot) else { return };
        if segment.has_offers(slot) {
            // Whoever they were offered to sees the death now, too, and takes them.
            let until = self.clock.now().saturating_add(CLAIM_WITHIN);
            self.late.push((generation, slot, until));
        } else {
            self.settle(generation, slot);
        }
    }

    /// Settles the books of dead generations whose offers are decided.
    pub(crate) fn settle_late(&mut self) {
        let (now, segment) = (self.clock.now(), &self.segment);
        let decided = |(_, slot, until): &mut (Generation, SlotIndex, Time)| {
            *until <= now || !segment.as_ref().is_some_and(|segment| segment.has_offers(*slot))
        };
        let settled: Vec<_> = self.late.extract_if(.., decided).collect();
        for (generation, slot, _) in settled {
            self.settle(generation, slot);
        }
    }

    /// Folds the statistics of a dead generation and closes its books.
    fn settle(&mut self, generation: Generation, slot: SlotIndex) {
        let Some(segment) = &mut self.segment else { return };
        if let Err(error) = segment.retire_holding(slot, &self.escrow.ids()) {
            // What it counted is seen as long as its row is there.
            tracing::error!(%generation, %error, "a generation that is gone keeps its row of the statistics");
        }
        let before = self.orphans;
        self.orphans = self.escrow.sweep(segment);
        let connections = self.orphans.saturating_sub(before);
        if connections > 0 {
            tracing::warn!(%generation, connections, "connections outlive their worker");
        }
        fault::point("supervisor.retired");
    }
}

impl From<Books> for Accounts {
    fn from(books: Books) -> Self {
        let ended = ended(&books.ledger);
        let so_far = Moves {
            moved: ended.migrated,
            drained: ended.drained,
            cut: ended.cut_by_deadline.saturating_add(ended.crash),
            moved_kinds: kinds(books.moved),
            ..Moves::default()
        };
        let account = |books: &GenerationBooks| Account {
            generation: books.generation,
            connections: books.ledger.open(),
            open: kinds(books.open),
            moved: kinds(books.moved),
            ended: self::ended(&books.ledger),
        };
        Self { so_far, living: books.living.iter().map(account).collect() }
    }
}

const fn kinds([http1, upgraded, tcp]: [u64; ConnectionKind::ALL.len()]) -> Kinds {
    Kinds { http1, upgraded, tcp }
}

fn ended(ledger: &LedgerTotals) -> Ended {
    Ended {
        client: ledger.ended_for(EndReason::Client),
        upstream: ledger.ended_for(EndReason::Upstream),
        timeout: ledger.ended_for(EndReason::Timeout),
        drained: ledger.ended_for(EndReason::Drained),
        migrated: ledger.ended_for(EndReason::Migrated),
        cut_by_deadline: ledger.ended_for(EndReason::CutByDeadline),
        crash: ledger.ended_for(EndReason::Crash),
    }
}

/// Reloads and respawns, as counters anybody who reads the segment can see.
#[derive(Debug)]
pub(crate) struct Counters {
    reloads: Cell,
    failed_reloads: Cell,
    respawns: Cell,
    generations: Cell,
    escrow: Cell,
}

impl Counters {
    pub(crate) fn new(segment: &mut SegmentOwner) -> Self {
        let mut counter = |name: &str| segment.counter(&MetricName::plain(name));
        let reloads = counter("baton.supervisor.reload_success");
        let failed_reloads = counter("baton.supervisor.reload_failure");
        let respawns = counter("baton.supervisor.worker_respawn");
        let generations = segment.gauge(&MetricName::plain("baton.supervisor.generations"));
        let escrow = segment.gauge(&MetricName::plain("baton.supervisor.connections_in_escrow"));
        Self { reloads, failed_reloads, respawns, generations, escrow }
    }

    /// Shows how many connections can outlive their worker.
    pub(crate) fn in_escrow(&self, connections: usize) {
        self.escrow.set(u64::try_from(connections).unwrap_or(u64::MAX));
    }

    /// Reloads that ended well and badly, and respawns, as they are shown.
    pub(crate) fn shown(&self) -> (u64, u64, u64) {
        (self.reloads.get(), self.failed_reloads.get(), self.respawns.get())
    }

    /// Shows the numbers of the core.
    pub(crate) fn show(&self, (reloads, failed, respawns): (u64, u64, u64), living: usize) {
        self.reloads.set(reloads);
        self.failed_reloads.set(failed);
        self.respawns.set(respawns);
        self.generations.set(u64::try_from(living).unwrap_or(u64::MAX));
    }
}

//! What became of connections. The shared-memory segment knows: it is right at this moment, and it
//! outlives workers and supervisors. What workers said, up to a second ago, counts without one only.

use baton_contract::{
    control::Moves,
    generation::{Generation, State},
    message::{Ended, Kinds, Status},
};

use super::{Supervisor, life::millis};

/// What the segment says.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Over all generations, dead ones too, since the segment was made.
    pub so_far: Moves,
    /// The generations that live and count in the segment.
    pub living: Vec<Account>,
}

/// What the segment says about one generation.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// The generation.
    pub generation: Generation,
    /// Its open downstream connections.
    pub connections: u64,
    /// Those by kind.
    pub open: Kinds,
    /// Connections it gave to another generation, by kind.
    pub moved: Kinds,
    /// Why its connections ended.
    pub ended: Ended,
}

impl Supervisor {
    /// Learns what the segment says now; `None` when there is none, or it cannot be read. To be called
    /// before an event and before a report: nothing follows from it alone.
    pub fn learn(&mut self, accounts: Option<Accounts>) {
        let Some(accounts) = accounts else { return };
        self.accounted = Some(accounts.so_far);
        for account in accounts.living {
            let Some(member) = self.members.get_mut(&account.generation) else { continue };
            let status = &mut member.status;
            status.connections = account.connections;
            (status.open, status.moved) = (account.open, account.moved);
            status.ended = account.ended;
        }
    }

    /// What became of connections until now.
    pub(super) fn so_far(&self) -> Moves {
        let told = || self.members.values().fold(self.past, |sum, m| with(sum, &m.status));
        self.accounted.unwrap_or_else(told)
    }

    /// What happened to connections since `before`, and to those of older generations what will.
    pub(super) fn moves_since(&self, before: &Moves) -> Moves {
        let so_far = self.so_far();
        let mut moves = Moves {
            moved: so_far.moved.saturating_sub(before.moved),
            drained: so_far.drained.saturating_sub(before.drained),
            cut: so_far.cut.saturating_sub(before.cut),
            moved_kinds: so_far.moved_kinds.since(before.moved_kinds),
            ..Moves::default()
        };
        let older = self.members.values().filter(|member| {
            Some(member.generation) != self.serving
                && matches!(member.state, State::HandingOff | State::Draining)
        });
        for member in older {
            let status = &member.status;
            moves.draining = moves.draining.saturating_add(status.connections);
            moves.draining_kinds = moves.draining_kinds.plus(status.open);
            if status.connections > 0 {
                let left = member.cut_at.map(|at| millis(at.saturating_sub(self.now)));
                moves.cut_in_ms = moves.cut_in_ms.into_iter().chain(left).min();
            }
        }
        moves
    }
}

/// A sum and what one generation said.
pub(super) const fn with(sum: Moves, status: &Status) -> Moves {
    let ended = &status.ended;
    Moves {
        moved: sum.moved.saturating_add(ended.migrated),
        moved_kinds: sum.moved_kinds.plus(status.moved),
        drained: sum.drained.saturating_add(ended.drained),
        cut: sum.cut.saturating_add(ended.cut_by_deadline),
        ..sum
    }
}

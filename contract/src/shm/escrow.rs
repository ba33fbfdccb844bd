//! Which connections outlive their process: one word for each connection of which the supervisor has
//! copies of the descriptors.
//!
//! The word says whether all of the connection's state is in the kernel at this moment, so that
//! another process can go on with it, and in whose books it is open.
//!
//! ```text
//!        claim        keep                       the process died
//! FREE ────────→ BUSY ────→ KEPT ───────────────────→ ORPHAN ──→ GIVEN
//!   ↑              ↑ suspend ┘│ │ give (live move)       ↑          │ book
//!   │              └──────────┘ └────────→ MOVING ←──────│──────────┘
//!   │                                         │ take     │ the new owner died too
//!   │                                         └────→ KEPT, of another
//!   └── the supervisor closed its copies ── ENDED
//! ```
//! `GIVEN` is not in the books of its owner yet, `MOVING` may be. What a dead generation had as
//! `KEPT` or `MOVING` counts as migrated there, because it counts as opened where it is adopted.
//!
//! A connection whose owner dies in the middle of a live move may reach the same new owner twice: by
//! the move, and from the supervisor. It is taken once; who comes second finds it `KEPT`.

use std::{
    collections::BTreeSet,
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use super::{SlotIndex, layout::Segment};

const STATE: u64 = 0xff;
const OWNER_SHIFT: u32 = 8;
const OWNER_MASK: u64 = 0xfff;
const NONCE_SHIFT: u32 = 32;

/// What may be done with a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum EscrowState {
    /// The word is not in use.
    Free = 0,
    /// Some state is in its process: it dies with it.
    Busy = 1,
    /// All state is in the kernel.
    Kept = 2,
    /// It ended; the copies can be closed.
    Ended = 3,
    /// It goes to another process that lives, by a live move.
    Moving = 4,
    /// Its process died.
    Orphan = 5,
    /// It was sent to a new owner, which has not counted it yet.
    Given = 6,
}

impl EscrowState {
    const ALL: [Self; 7] =
        [Self::Free, Self::Busy, Self::Kept, Self::Ended, Self::Moving, Self::Orphan, Self::Given];
}

/// Names a connection in escrow.
#[derive(
    Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, serde::Deserialize, serde::Serialize,
)]
pub struct EscrowId {
    /// Position in the table.
    pub index: u32,
    /// Tells uses of one position apart.
    pub nonce: u32,
}

impl EscrowId {
    /// The name as a number of a record: position in the upper half, nonce in the lower.
    pub fn to_number(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.nonce)
    }

    /// The name a number stands for.
    pub fn from_number(number: u64) -> Self {
        let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0);
        Self { index: half(number >> 32), nonce: half(number) }
    }
}

/// The table of one process.
#[derive(Clone, Copy, Debug)]
pub(super) struct EscrowTable<'a> {
    pub(super) segment: &'a Segment,
}

/// The parts of a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Word(u64);

impl Word {
    fn new(state: EscrowState, owner: SlotIndex, nonce: u64) -> Self {
        Self(state as u64 | (u64::from(owner.0) & OWNER_MASK) << OWNER_SHIFT | nonce << NONCE_SHIFT)
    }

    fn state(self) -> EscrowState {
        let state = |s: &EscrowState| *s as u64 == self.0 & STATE;
        // What no writer writes belongs to nobody.
        EscrowState::ALL.into_iter().find(state).unwrap_or(EscrowState::Busy)
    }

    const fn owner(self) -> u64 {
        self.0 >> OWNER_SHIFT & OWNER_MASK
    }

    const fn nonce(self) -> u64 {
        self.0 >> NONCE_SHIFT
    }
}

impl EscrowTable<'_> {
    fn word(self, index: u32) -> Option<&'static AtomicU64> {
        let index = usize::try_from(index).ok().filter(|i| *i < self.segment.geometry.escrow)?;
        Some(self.segment.escrow(index))
    }

    fn count(self) -> u32 {
        u32::try_from(self.segment.geometry.escrow).unwrap_or(u32::MAX)
    }

    /// Takes a free word among the first `limit`; it is `Busy` then.
    pub(super) fn claim(self, owner: SlotIndex, limit: u32, hint: u32) -> Option<EscrowId> {
        let count = self.count().min(limit);
        for step in 0..count {
            let index = hint.wrapping_add(step).checked_rem(count)?;
            let word = self.word(index)?;
            let before = Word(word.load(Relaxed));
            if before.state() != EscrowState::Free {
                continue;
            }
            let nonce = u32::try_from(before.nonce()).unwrap_or(0).wrapping_add(1);
            let after = Word::new(EscrowState::Busy, owner, u64::from(nonce)).0;
            if word.compare_exchange(before.0, after, AcqRel, Relaxed).is_ok() {
                return Some(EscrowId { index, nonce });
            }
        }
        None
    }

    /// Changes the state and the owner of a connection that `owner` has in one of the states
    /// `from`. Anything else is left alone, and `false`.
    pub(super) fn change(
        self,
        id: EscrowId,
        owner: SlotIndex,
        from: &[EscrowState],
        to: (EscrowState, SlotIndex),
    ) -> bool {
        let Some(word) = self.word(id.index) else { return false };
        let mut before = Word(word.load(Acquire));
        loop {
            let mine = before.nonce() == u64::from(id.nonce)
                && before.owner() == u64::from(owner.0) & OWNER_MASK
                && from.contains(&before.state());
            if !mine {
                return false;
            }
            let after = Word::new(to.0, to.1, before.nonce()).0;
            match word.compare_exchange(before.0, after, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => before = Word(now),
            }
        }
    }

    /// Makes `owner` the owner of a connection that moved to it or that it booked, whatever became of
    /// the one that gave it. `false` when it has ended, goes to somebody else, was taken already, or
    /// comes from the supervisor, too, and is to be booked first.
    pub(super) fn take(self, id: EscrowId, owner: SlotIndex) -> bool {
        use EscrowState::{Busy, Ended, Free, Given, Kept, Moving, Orphan};
        let Some((state, of)) = self.get(id) else { return false };
        match state {
            Moving if of != owner => false,
            Kept if of == owner => false,
            Kept | Moving | Orphan => self.change(id, of, &[state], (Kept, owner)),
            Given | Free | Busy | Ended => false,
        }
    }

    /// Says that `owner`, which the supervisor gave a connection, has it in its books and will take it;
    /// `false` when it is not to be had.
    pub(super) fn book(self, id: EscrowId, owner: SlotIndex) -> bool {
        self.change(id, owner, &[EscrowState::Given], (EscrowState::Moving, owner))
    }

    /// State and owner of a connection.
    pub(super) fn get(self, id: EscrowId) -> Option<(EscrowState, SlotIndex)> {
        let word = Word(self.word(id.index)?.load(Acquire));
        let owner = SlotIndex(u32::try_from(word.owner()).unwrap_or(u32::MAX));
        (word.nonce() == u64::from(id.nonce)).then(|| (word.state(), owner))
    }

    /// Whatever happened to it, the word is free again. Only for whoever holds the copies.
    pub(super) fn free(self, id: EscrowId) {
        let Some(word) = self.word(id.index) else { return };
        let before = Word(word.load(Acquire));
        if before.nonce() == u64::from(id.nonce) {
            let after = Word::new(EscrowState::Free, SlotIndex(0), before.nonce()).0;
            // Failure means that somebody who should not did something; then it is left.
            word.compare_exchange(before.0, after, AcqRel, Relaxed).ok();
        }
    }

    /// All connections of a generation end at its will.
    pub(super) fn end_all(self, owner: SlotIndex) {
        for index in 0..self.count() {
            let Some(word) = self.word(index) else { break };
            let before = Word(word.load(Acquire));
            let mine = before.owner() == u64::from(owner.0) & OWNER_MASK
                && matches!(before.state(), EscrowState::Busy | EscrowState::Kept);
            if mine {
                let after = Word::new(EscrowState::Ended, owner, before.nonce()).0;
                word.compare_exchange(before.0, after, AcqRel, Relaxed).ok();
            }
        }
    }

    /// How many of `held` a dead generation had open in its books that live on.
    pub(super) fn rescued(self, owner: SlotIndex, held: &[EscrowId]) -> u64 {
        let lives = |id: &&EscrowId| {
            self.get(**id).is_some_and(|(state, of)| {
                of == owner && matches!(state, EscrowState::Kept | EscrowState::Moving)
            })
        };
        u64::try_from(held.iter().filter(lives).count()).unwrap_or(u64::MAX)
    }

    /// After the books of a dead generation are closed: what can be adopted becomes `Orphan`, what
    /// nobody holds becomes free, and the rest ended.
    pub(super) fn bury(self, owner: SlotIndex, held: &[EscrowId]) {
        use EscrowState::{Busy, Ended, Free, Given, Kept, Moving, Orphan};
        let held: BTreeSet<EscrowId> = held.iter().copied().collect();
        for index in 0..self.count() {
            let Some(word) = self.word(index) else { break };
            let before = Word(word.load(Acquire));
            if before.owner() != u64::from(owner.0) & OWNER_MASK || before.state() == Free {
                continue;
            }
            let nonce = u32::try_from(before.nonce()).unwrap_or(0);
            let state = match before.state() {
                _ if !held.contains(&EscrowId { index, nonce }) => Free,
                Kept | Moving | Given | Orphan => Orphan,
                Busy | Ended | Free => Ended,
            };
            // No process writes a word of a dead owner.
            let after = Word::new(state, NOBODY, before.nonce()).0;
            word.compare_exchange(before.0, after, AcqRel, Relaxed).ok();
        }
    }
}

/// Owner of what has none; no row has this number.
pub(super) const NOBODY: SlotIndex = SlotIndex(0xfff);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::{
        layout::{Geometry, Identity},
        map, sweep,
    };
    use EscrowState::{Busy, Ended, Given, Kept, Moving, Orphan};

    const OLD: SlotIndex = SlotIndex(3);
    const NEW: SlotIndex = SlotIndex(5);

    struct Table(Segment, String);

    impl Table {
        fn new(escrow: usize) -> Self {
            let identity =
                Identity { instance: 1, boot: 1, owner_pid: 1, owner_start: 1, base_id: 1 };
            let geometry = Geometry { escrow, ..Geometry::default() };
            let os_id = sweep::OsId::new(9_998).text();
            Self(Segment::create(&os_id, geometry, identity).expect("a segment"), os_id)
        }

        fn get(&self) -> EscrowTable<'_> {
            EscrowTable { segment: &self.0 }
        }
    }

    impl Drop for Table {
        fn drop(&mut self) {
            map::unlink(&self.1).ok();
        }
    }

    #[test]
    fn the_limit_is_the_number_of_words_that_are_given_out() {
        let table = Table::new(512);
        let ids: Vec<_> =
            (0..3).map(|hint| table.get().claim(OLD, 3, hint).expect("one")).collect();
        assert!(table.get().claim(NEW, 3, 7).is_none());
        table.get().free(ids[1]);
        let again = table.get().claim(NEW, 3, 0).expect("one");
        assert_eq!((again.index, again.nonce), (ids[1].index, ids[1].nonce + 1));
        assert_eq!(table.get().get(ids[1]), None, "the old name means nothing any more");
    }

    #[test]
    fn only_the_owner_changes_its_connection() {
        let table = Table::new(512);
        let id = table.get().claim(OLD, 8, 0).expect("one");
        assert!(!table.get().change(id, NEW, &[Busy], (Kept, NEW)));
        assert!(table.get().change(id, OLD, &[Busy], (Kept, OLD)));
        assert!(!table.get().change(id, OLD, &[Busy], (Kept, OLD)), "it is not busy any more");
        assert!(table.get().change(id, OLD, &[Kept], (Moving, NEW)));
        assert_eq!(table.get().get(id), Some((Moving, NEW)));
    }

    #[test]
    fn a_death_leaves_what_was_kept_and_frees_what_nobody_holds() {
        let table = Table::new(512);
        let table = table.get();
        let ids: Vec<_> = (0..6).map(|_| table.claim(OLD, 8, 0).expect("one")).collect();
        let states = [Kept, Busy, Ended, Kept, Given, Kept];
        for (id, state) in ids.iter().zip(states) {
            assert!(table.change(*id, OLD, &[Busy], (state, OLD)));
        }
        let other = table.claim(NEW, 8, 0).expect("one");
        // The last one never reached the supervisor.
        let held = &ids[..5];
        assert_eq!(table.rescued(OLD, held), 2, "a given one is not in the books");
        table.bury(OLD, held);
        let after: Vec<_> = ids.iter().map(|id| table.get(*id).expect("a word").0).collect();
        assert_eq!(after, [Orphan, Ended, Ended, Orphan, Orphan, EscrowState::Free]);
        assert_eq!(table.get(other), Some((Busy, NEW)));
    }

    #[test]
    fn a_connection_that_moves_is_taken_whatever_became_of_its_old_owner() {
        let table = Table::new(512);
        let table = table.get();
        let kept = || {
            let id = table.claim(OLD, 8, 0).expect("one");
            assert!(table.change(id, OLD, &[Busy], (Kept, OLD)));
            id
        };
        let (given, not_yet, dead) = (kept(), kept(), kept());
        assert!(table.change(given, OLD, &[Kept], (Moving, NEW)));
        assert!(table.take(given, NEW) && table.take(not_yet, NEW));
        table.bury(OLD, &[given, not_yet, dead]);
        assert!(table.take(dead, NEW));
        for id in [given, not_yet, dead] {
            assert_eq!(table.get(id), Some((Kept, NEW)));
        }
        assert!(table.change(dead, NEW, &[Kept], (Given, OLD)));
        assert!(!table.take(dead, NEW), "it belongs to somebody else now");
    }

    #[test]
    fn a_connection_that_comes_by_a_move_and_from_the_supervisor_is_taken_once() {
        let table = Table::new(512);
        let table = table.get();
        let given = || {
            let id = table.claim(OLD, 8, 0).expect("one");
            assert!(table.change(id, OLD, &[Busy], (Kept, OLD)));
            table.bury(OLD, &[id]);
            assert!(table.change(id, NOBODY, &[Orphan], (Given, NEW)));
            id
        };
        let id = given();
        assert!(!table.take(id, NEW), "the supervisor's is looked at already");
        assert!(table.book(id, NEW) && table.take(id, NEW));
        assert!(!table.take(id, NEW), "it is served already");
        assert!(!table.book(id, NEW), "it is served already");
        // By the move first.
        let moved = table.claim(OLD, 8, 0).expect("one");
        assert!(table.change(moved, OLD, &[Busy], (Kept, OLD)));
        assert!(table.take(moved, NEW));
        table.bury(OLD, &[moved]);
        assert_eq!(table.get(moved), Some((Kept, NEW)), "no orphan");
        // Who dies before it takes one had it in its books.
        let id = given();
        assert!(table.book(id, NEW));
        assert_eq!(table.rescued(NEW, &[id]), 1);
    }

    #[test]
    fn a_generation_that_ends_its_connections_leaves_no_orphan() {
        let table = Table::new(512);
        let table = table.get();
        let id = table.claim(OLD, 8, 0).expect("one");
        assert!(table.change(id, OLD, &[Busy], (Kept, OLD)));
        table.end_all(OLD);
        assert_eq!(table.rescued(OLD, &[id]), 0);
        table.bury(OLD, &[id]);
        assert_eq!(table.get(id), Some((Ended, NOBODY)));
    }
}

//! Who owns a connection on its way from one generation to another.
//!
//! One word for each connection that is being moved. Whoever makes the one compare-and-swap that
//! takes it out of `OFFERED` decides, whatever happens to the messages and to the processes:
//!
//! ```text
//!            offer              commit (old) or claim (new)
//! FREE ─────────────→ OFFERED ─────────────────────────────→ OWNED ─ both entered it in their
//!   ↑                    │ withdraw (old)                       │    books ─→ FREE
//!   └────────────────────┘                                      │
//!   └────────────────── a dead side's part is done by `settle_dead` at its retirement
//! ```
//! The loss ledger depends on it: a connection that was moved counts once as `migrated` in the old
//! generation and once as opened in the new one, even if one of them dies in between.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use super::{SlotIndex, layout::Segment};

const FREE: u64 = 0;
const OFFERED: u64 = 1;
const OWNED: u64 = 2;

/// The old generation counted it as migrated.
const OLD_BOOKED: u64 = 1 << 4;
/// The new generation counted it as opened.
const NEW_BOOKED: u64 = 1 << 5;
/// It is in no ledger: an idle connection to an endpoint.
const UNCOUNTED: u64 = 1 << 6;
const STATE: u64 = 0b11;
const FROM_SHIFT: u32 = 8;
const TO_SHIFT: u32 = 20;
const ROW_MASK: u64 = 0xfff;
const NONCE_SHIFT: u32 = 32;

/// A connection that was offered; what both sides name it by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket {
    /// Position in the table.
    pub index: u32,
    /// Tells uses of one position apart.
    pub nonce: u32,
}

/// Whether a connection on its way is in the loss ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counts {
    /// A downstream connection.
    InLedger,
    /// An idle connection to an endpoint.
    Nowhere,
}

/// The books of generations that died in the middle of a move, to be corrected by the supervisor.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Unbooked {
    /// It lives on in another generation and was not counted as migrated.
    pub(super) migrated: u64,
    /// It was given to this generation and was not counted as opened.
    pub(super) received: u64,
}

/// The table of one generation's process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connections<'a> {
    pub(super) segment: &'a Segment,
}

/// The parts of a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Word(u64);

impl Word {
    fn new(state: u64, from: SlotIndex, to: SlotIndex, nonce: u32) -> Self {
        let row = |slot: SlotIndex| u64::from(slot.0) & ROW_MASK;
        Self(
            state | row(from) << FROM_SHIFT | row(to) << TO_SHIFT | u64::from(nonce) << NONCE_SHIFT,
        )
    }

    const fn state(self) -> u64 {
        self.0 & STATE
    }

    const fn from(self) -> u64 {
        self.0 >> FROM_SHIFT & ROW_MASK
    }

    const fn to(self) -> u64 {
        self.0 >> TO_SHIFT & ROW_MASK
    }

    const fn nonce(self) -> u64 {
        self.0 >> NONCE_SHIFT
    }

    /// With another state and more bits; both sides booked means that it is free again.
    const fn then(self, state: u64, bits: u64) -> Self {
        let word = (self.0 & !STATE) | state | bits;
        let both = OLD_BOOKED | NEW_BOOKED;
        if word & both == both { Self(self.freed()) } else { Self(word) }
    }

    /// Free, with the nonce kept so that the next use has another one.
    const fn freed(self) -> u64 {
        self.nonce() << NONCE_SHIFT
    }
}

impl Connections<'_> {
    fn word(self, index: u32) -> Option<&'static AtomicU64> {
        let index =
            usize::try_from(index).ok().filter(|i| *i < self.segment.geometry.connections)?;
        Some(self.segment.connection(index))
    }

    /// Takes a free word; `hint` is where to look first.
    pub(super) fn offer(
        self,
        (from, to): (SlotIndex, SlotIndex),
        counts: Counts,
        hint: u32,
    ) -> Option<Ticket> {
        let count = u32::try_from(self.segment.geometry.connections).unwrap_or(u32::MAX);
        for step in 0..count {
            let index = hint.wrapping_add(step).checked_rem(count)?;
            let word = self.word(index)?;
            let before = word.load(Relaxed);
            if Word(before).state() != FREE {
                continue;
            }
            let nonce = u32::try_from(Word(before).nonce()).unwrap_or(0).wrapping_add(1);
            let bits = if counts == Counts::Nowhere { UNCOUNTED } else { 0 };
            let offered = Word::new(OFFERED | bits, from, to, nonce).0;
            if word.compare_exchange(before, offered, AcqRel, Relaxed).is_ok() {
                return Some(Ticket { index, nonce });
            }
        }
        None
    }

    /// Changes a word as `change` says; `None` from it, or another use of the word, is a failure.
    fn change(self, ticket: Ticket, change: impl Fn(Word) -> Option<u64>) -> bool {
        let Some(word) = self.word(ticket.index) else { return false };
        let mut before = word.load(Acquire);
        loop {
            if Word(before).nonce() != u64::from(ticket.nonce) {
                return false;
            }
            let Some(after) = change(Word(before)) else { return false };
            match word.compare_exchange(before, after, AcqRel, Acquire) {
                Ok(_) => return true,
                Err(now) => before = now,
            }
        }
    }

    /// Old or new: makes the new generation the owner. `false` when the offer was taken back or
    /// decided already.
    pub(super) fn decide(self, ticket: Ticket) -> bool {
        self.change(ticket, |word| (word.state() == OFFERED).then(|| word.then(OWNED, 0).0))
    }

    /// Old: takes the offer back. `false` when the new generation owns the connection.
    pub(super) fn withdraw(self, ticket: Ticket) -> bool {
        self.change(ticket, |word| (word.state() == OFFERED).then(|| word.freed()))
    }

    /// Whether the new generation owns the connection.
    pub(super) fn is_decided(self, ticket: Ticket) -> bool {
        let word = self.word(ticket.index).map(|word| Word(word.load(Acquire)));
        word.is_some_and(|word| word.nonce() == u64::from(ticket.nonce) && word.state() == OWNED)
    }

    /// The generation it is offered to or belongs to.
    pub(super) fn offered_to(self, ticket: Ticket) -> Option<SlotIndex> {
        let word = Word(self.word(ticket.index)?.load(Acquire));
        let same = word.nonce() == u64::from(ticket.nonce) && word.state() != FREE;
        same.then(|| SlotIndex(u32::try_from(word.to()).unwrap_or(u32::MAX)))
    }

    /// Old: it is counted as migrated.
    pub(super) fn old_booked(self, ticket: Ticket) {
        self.change(ticket, |word| (word.state() == OWNED).then(|| word.then(OWNED, OLD_BOOKED).0));
    }

    /// New: it is counted as opened.
    pub(super) fn new_booked(self, ticket: Ticket) {
        self.change(ticket, |word| (word.state() == OWNED).then(|| word.then(OWNED, NEW_BOOKED).0));
    }

    /// Whether something this generation offered is not decided yet. Once it is dead the other side
    /// claims what it has, which takes a moment.
    pub(super) fn has_offers(self, slot: SlotIndex) -> bool {
        let count = u32::try_from(self.segment.geometry.connections).unwrap_or(0);
        let row = u64::from(slot.0) & ROW_MASK;
        (0..count).filter_map(|index| self.word(index)).any(|word| {
            let word = Word(word.load(Acquire));
            word.state() == OFFERED && word.from() == row
        })
    }

    /// Does the part of a generation that died. What the other side took from it was given away;
    /// what was offered to it goes back by the other side's withdrawal.
    pub(super) fn settle_dead(self, slot: SlotIndex) -> Unbooked {
        let mut unbooked = Unbooked::default();
        let count = u32::try_from(self.segment.geometry.connections).unwrap_or(0);
        for index in 0..count {
            let Some(word) = self.word(index) else { break };
            let mut before = word.load(Acquire);
            loop {
                let (after, counts) = dead(Word(before), u64::from(slot.0) & ROW_MASK);
                if after == before {
                    break;
                }
                match word.compare_exchange(before, after, AcqRel, Acquire) {
                    Ok(_) => {
                        unbooked.migrated += counts.migrated;
                        unbooked.received += counts.received;
                        break;
                    }
                    Err(now) => before = now,
                }
            }
        }
        unbooked
    }
}

/// The word after the death of the generation in `row`, and what that generation did not book.
fn dead(word: Word, row: u64) -> (u64, Unbooked) {
    let none = Unbooked::default();
    if word.state() == FREE {
        return (word.0, none);
    }
    let counted = word.0 & UNCOUNTED == 0;
    if word.from() == row && word.state() == OFFERED {
        // Nobody took it: it is lost with its owner.
        return (word.freed(), none);
    }
    if word.from() == row && word.0 & OLD_BOOKED == 0 {
        let after = word.then(OWNED, OLD_BOOKED).0;
        return (after, Unbooked { migrated: u64::from(counted), ..none });
    }
    if word.to() == row && word.state() == OWNED && word.0 & NEW_BOOKED == 0 {
        let after = word.then(OWNED, NEW_BOOKED).0;
        return (after, Unbooked { received: u64::from(counted), ..none });
    }
    (word.0, none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::{
        layout::{Geometry, Identity},
        map, sweep,
    };

    const OLD: SlotIndex = SlotIndex(3);
    const NEW: SlotIndex = SlotIndex(5);

    struct Table(Segment, String);

    impl Table {
        fn new(connections: usize) -> Self {
            let identity =
                Identity { instance: 1, boot: 1, owner_pid: 1, owner_start: 1, base_id: 0 };
            let os_id = sweep::OsId::new(u32::MAX).text();
            let geometry = Geometry { connections, ..Geometry::default() };
            Self(Segment::create(&os_id, geometry, identity).expect("segment"), os_id)
        }

        fn table(&self) -> Connections<'_> {
            Connections { segment: &self.0 }
        }
    }

    impl Drop for Table {
        fn drop(&mut self) {
            map::unlink(&self.1).ok();
        }
    }

    #[test]
    fn exactly_one_side_wins() {
        let table = Table::new(512);
        let t = table.table();
        let ticket = t.offer((OLD, NEW), Counts::InLedger, 7).expect("room");
        assert!(t.decide(ticket), "the new side claims");
        assert!(!t.withdraw(ticket), "too late for the old one");
        assert!(!t.decide(ticket), "decided once");
        assert!(t.is_decided(ticket));
        let other = t.offer((OLD, NEW), Counts::InLedger, 7).expect("room");
        assert_ne!(other.index, ticket.index);
        assert!(t.withdraw(other));
        assert!(!t.decide(other), "taken back");
    }

    #[test]
    fn a_word_is_free_again_once_both_sides_booked_it() {
        let table = Table::new(512);
        let t = table.table();
        for _ in 0..2000 {
            let ticket = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
            assert_eq!(ticket.index, 0);
            assert!(t.decide(ticket));
            t.new_booked(ticket);
            t.old_booked(ticket);
            assert!(!t.is_decided(ticket));
        }
    }

    #[test]
    fn an_old_ticket_does_nothing_to_the_next_use() {
        let table = Table::new(512);
        let t = table.table();
        let first = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
        assert!(t.withdraw(first));
        let second = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
        assert_eq!(first.index, second.index);
        assert!(!t.decide(first));
        assert!(!t.withdraw(first));
        assert!(t.decide(second));
    }

    #[test]
    fn a_full_table_is_no_offer() {
        let table = Table::new(512);
        let t = table.table();
        let all: Vec<_> =
            (0..512).map(|_| t.offer((OLD, NEW), Counts::InLedger, 0).expect("room")).collect();
        assert_eq!(t.offer((OLD, NEW), Counts::InLedger, 0), None);
        assert!(t.withdraw(all[9]));
        assert_eq!(t.offer((OLD, NEW), Counts::InLedger, 0).map(|ticket| ticket.index), Some(9));
    }

    #[test]
    fn the_books_of_a_dead_old_side_say_migrated() {
        let table = Table::new(512);
        let t = table.table();
        let offered = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
        let owned = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
        assert!(t.decide(owned));
        let booked = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
        assert!(t.decide(booked));
        t.old_booked(booked);
        assert!(t.has_offers(OLD) && !t.has_offers(NEW));
        assert_eq!(t.settle_dead(OLD), Unbooked { migrated: 1, received: 0 });
        assert_eq!(t.settle_dead(OLD), Unbooked::default(), "once");
        assert!(!t.has_offers(OLD) && !t.decide(offered), "lost, and nobody can take it any more");
        for ticket in [owned, booked] {
            t.new_booked(ticket);
            assert!(!t.is_decided(ticket), "free");
        }
    }

    #[test]
    fn the_books_of_a_dead_new_side_have_what_it_was_given() {
        let table = Table::new(512);
        let t = table.table();
        let offered = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
        let owned = t.offer((OLD, NEW), Counts::InLedger, 0).expect("room");
        assert!(t.decide(owned));
        assert_eq!(t.settle_dead(NEW), Unbooked { migrated: 0, received: 1 });
        assert!(t.withdraw(offered), "the old side keeps it");
        t.old_booked(owned);
        assert!(!t.is_decided(owned), "free");
    }

    #[test]
    fn what_is_in_no_ledger_is_settled_without_a_count() {
        let table = Table::new(512);
        let t = table.table();
        let given = t.offer((OLD, NEW), Counts::Nowhere, 0).expect("room");
        assert!(t.decide(given));
        let taken = t.offer((NEW, OLD), Counts::Nowhere, 0).expect("room");
        assert!(t.decide(taken));
        assert_eq!(t.settle_dead(OLD), Unbooked::default());
        t.new_booked(given);
        t.old_booked(taken);
        assert!(!t.is_decided(given) && !t.is_decided(taken), "free");
    }

    #[test]
    fn two_threads_never_both_win() {
        let table = Table::new(512);
        for _ in 0..500 {
            let ticket = table.table().offer((OLD, NEW), Counts::InLedger, 0).expect("room");
            let (new, old) = std::thread::scope(|scope| {
                let new = scope.spawn(|| table.table().decide(ticket));
                let old = table.table().withdraw(ticket);
                (new.join().expect("thread"), old)
            });
            assert!(new != old, "one of the two");
            table.table().old_booked(ticket);
            table.table().new_booked(ticket);
        }
    }
}

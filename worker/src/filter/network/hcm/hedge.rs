//! Tries that go on beside the one that took their place (`hedge_on_per_try_timeout`): whoever answers first
//! answers the client.
//!
//! The code that drives the present try drives the others, too: each is put in its place for a moment.

use std::{ops::ControlFlow, task::Context};

use super::{
    attempt::{Attempt, Link},
    connection::Flow,
    downstream::Downstream,
    exchange::Exchange,
};
/// The tries of a request beside the present one.
#[derive(Debug, Default)]
pub(super) struct Hedge {
    beside: Vec<Attempt>,
    /// One of those is in the place of the present one.
    in_place: bool,
    /// So many tries are open, beside the one in its place.
    others: usize,
}

impl Hedge {
    /// No try goes on beside the present one.
    pub(super) fn is_empty(&self) -> bool {
        self.others == 0
    }
}

impl Exchange {
    /// The present try is over its time: true when it goes on, beside the next one if there is a retry left.
    pub(super) fn hedges(&mut self, down: &Downstream) -> bool {
        let Some(retrying) = &mut self.retrying else { return false };
        if !retrying.tries.per_try.hedge {
            return false;
        }
        // Its time is over once.
        retrying.connected = None;
        if self.takes_retry(true) {
            let wait = self.wait(false, down);
            let slow = self.schedule(down, wait, true);
            if let Some(retrying) = &mut self.retrying {
                retrying.hedge.beside.push(slow);
                retrying.hedge.others += 1;
            }
        }
        true
    }

    /// The try in place ended without an answer that the client gets: true when that is no matter, because
    /// another one is open.
    pub(super) fn leaves_it_to_others(&mut self) -> bool {
        let Some(retrying) = &mut self.retrying else { return false };
        let hedge = &mut retrying.hedge;
        if hedge.others == 0 {
            return false;
        }
        hedge.others -= 1;
        self.attempt.link = Link::None;
        self.response.clear();
        if !hedge.in_place
            && let Some(other) = hedge.beside.pop()
        {
            self.attempt = other;
        }
        true
    }

    /// Does what the tries beside the present one can do now.
    pub(super) fn drive_hedge(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        let Some(retrying) = self.retrying.as_mut().filter(|r| !r.hedge.beside.is_empty()) else {
            return ControlFlow::Continue(false);
        };
        let mut beside = std::mem::take(&mut retrying.hedge.beside);
        let mut moved = false;
        self.set_in_place(true);
        let mut at = 0;
        while let Some(other) = beside.get_mut(at) {
            std::mem::swap(&mut self.attempt, other);
            self.attempt.take_back();
            moved |= self.drive_attempt(down, cx)?;
            if !self.response_waiting() {
                self.end_tries();
                return ControlFlow::Continue(true);
            }
            std::mem::swap(&mut self.attempt, other);
            if matches!(other.link, Link::None) {
                beside.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.set_in_place(false);
        if let Some(retrying) = &mut self.retrying {
            retrying.hedge.beside = beside;
        }
        ControlFlow::Continue(moved)
    }

    /// The client gets its answer: no other try is needed.
    pub(super) fn end_tries(&mut self) {
        if let Some(retrying) = &mut self.retrying {
            retrying.hedge = Hedge::default();
            retrying.due = None;
        }
    }

    fn set_in_place(&mut self, in_place: bool) {
        if let Some(retrying) = &mut self.retrying {
            retrying.hedge.in_place = in_place;
        }
    }
}

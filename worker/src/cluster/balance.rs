//! Chooses the endpoint of the next request. A [`Picker`] belongs to one thread and one cluster,
//! is plain data, and takes no lock.
//!
//! - `ROUND_ROBIN`: earliest deadline first. The k-th turn of an endpoint of weight w is due at
//!   (2k-1)/2w, so every Σw picks give each endpoint exactly its weight, spread evenly.
//! - `LEAST_REQUEST`: with equal weights the least busy of `choice_count` random endpoints; with
//!   different weights earliest deadline first with weight/(active+1), as Envoy does.
//! - `RANDOM`: proportional to the weights.

#[cfg(test)]
mod tests;

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use super::endpoint::{Endpoint, EndpointSet};
use crate::config::cluster::Balancer;

/// Chooses endpoints of one cluster for one thread.
#[derive(Debug)]
pub struct Picker {
    policy: Balancer,
    random: fastrand::Rng,
    /// Version of the set the state below was made for; 0 = none.
    version: u64,
    /// Next index of an unweighted rotation.
    next: usize,
    /// Turns of a weighted rotation.
    turns: BinaryHeap<Turn>,
    /// Virtual time of a weighted rotation.
    time: f64,
    /// Running sums of the weights for `RANDOM`.
    sums: Vec<u64>,
}

/// What a pick takes into account.
#[derive(Clone, Copy, Debug)]
pub struct PickContext<'a> {
    /// Numbers of the endpoints that were tried.
    pub tried: &'a [u64],
    /// What to do when one of those is chosen.
    pub further: Further,
}

/// What follows the choice of an endpoint that was tried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Further {
    /// That many choices more, as `host_selection_retry_max_attempts` says for `previous_hosts`.
    Choices(u32),
    /// A few choices more, then the first endpoint that was not tried.
    Search,
}

/// The next turn of an endpoint.
#[derive(Clone, Copy, Debug)]
struct Turn {
    due: f64,
    /// Which turn of this endpoint it is, 1 for the first.
    number: u64,
    index: usize,
}

impl Ord for Turn {
    /// The heap gives the greatest first, and that must be the turn due earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.total_cmp(&self.due).then_with(|| other.index.cmp(&self.index))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

impl Picker {
    /// A picker; different seeds make the threads start at different endpoints.
    pub fn new(policy: Balancer, seed: u64) -> Self {
        Self {
            policy,
            random: fastrand::Rng::with_seed(seed),
            version: 0,
            next: 0,
            turns: BinaryHeap::new(),
            time: 0.0,
            sums: Vec::new(),
        }
    }

    /// The endpoint of the next request, `None` when the cluster has none.
    pub fn pick(&mut self, set: &EndpointSet) -> Option<Arc<Endpoint>> {
        let active = set.active();
        if active.len() < 2 {
            return active.first().cloned();
        }
        if self.version != set.version {
            self.rebuild(set);
        }
        let index = match self.policy {
            Balancer::RoundRobin if set.is_weighted() => self.take_turn(active, spread_weight),
            Balancer::RoundRobin => self.rotate(active.len()),
            Balancer::LeastRequest(_) if set.is_weighted() => self.take_turn(active, busy_weight),
            Balancer::LeastRequest(choices) => self.least_busy(active, choices),
            Balancer::Random if set.is_weighted() => self.weighted_random(),
            Balancer::Random => self.random.usize(..active.len()),
        };
        active.get(index).cloned()
    }

    /// Like [`Self::pick`] with more to take into account. Endpoints that were tried come last, not
    /// never: when nothing else was found, the last choice stands.
    pub fn pick_with(
        &mut self,
        set: &EndpointSet,
        context: &PickContext<'_>,
    ) -> Option<Arc<Endpoint>> {
        let is_tried = |endpoint: &Arc<Endpoint>| context.tried.contains(&endpoint.id);
        let further = match context.further {
            Further::Choices(choices) => choices,
            Further::Search => SEARCH_CHOICES,
        };
        let mut picked = self.pick(set)?;
        for _ in 0..further {
            if !is_tried(&picked) {
                return Some(picked);
            }
            picked = self.pick(set)?;
        }
        if context.further == Further::Search && is_tried(&picked) {
            let fresh = set.active().iter().find(|endpoint| !is_tried(endpoint));
            return Some(fresh.cloned().unwrap_or(picked));
        }
        Some(picked)
    }

    fn rebuild(&mut self, set: &EndpointSet) {
        let active = set.active();
        if self.version == 0 {
            self.next = self.random.usize(..active.len());
        }
        self.version = set.version;
        self.turns.clear();
        self.sums.clear();
        self.time = 0.0;
        if !set.is_weighted() {
            return;
        }
        match self.policy {
            Balancer::RoundRobin => self.fill_turns(active, spread_weight),
            Balancer::LeastRequest(_) => self.fill_turns(active, busy_weight),
            Balancer::Random => self.fill_sums(active),
        }
    }

    fn fill_sums(&mut self, active: &[Arc<Endpoint>]) {
        let mut sum = 0_u64;
        for endpoint in active {
            sum = sum.saturating_add(u64::from(endpoint.info.weight.max(1)));
            self.sums.push(sum);
        }
    }

    fn fill_turns(&mut self, active: &[Arc<Endpoint>], due: Due) {
        for (index, endpoint) in active.iter().enumerate() {
            self.turns.push(Turn { due: due(endpoint, 1, 0.0), number: 1, index });
        }
        // Without this every thread would begin with the heaviest endpoint after each update.
        for _ in 0..self.random.usize(..active.len()) {
            self.take_turn(active, due);
        }
    }

    fn take_turn(&mut self, active: &[Arc<Endpoint>], due: Due) -> usize {
        // Changed in its place, which orders the heap once and not twice.
        let Some(mut turn) = self.turns.peek_mut() else { return 0 };
        self.time = turn.due;
        let index = turn.index;
        match active.get(index) {
            Some(endpoint) => {
                turn.number = turn.number.saturating_add(1);
                turn.due = due(endpoint, turn.number, self.time);
            }
            None => drop(PeekMut::pop(turn)),
        }
        index
    }

    fn rotate(&mut self, len: usize) -> usize {
        let index = if self.next < len { self.next } else { 0 };
        self.next = index.saturating_add(1);
        index
    }

    fn least_busy(&mut self, active: &[Arc<Endpoint>], choices: u32) -> usize {
        let mut best = self.random.usize(..active.len());
        let mut least = active.get(best).map_or(u64::MAX, |e| e.active_requests());
        for _ in 1..choices.max(1) {
            let other = self.random.usize(..active.len());
            let busy = active.get(other).map_or(u64::MAX, |e| e.active_requests());
            if busy < least {
                (best, least) = (other, busy);
            }
        }
        best
    }

    fn weighted_random(&mut self) -> usize {
        let total = self.sums.last().copied().unwrap_or(1).max(1);
        let point = self.random.u64(..total);
        self.sums.partition_point(|sum| *sum <= point)
    }
}

/// Further choices before the plain search of [`Further::Search`].
const SEARCH_CHOICES: u32 = 7;

/// When turn `number` of an endpoint is due, if the previous one was at `time`.
type Due = fn(endpoint: &Endpoint, number: u64, time: f64) -> f64;

/// Computed from the number and not from the previous turn, so that no rounding adds up.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^52 turns")]
fn spread_weight(endpoint: &Endpoint, number: u64, _time: f64) -> f64 {
    (number as f64 - 0.5) / f64::from(endpoint.info.weight.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "a hint, and exact up to 2^53 requests")]
fn busy_weight(endpoint: &Endpoint, _number: u64, time: f64) -> f64 {
    let busy = endpoint.active_requests() as f64 + 1.0;
    time + busy / f64::from(endpoint.info.weight.max(1))
}

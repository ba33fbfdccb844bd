//! Finds the first matching route of a long list without looking at every route.
//!
//! The index only narrows the choice: it yields, in order, a superset of the routes whose path
//! can match, and the caller's test decides. So a collision of hashes costs time and never an
//! answer, and the result is the one of walking the list.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::config::route::{PathMatcher, RouteMatch};

/// Lists up to this length, in routes, are walked: that is as fast as hashing the path.
const SHORT: usize = 8;

/// An index of the routes of one virtual host.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    routes: usize,
    exact: Buckets,
    prefixes: Buckets,
    /// Lengths of all prefixes in bytes, ascending, each once.
    lengths: Vec<usize>,
    /// Routes that cannot be looked up: regular expressions, any case, CONNECT.
    others: Vec<usize>,
}

/// Positions by hash of the path, ascending.
type Buckets = HashMap<u64, Vec<usize>, BuildHasherDefault<Passed>>;

impl PathIndex {
    pub(super) fn new<'a>(routes: impl Iterator<Item = &'a RouteMatch>) -> Self {
        let mut index = Self::default();
        for (position, route) in routes.enumerate() {
            index.routes += 1;
            match &route.path {
                PathMatcher::Exact(path) if route.case_sensitive => {
                    index.exact.entry(Fnv::of(path.as_bytes())).or_default().push(position);
                }
                PathMatcher::Prefix(path) | PathMatcher::SeparatedPrefix(path)
                    if route.case_sensitive =>
                {
                    index.lengths.push(path.len());
                    index.prefixes.entry(Fnv::of(path.as_bytes())).or_default().push(position);
                }
                PathMatcher::Exact(_)
                | PathMatcher::Prefix(_)
                | PathMatcher::SeparatedPrefix(_)
                | PathMatcher::Regex(_)
                | PathMatcher::Connect => index.others.push(position),
            }
        }
        index.lengths.sort_unstable();
        index.lengths.dedup();
        index
    }

    /// The position of the first route of the list for which `matches` holds.
    pub(super) fn find(&self, path: &[u8], matches: impl Fn(usize) -> bool) -> Option<usize> {
        if self.routes <= SHORT {
            return (0..self.routes).find(|position| matches(*position));
        }
        let mut best = self.routes;
        let mut walk = |positions: &[usize]| {
            let earlier = positions.iter().take_while(|position| **position < best);
            if let Some(found) = earlier.copied().find(|position| matches(*position)) {
                best = found;
            }
        };
        let mut hash = Fnv::default();
        let mut hashed = 0;
        for length in &self.lengths {
            let Some(more) = path.get(hashed..*length) else { break };
            hash.add(more);
            hashed = *length;
            if let Some(positions) = self.prefixes.get(&hash.0) {
                walk(positions);
            }
        }
        if !self.exact.is_empty() {
            hash.add(path.get(hashed..).unwrap_or_default());
            if let Some(positions) = self.exact.get(&hash.0) {
                walk(positions);
            }
        }
        walk(&self.others);
        Some(best).filter(|best| *best < self.routes)
    }
}

/// The FNV-1a hash, which can be continued: one pass gives the hash of every prefix.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.add(bytes);
        hash.0
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Passes a hash through: the keys are hashes already.
#[derive(Default)]
struct Passed(u64);

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut hash = Fnv(self.0);
        hash.add(bytes);
        self.0 = hash.0;
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

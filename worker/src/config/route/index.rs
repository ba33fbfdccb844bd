//! Finds the first matching route of a long list without looking at every route.
//!
//! The index only narrows the choice: it yields, in order, a superset of the routes whose path
//! can match, and the caller's test decides. So a collision of hashes costs time and never an
//! answer, and the result is the one of walking the list.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use super::{PathMatcher, Route};

/// Lists up to this length, in routes, are walked: that is as fast as hashing the path.
const SHORT: usize = 8;

/// An index of the routes of one virtual host.
#[derive(Clone, Debug, Default)]
pub(super) struct PathIndex {
    routes: usize,
    /// Routes for which the case of letters matters.
    as_is: Paths,
    /// Routes for which it does not; their paths in lower case.
    any_case: Paths,
    /// Routes that cannot be looked up: regular expressions, CONNECT.
    others: Vec<usize>,
}

/// Positions by hash of the path, ascending.
type Buckets = HashMap<u64, Vec<usize>, BuildHasherDefault<Passed>>;

/// Paths and prefixes of paths.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: Buckets,
    prefixes: Buckets,
    /// Lengths of all prefixes in bytes, ascending, each once.
    lengths: Vec<usize>,
}

impl PathIndex {
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        let mut index = Self { routes: routes.len(), ..Self::default() };
        if index.is_short() {
            return index;
        }
        for (position, route) in routes.iter().map(|route| &route.matches).enumerate() {
            let (paths, fold): (_, fn(u8) -> u8) = if route.case_sensitive {
                (&mut index.as_is, as_is)
            } else {
                (&mut index.any_case, lower_case)
            };
            match &route.path {
                PathMatcher::Exact(path) => {
                    let hash = Fnv::of(path.as_bytes(), fold);
                    paths.exact.entry(hash).or_default().push(position);
                }
                PathMatcher::Prefix(path) | PathMatcher::SeparatedPrefix(path) => {
                    let hash = Fnv::of(path.as_bytes(), fold);
                    paths.prefixes.entry(hash).or_default().push(position);
                    paths.lengths.push(path.len());
                }
                PathMatcher::Regex(_) | PathMatcher::Connect => index.others.push(position),
            }
        }
        for paths in [&mut index.as_is, &mut index.any_case] {
            paths.lengths.sort_unstable();
            paths.lengths.dedup();
        }
        index
    }

    fn is_short(&self) -> bool {
        self.routes <= SHORT
    }

    /// The position of the first route of the list for which `matches` holds.
    pub(super) fn find(&self, path: &[u8], matches: impl Fn(usize) -> bool) -> Option<usize> {
        if self.is_short() {
            return (0..self.routes).find(|position| matches(*position));
        }
        let mut best = self.routes;
        let mut walk = |positions: &[usize]| {
            let earlier = positions.iter().take_while(|position| **position < best);
            if let Some(found) = earlier.copied().find(|position| matches(*position)) {
                best = found;
            }
        };
        self.as_is.candidates(path, as_is, &mut walk);
        self.any_case.candidates(path, lower_case, &mut walk);
        walk(&self.others);
        Some(best).filter(|best| *best < self.routes)
    }
}

impl Paths {
    /// Walks the routes whose path, or prefix of it, has the hash of this one.
    fn candidates(
        &self,
        path: &[u8],
        fold: impl Fn(u8) -> u8 + Copy,
        walk: &mut impl FnMut(&[usize]),
    ) {
        let mut hash = Fnv::default();
        let mut hashed = 0;
        for length in &self.lengths {
            let Some(more) = path.get(hashed..*length) else { break };
            hash.add(more, fold);
            hashed = *length;
            if let Some(positions) = self.prefixes.get(&hash.0) {
                walk(positions);
            }
        }
        if !self.exact.is_empty() {
            hash.add(path.get(hashed..).unwrap_or_default(), fold);
            if let Some(positions) = self.exact.get(&hash.0) {
                walk(positions);
            }
        }
    }
}

const fn as_is(byte: u8) -> u8 {
    byte
}

const fn lower_case(byte: u8) -> u8 {
    byte.to_ascii_lowercase()
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
    fn of(bytes: &[u8], fold: impl Fn(u8) -> u8) -> u64 {
        let mut hash = Self::default();
        hash.add(bytes, fold);
        hash.0
    }

    fn add(&mut self, bytes: &[u8], fold: impl Fn(u8) -> u8) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(fold(*byte))).wrapping_mul(0x0000_0100_0000_01b3);
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
        hash.add(bytes, as_is);
        self.0 = hash.0;
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

//! Whether connections really moved: the client's end stayed the same, the process that holds the
//! proxy's end did not.
//!
//! A thread looks again and again which process has the proxy's end of every open connection
//! ([`crate::owners`]). When a connection ends, it counts if it had lived across a whole reload.

use crate::owners::{self, Pair};
use crate::tally::{Phase, Workload};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks at the owners.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// A connection lived across a reload when it was there before, and this long after it. Two looks at
/// least, and longer than a probation of one second.
const SETTLE: Duration = Duration::from_secs(4);
/// A request that overlaps a reload or this time after it is one during a reload.
const AFTERMATH: Duration = Duration::from_secs(2);
/// Reloads remembered.
const RELOADS_MAX: usize = 64;

/// Connections of one kind that lived across a reload.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Moved {
    /// Their number.
    pub(crate) crossed: u64,
    /// Those whose owner changed.
    pub(crate) moved: u64,
}

#[derive(Debug)]
struct Entry {
    workload: Workload,
    since: Instant,
    owner: Option<u32>,
    moved: bool,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<Pair, Entry>,
    /// When each began, and ended if it did.
    reloads: VecDeque<(Instant, Option<Instant>)>,
    results: BTreeMap<Workload, Moved>,
    /// A process that holds copies of descriptors for others, and does not count.
    keeper: Option<u32>,
}

/// What is known about the connections of one run.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    state: Mutex<State>,
}

impl Moves {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does not count this process as an owner.
    pub(crate) fn set_keeper(&self, keeper: Option<u32>) {
        self.state().keeper = keeper;
    }

    /// A connection begins; it ends with the value.
    pub(crate) fn watch(self: &Arc<Self>, workload: Workload, pair: Pair) -> Watched {
        let since = Instant::now();
        let entry = Entry { workload, since, owner: None, moved: false };
        self.state().open.insert(pair, entry);
        Watched { moves: Arc::clone(self), pair }
    }

    /// A reload begins.
    pub(crate) fn reload_begins(&self) {
        let mut state = self.state();
        if state.reloads.len() == RELOADS_MAX {
            state.reloads.pop_front();
        }
        state.reloads.push_back((Instant::now(), None));
    }

    /// The reload that began last is over.
    pub(crate) fn reload_ended(&self) {
        if let Some((_, ended)) = self.state().reloads.back_mut() {
            *ended = Some(Instant::now());
        }
    }

    /// Whether a reload goes on or has just ended.
    pub(crate) fn phase(&self) -> Phase {
        let now = Instant::now();
        let state = self.state();
        match state.reloads.back() {
            Some((_, ended)) if ended.is_none_or(|ended| ended + AFTERMATH > now) => Phase::Reload,
            Some(_) | None => Phase::Calm,
        }
    }

    /// What was counted.
    pub(crate) fn of(&self, workload: Workload) -> Moved {
        self.state().results.get(&workload).copied().unwrap_or_default()
    }

    /// Looks who owns what.
    pub(crate) fn look(&self) {
        let pairs: Vec<Pair> = self.state().open.keys().copied().collect();
        let found = owners::owners(pairs);
        let mut state = self.state();
        let keeper = state.keeper;
        for (pair, mut pids) in found {
            let Some(entry) = state.open.get_mut(&pair) else { continue };
            pids.retain(|pid| Some(*pid) != keeper);
            // Two have it while it is handed over; the next look decides.
            let [owner] = pids.as_slice() else { continue };
            entry.moved |= entry.owner.is_some_and(|before| before != *owner);
            entry.owner = Some(*owner);
        }
    }

    fn ended(&self, pair: Pair) {
        let now = Instant::now();
        let mut state = self.state();
        let Some(entry) = state.open.remove(&pair) else { return };
        let settled = |ended: &Option<Instant>| ended.is_some_and(|at| at + SETTLE < now);
        let last = state.reloads.iter().rfind(|(_, ended)| settled(ended));
        if entry.owner.is_none() || last.is_none_or(|(began, _)| *began < entry.since) {
            return;
        }
        let result = state.results.entry(entry.workload).or_default();
        result.crossed += 1;
        result.moved += u64::from(entry.moved);
    }
}

/// A connection that is watched while this value lives.
#[derive(Debug)]
pub(crate) struct Watched {
    moves: Arc<Moves>,
    pair: Pair,
}

impl Watched {
    /// The client's end, which must never change.
    pub(crate) fn client(&self) -> SocketAddr {
        self.pair.1
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.moves.ended(self.pair);
    }
}

/// The thread that looks; it ends with this value.
#[derive(Debug)]
pub(crate) struct Lookout {
    _stop: Sender<()>,
}

impl Lookout {
    /// Looks until the value is dropped.
    pub(crate) fn start(moves: &Arc<Moves>) -> Self {
        let (stop, stopped) = channel::<()>();
        let moves = Arc::clone(moves);
        std::thread::spawn(move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                moves.look();
            }
        });
        Self { _stop: stop }
    }
}

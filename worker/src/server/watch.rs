//! Finds worker threads that spin or hang. Runs on the main thread; asks the threads nothing, because
//! such a thread answers nothing.
//!
//! A thread that works shows a pulse each 200 ms. One whose pulse is late is looked at as the kernel
//! sees it, so that a thread that is not given a processor, or was stopped, is not blamed:
//!
//! ```text
//! pulse is late ──→ used processor time since then    → it spins
//!                   waits, and was not woken since    → it hangs
//!                   runs without using time           → it waits for a processor: not its fault
//! ```

use std::{
    cell::{Cell, RefCell},
    fs,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use baton_contract::{
    message::{MAX_STUCK, StuckThread},
    shm::mono_ms,
    task::{Doing, Task},
};
use tokio::sync::Notify;

use super::books::Pulse;
use crate::activity::Activity;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Longest time between two looks of a main thread that gets a processor.
const GAP_MAX_MS: u64 = 1000;
/// A thread without a processor for so long is mentioned.
const STARVED_MS: u64 = 10_000;
/// Without the kernel's word a thread has to be late by this factor.
const BLIND_FACTOR: u64 = 5;

/// What is wrong with a thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// It uses a processor and comes to no end.
    Spins,
    /// It waits for something that does not come.
    Hangs,
    /// It is gone.
    Ended,
}

impl Fault {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Spins => "spins",
            Self::Hangs => "hangs",
            Self::Ended => "ended",
        }
    }
}

/// What a worker thread shows to the main thread.
#[derive(Debug, Default)]
pub(super) struct Signs {
    pub pulse: Pulse,
    pub activity: Arc<Activity>,
}

/// What the main thread thinks of a worker thread.
#[derive(Debug)]
pub(super) struct Opinion {
    fault: Cell<Option<Fault>>,
    changed: Notify,
}

impl Opinion {
    pub(super) fn good() -> Rc<Self> {
        Rc::new(Self { fault: Cell::new(None), changed: Notify::new() })
    }

    /// The thread does not answer.
    pub(super) fn is_stuck(&self) -> bool {
        self.fault.get().is_some()
    }

    /// Returns when the thread is known not to answer.
    pub(super) async fn stuck(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_stuck() {
                return;
            }
            changed.await;
        }
    }
}

/// One thread that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub index: u32,
    pub signs: Arc<Signs>,
    pub opinion: Rc<Opinion>,
    late: RefCell<Option<Late>>,
}

/// A pulse that is late.
#[derive(Clone, Copy, Debug)]
struct Late {
    /// The pulse.
    pulse: u64,
    /// When the thread was looked at first, and what was seen.
    since: u64,
    first: Option<Task>,
    told: bool,
}

impl Watched {
    pub(super) fn new(index: u32, signs: &Arc<Signs>, opinion: &Rc<Opinion>) -> Self {
        let (signs, opinion) = (Arc::clone(signs), Rc::clone(opinion));
        Self { index, signs, opinion, late: RefCell::default() }
    }

    /// The main thread itself was not there for a while, so nobody knows for how long the thread has
    /// waited. What it has used is true all the same.
    fn forgive(&self, now: u64) {
        if let Some(late) = &mut *self.late.borrow_mut() {
            late.since = now;
        }
    }

    /// Looks at the thread; true when the opinion changed.
    fn look(&self, now: u64, limit: u64) -> bool {
        let Some(thread) = self.signs.pulse.thread() else { return false };
        let task = || Task::look(std::process::id(), thread);
        let fault = if self.signs.pulse.is_over() {
            Some(Fault::Ended)
        } else {
            self.judge(now, limit, task)
        };
        if fault == self.opinion.fault.replace(fault) {
            return false;
        }
        self.opinion.changed.notify_waiters();
        self.tell(now, fault, thread);
        true
    }

    /// What is wrong with the thread, if anything. `limit` is in ms.
    fn judge(&self, now: u64, limit: u64, task: impl Fn() -> Option<Task>) -> Option<Fault> {
        let pulse = self.signs.pulse.at();
        let (mut late, known) = (self.late.borrow_mut(), self.opinion.fault.get());
        let age = now.saturating_sub(pulse);
        if age <= limit / 3 {
            *late = None;
            return None;
        }
        let begin = || Late { pulse, since: now, first: task(), told: false };
        let seen = match &mut *late {
            Some(seen) if seen.pulse == pulse => seen,
            other => {
                other.replace(begin());
                return None;
            }
        };
        if known.is_some() {
            return known;
        }
        let (Some(first), Some(last)) = (seen.first, task()) else {
            return (age > limit.saturating_mul(BLIND_FACTOR)).then_some(Fault::Hangs);
        };
        let enough = Duration::from_millis(limit / 3 * 2);
        let watched = Duration::from_millis(now.saturating_sub(seen.since));
        if last.used.saturating_sub(first.used) >= enough {
            return Some(Fault::Spins);
        }
        match last.doing {
            Doing::Waits if last.switches == first.switches && watched >= enough => {
                return Some(Fault::Hangs);
            }
            // It was woken since, so it gets on: memory that comes back from a disk, for example.
            Doing::Waits if last.switches != first.switches => *seen = begin(),
            Doing::Stopped => *seen = begin(),
            Doing::Runs if age > STARVED_MS && !seen.told => {
                seen.told = true;
                tracing::warn!(thread = self.index, "a worker thread waits for a processor");
            }
            Doing::Waits | Doing::Runs => {}
        }
        None
    }

    fn tell(&self, now: u64, fault: Option<Fault>, thread: u32) {
        let Some(fault) = fault else {
            return tracing::warn!(thread = self.index, "a stuck worker thread goes on");
        };
        let (work, connection) = self.signs.activity.last(u64::from(self.index));
        let for_ms = now.saturating_sub(self.signs.pulse.at());
        let kernel = if fault == Fault::Hangs { waits_for(thread) } else { String::new() };
        let (fault, work) = (fault.as_str(), work.as_str());
        tracing::error!(
            thread = self.index,
            fault,
            for_ms,
            began_last = work,
            connection,
            kernel,
            "a worker thread makes no progress"
        );
    }

    /// As the supervisor is told; `None` for a thread that works.
    pub(super) fn report(&self) -> Option<StuckThread> {
        let fault = self.opinion.fault.get()?;
        let (work, connection) = self.signs.activity.last(u64::from(self.index));
        let for_ms = mono_ms().saturating_sub(self.signs.pulse.at());
        let (index, work) = (self.index, work.as_str());
        let of = connection.map_or_else(String::new, |id| format!(" of connection {id}"));
        let text = match fault {
            Fault::Ended => format!("worker thread {index} ended; it began last: {work}{of}"),
            Fault::Spins | Fault::Hangs => {
                let (fault, seconds) = (fault.as_str(), for_ms / 1000);
                format!("worker thread {index} {fault} for {seconds} s; it began last: {work}{of}")
            }
        };
        let connections = self.signs.pulse.books().open_now();
        Some(StuckThread { thread: index, for_ms, connections, text })
    }
}

/// The name of the place in the kernel where a thread waits.
fn waits_for(thread: u32) -> String {
    fs::read_to_string(format!("/proc/self/task/{thread}/wchan")).unwrap_or_default()
}

/// All threads of the process.
#[derive(Debug)]
pub(super) struct Watch(pub Vec<Watched>);

impl Watch {
    /// Watches until the process ends; `news` hears of each change.
    pub(super) async fn run(self: Rc<Self>, limit: Duration, news: Rc<Notify>) {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut before = mono_ms();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = mono_ms();
            if now.saturating_sub(before) > GAP_MAX_MS {
                self.0.iter().for_each(|watched| watched.forgive(now));
            }
            before = now;
            // All of them are looked at, whatever the first ones are like.
            let changes = self.0.iter().filter(|watched| watched.look(now, limit)).count();
            if changes > 0 {
                news.notify_one();
            }
        }
    }

    /// The threads that make no progress.
    pub(super) fn stuck(&self) -> Vec<StuckThread> {
        self.0.iter().filter_map(Watched::report).take(MAX_STUCK).collect()
    }

    /// Open connections of the threads that work.
    pub(super) fn served(&self) -> u64 {
        let works = self.0.iter().filter(|watched| !watched.opinion.is_stuck());
        works.map(|watched| watched.signs.pulse.books().open_now()).sum()
    }

    /// When the process was alive last, in ms of `mono_ms`: now, or when the thread that is stuck
    /// for the longest time was.
    pub(super) fn alive_at(&self) -> u64 {
        let stuck = self.0.iter().filter(|watched| watched.opinion.is_stuck());
        stuck.map(|watched| watched.signs.pulse.at()).min().unwrap_or_else(mono_ms)
    }
}

#[cfg(test)]
mod tests;

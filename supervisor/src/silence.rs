//! Workers whose main thread shows no sign of life. One that is not given a processor cannot, and is
//! not blamed for it: the kernel tells that it wants to run, and that it has hardly run.
//!
//! ```text
//! no sign for 1 s ──→ looked at ──→ runs, and used little since then  → excused
//!                              ├──→ runs, and used much of that time  → it spins
//!                              └──→ waits, was stopped, not known     → it hangs
//! ```

use std::time::Duration;

use baton_contract::task::{Doing, Task};

use crate::state::event::Time;

/// After so long without a sign the kernel is asked.
const QUIET: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// A main thread that got this much of a processor had enough to show a sign.
const ENOUGH: Duration = Duration::from_secs(1);

/// The silence of one worker.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// When it was noticed.
    since: Option<Time>,
    /// What was seen at the first look, and when.
    first: Option<(Time, Task)>,
    /// When the last look was.
    looked: Time,
    /// The log has it.
    told: bool,
}

/// What is to be thought of a silence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Excuse {
    /// There is none, or nobody looked.
    None,
    /// The worker waits for a processor, which is news.
    News,
    /// It still does.
    Known,
}

impl Silence {
    /// Whether the worker could not show a sign; `look` looks at its main thread.
    pub(crate) fn excuse(&mut self, now: Time, look: impl FnOnce() -> Option<Task>) -> Excuse {
        let since = *self.since.get_or_insert(now);
        let due = self.looked.saturating_add(LOOK).max(since.saturating_add(QUIET));
        if now < due {
            return Excuse::None;
        }
        self.looked = now;
        let Some(task) = look() else { return Excuse::None };
        let (begun, first) = *self.first.get_or_insert((now, task));
        let used = task.used.saturating_sub(first.used);
        let elapsed = now.saturating_sub(begun);
        let starved = task.doing == Doing::Runs && used < ENOUGH && used < elapsed / 2;
        let told = self.told;
        self.told |= starved;
        match (starved, told) {
            (false, _) => Excuse::None,
            (true, false) => Excuse::News,
            (true, true) => Excuse::Known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(doing: Doing, percent: u32) -> Vec<Excuse> {
        let mut silence = Silence::default();
        let judge = |quarter: u32| {
            let now = Duration::from_millis(250) * quarter;
            let task = Task { doing, used: now * percent / 100, switches: u64::from(quarter) };
            silence.excuse(now, || Some(task))
        };
        (0..40).map(judge).collect()
    }

    #[test]
    fn only_a_main_thread_that_wants_to_run_and_hardly_does_is_excused() {
        let starved = judge(Doing::Runs, 5);
        assert_eq!((starved[4], starved[5]), (Excuse::None, Excuse::News));
        assert!(starved[6..].iter().all(|excuse| *excuse == Excuse::Known), "{starved:?}");
        for (doing, percent) in
            [(Doing::Runs, 100), (Doing::Runs, 60), (Doing::Waits, 0), (Doing::Stopped, 0)]
        {
            let found = judge(doing, percent);
            assert!(found.iter().all(|excuse| *excuse == Excuse::None), "{doing:?} {found:?}");
        }
    }

    #[test]
    fn a_main_thread_that_spins_on_a_busy_machine_is_not_excused_for_ever() {
        let found = judge(Doing::Runs, 20);
        assert_eq!(found[8], Excuse::Known);
        assert_eq!(found[39], Excuse::None, "it had more than a second");
    }

    #[test]
    fn a_thread_that_cannot_be_looked_at_is_not_excused() {
        let mut silence = Silence::default();
        for at in 0..20 {
            assert_eq!(silence.excuse(Duration::from_secs(at), || None), Excuse::None);
        }
    }
}

//! What the kernel tells about a thread: whether it runs or waits, and what it has used. With it a
//! thread that does not work can be told from one that is not given a processor.

use std::{fs, time::Duration};

/// The unit of processor time in /proc. Linux fixes it for all programs.
const TICK: Duration = Duration::from_millis(10);

/// What a thread does at this moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doing {
    /// It runs, or waits for its turn on a processor.
    Runs,
    /// It waits for something else.
    Waits,
    /// It was stopped, by a signal or a debugger.
    Stopped,
}

/// A thread, as seen from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Task {
    /// What it does.
    pub doing: Doing,
    /// Processor time it has used since it began, in steps of 10 ms.
    pub used: Duration,
    /// How often it gave up a processor, or lost it.
    pub switches: u64,
}

impl Task {
    /// Looks at a thread of a process; `None` when it does not live, or the kernel does not tell.
    pub fn look(process: u32, thread: u32) -> Option<Self> {
        let directory = format!("/proc/{process}/task/{thread}");
        let read = |name: &str| fs::read_to_string(format!("{directory}/{name}")).ok();
        Self::parse(&read("stat")?, &read("status")?)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name may hold anything, so fields are counted from its closing parenthesis.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let doing = match fields.next()? {
            "R" => Doing::Runs,
            "T" | "t" => Doing::Stopped,
            "Z" | "X" => return None,
            _ => Doing::Waits,
        };
        let mut times = fields.skip(10);
        let user: u32 = times.next()?.parse().ok()?;
        let system: u32 = times.next()?.parse().ok()?;
        let used = TICK.saturating_mul(user.saturating_add(system));
        let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        let switches = counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok());
        Some(Self { doing, used, switches: switches.fold(0, u64::saturating_add) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_the_time_and_the_switches_of_a_thread_are_read() {
        let status = "Name:\ta\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n";
        let stat = |state: &str| {
            format!("9 (a) b) c) {state} 1 9 9 0 -1 4194368 5 0 0 0 120 34 0 0 20 0 3 0 99 1 1")
        };
        let seen = |doing| Some(Task { doing, used: Duration::from_millis(1540), switches: 12 });
        for (state, doing) in [
            ("R", Doing::Runs),
            ("S", Doing::Waits),
            ("D", Doing::Waits),
            ("T", Doing::Stopped),
            ("t", Doing::Stopped),
        ] {
            assert_eq!(Task::parse(&stat(state), status), seen(doing), "{state}");
        }
        assert_eq!(Task::parse(&stat("Z"), status), None);
        assert_eq!(Task::parse("9 (a) R 1", status), None);
        assert_eq!(Task::parse("", ""), None);
    }

    #[test]
    fn a_thread_that_looks_at_itself_runs() {
        let process = std::process::id();
        let thread = u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or_default();
        assert_eq!(Task::look(process, thread).map(|task| task.doing), Some(Doing::Runs));
        assert_eq!(Task::look(process, 0), None);
    }
}

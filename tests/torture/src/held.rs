//! What a process and its children hold, and whether it grew.

use std::fs;

/// Descriptors more at the end than at the beginning that are no leak: connections and pipes that
/// happen to be open.
const DESCRIPTORS_MORE: usize = 24;
/// The same for resident memory, in KiB: allocators keep what they once needed.
const RESIDENT_MORE_KIB: u64 = 4096;

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

/// A worker reads the configuration of an older generation on a thread beside its others, which
/// ends some seconds later.
const THREADS_SPARE: usize = 1;

impl Held {
    /// What this process holds now; zeros when it is gone.
    pub(crate) fn of(pid: u32) -> Self {
        let count =
            |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).map_or(0, Iterator::count);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.split_whitespace().next());
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            resident_kib: resident.and_then(|number| number.parse().ok()).unwrap_or(0),
        }
    }

    /// Whether this is more than chance explains.
    fn has_grown_since(&self, before: &Self) -> bool {
        self.descriptors > before.descriptors + DESCRIPTORS_MORE
            || self.threads > before.threads + THREADS_SPARE
            || self.resident_kib > before.resident_kib + before.resident_kib / 4 + RESIDENT_MORE_KIB
    }
}

/// When a process was started, in ticks of the kernel; numbers of processes may begin anew.
fn started(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name: state is the third field of the manual page, the start the 22nd.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    fields.and_then(|f| f.split(' ').nth(22 - 3)).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Direct children of a process, zombies included, oldest first.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    found.sort_by_key(|pid| started(*pid));
    found
}

/// A supervisor and its newest worker at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    supervisor: Held,
    worker: Held,
    processes: usize,
}

impl Sample {
    /// Looks at the supervisor and at this worker.
    pub(crate) fn take(supervisor: u32, worker: Option<u32>) -> Self {
        Self {
            supervisor: Held::of(supervisor),
            worker: worker.map(Held::of).unwrap_or_default(),
            processes: children(supervisor).len(),
        }
    }

    /// The same with the number of workers that are there now.
    pub(crate) fn with_processes_of(self, supervisor: u32) -> Self {
        Self { processes: children(supervisor).len(), ..self }
    }

    /// Worker processes.
    pub(crate) fn processes(&self) -> usize {
        self.processes
    }
}

/// Compares the beginning and the end of a run, line by line; `GROWN` marks what is not flat.
pub(crate) fn growth(early: &Sample, late: &Sample, most_processes: usize) -> Vec<String> {
    let line = |name: &str, before: &Held, after: &Held| {
        let verdict = if after.has_grown_since(before) { "GROWN" } else { "flat" };
        format!(
            "{name}, halfway and at the end: {} and {} descriptors, {} and {} threads, \
             {} and {} KiB resident: {verdict}",
            before.descriptors,
            after.descriptors,
            before.threads,
            after.threads,
            before.resident_kib,
            after.resident_kib
        )
    };
    let left = if late.processes > 1 { "GROWN" } else { "flat" };
    vec![
        line("supervisor", &early.supervisor, &late.supervisor),
        line("worker", &early.worker, &late.worker),
        format!(
            "worker processes: {} halfway, {most_processes} at most, {} at the end: {left}",
            early.processes, late.processes
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_chance() {
        let held = |descriptors, threads, resident_kib| Held { descriptors, threads, resident_kib };
        let before = held(40, 3, 10_000);
        assert!(!held(40, 3, 10_000).has_grown_since(&before));
        assert!(!held(50, 3, 14_000).has_grown_since(&before));
        assert!(held(240, 3, 10_000).has_grown_since(&before));
        assert!(!held(40, 4, 10_000).has_grown_since(&before));
        assert!(held(40, 5, 10_000).has_grown_since(&before));
        assert!(held(40, 3, 60_000).has_grown_since(&before));
    }

    #[test]
    fn a_process_left_behind_is_growth() {
        let sample = |processes| Sample { processes, ..Sample::default() };
        let lines = growth(&sample(1), &sample(1), 3);
        assert!(lines.iter().all(|line| line.ends_with("flat")), "{lines:?}");
        let lines = growth(&sample(1), &sample(2), 3);
        assert!(lines.iter().any(|line| line.ends_with("GROWN")), "{lines:?}");
    }
}

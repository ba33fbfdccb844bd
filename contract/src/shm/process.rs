//! Which process is which: a process id alone is used again after a while, together with the time
//! the process started it is not.

use std::{fs, hash::BuildHasher, os::unix::fs::MetadataExt};

/// When a process started, in clock ticks since boot; `None` when it does not live. A zombie does
/// not live.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, so fields are counted from its closing parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// True when the process that had this id and start time lives. A start time of 0 is not known and
/// fits any.
pub(super) fn lives(pid: u32, start: u64) -> bool {
    start_time(pid).is_some_and(|found| start == 0 || found == start)
}

/// A short name of this boot of the machine.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id: String = id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    if id.is_empty() { "0".to_owned() } else { id }
}

/// Number of the namespace in which process ids of this process mean something.
pub(super) fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}

/// A number nobody can guess.
pub(super) fn random() -> u64 {
    std::collections::hash_map::RandomState::new().hash_one(std::process::id())
}

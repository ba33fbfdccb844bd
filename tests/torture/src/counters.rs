//! The kernel's own account of what it dropped, from this network namespace.

use std::collections::BTreeMap;

/// Counters that must not move, in the order of the report.
const WATCHED: [&str; 5] = [
    "TcpExt.ListenDrops",
    "TcpExt.ListenOverflows",
    "TcpExt.TCPAbortOnData",
    "TcpExt.TCPAbortOnClose",
    "Tcp.OutRsts",
];

/// The watched counters at one moment.
#[derive(Clone, Debug)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads them.
    pub fn read() -> Self {
        let mut all = BTreeMap::new();
        for path in ["/proc/net/netstat", "/proc/net/snmp"] {
            add(&mut all, &std::fs::read_to_string(path).unwrap_or_default());
        }
        Self(all)
    }

    /// One line: how far each moved since `before`.
    pub(crate) fn since(&self, before: &Self) -> String {
        WATCHED.map(|name| format!("{name} {}", self.step(before, name))).join(", ")
    }

    /// Those that moved since `before`, and how far.
    pub fn moved(&self, before: &Self) -> Vec<(&'static str, u64)> {
        let moved = WATCHED.map(|name| (name, self.step(before, name)));
        moved.into_iter().filter(|(_, step)| *step > 0).collect()
    }

    fn step(&self, before: &Self, name: &str) -> u64 {
        let now = self.0.get(name).copied().unwrap_or(0);
        now - before.0.get(name).copied().unwrap_or(0).min(now)
    }
}

/// Each group has a line of names and a line of values, both beginning with `Group:`.
fn add(all: &mut BTreeMap<String, u64>, text: &str) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let Some((group, names)) = names.split_once(':') else { continue };
        let Some((_, values)) = values.split_once(':') else { continue };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            all.insert(format!("{group}.{name}"), value.parse().unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_two_readings_is_reported() {
        let reading = |value: u64| {
            let mut all = BTreeMap::new();
            add(&mut all, &format!("TcpExt: A ListenDrops\nTcpExt: 1 {value}\n"));
            Counters(all)
        };
        assert!(reading(7).since(&reading(4)).starts_with("TcpExt.ListenDrops 3,"));
    }
}

//! The ledger beside what the clients of the matrix say.

use crate::harness::Lab;
use crate::harness::eventually::eventually;
use crate::ledger::stats;
use baton_torture::Class;
use baton_torture::load::Seen;

/// Waits until a number made of the ledger's reasons is in this range.
pub(super) fn assert_ledger(
    lab: &Lab,
    number: impl Fn(&dyn Fn(&str) -> u64) -> u64,
    range: std::ops::RangeInclusive<u64>,
) {
    eventually("the ledger says what the clients say", || {
        let stats = stats(lab);
        let reason = |name: &str| {
            stats.get(&format!("baton.connections.ended.{name}")).copied().unwrap_or(0)
        };
        let found = number(&reason);
        if range.contains(&found) { Ok(()) } else { Err(format!("{found}, not in {range:?}")) }
    });
}

/// How many connections ended with their processes, when so many of these were killed.
pub(super) fn crashed(seen: &Seen, killed: u64) -> std::ops::RangeInclusive<u64> {
    // A process that dies between accepting a connection and counting it leaves it uncounted.
    let least = seen.lost().saturating_sub(killed);
    // A client that was about to close its connection, or resets it anyway, does not notice.
    let unnoticed = killed * 24;
    least..=seen.lost() + seen.total(Class::SilentIdleClose) + unnoticed
}

/// Every connection the clients had is in the ledger, and ended there. A process that is killed between
/// two writes leaves one of them undone.
pub(super) fn assert_everything_is_counted(lab: &Lab, seen: &Seen, killed: u64) {
    eventually("the ledger balances", || {
        let stats = stats(lab);
        let sum = |prefix: &str| -> u64 {
            stats.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, n)| n).sum()
        };
        let (opened, ended) = (sum("baton.connections.opened"), sum("baton.connections.ended."));
        let open = sum("baton.connections.open.");
        let migrated = sum("baton.connections.ended.migrated");
        let balanced = opened.abs_diff(open + ended) <= killed;
        if !balanced || opened - migrated + killed < seen.connections {
            let clients = seen.connections;
            return Err(format!(
                "{opened} opened, {open} open, {ended} ended, {migrated} migrated, clients {clients}"
            ));
        }
        Ok(())
    });
}

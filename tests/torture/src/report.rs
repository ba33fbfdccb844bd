//! The report: one Markdown table for all proxies.

use crate::options::Options;
use crate::tally::{Class, Tally, Workload};
use std::rc::Rc;
use std::time::Duration;

/// Failures printed for each proxy unless more were asked for.
const SHOWN: usize = 20;

/// What came of one proxy.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The proxy.
    pub(crate) name: &'static str,
    /// Its version line.
    pub(crate) version: String,
    /// What its clients saw.
    pub(crate) tally: Rc<Tally>,
    /// What the kernel dropped.
    pub(crate) counters: String,
    /// The proxy's own account against the clients'.
    pub(crate) account: Option<String>,
    /// Anything else that went wrong.
    pub(crate) problems: Vec<String>,
    /// How long each reload command took.
    pub(crate) reload_times: Vec<Duration>,
    /// The end of the proxy's log.
    pub(crate) log: String,
}

impl Outcome {
    /// Nothing happened yet.
    pub(crate) fn new(name: &'static str, version: String, tally: Rc<Tally>) -> Self {
        Self {
            name,
            version,
            tally,
            counters: String::new(),
            account: None,
            problems: Vec::new(),
            reload_times: Vec::new(),
            log: String::new(),
        }
    }

    /// Whether a client lost anything or a reload failed.
    pub(crate) fn is_failure(&self) -> bool {
        self.tally.lost() > 0
            || self.tally.total(Class::Ok) == 0
            || !self.problems.is_empty()
            || self.account.as_ref().is_some_and(|account| account.contains("DIFFERENT"))
    }
}

/// Tells on the error output what failed.
pub(crate) fn failures(outcome: &Outcome) {
    for problem in &outcome.problems {
        eprintln!("{}: {problem}", outcome.name);
    }
    let failures = outcome.tally.failures();
    for line in failures.iter().take(SHOWN) {
        eprintln!("{}: {line}", outcome.name);
    }
    if failures.len() > SHOWN {
        eprintln!("{}: and {} more", outcome.name, failures.len() - SHOWN);
    }
    if outcome.is_failure() {
        eprintln!("{}: its log ends with\n{}", outcome.name, outcome.log);
    }
}

/// Prints the table and the lines below it.
pub(crate) fn table(options: &Options, outcomes: &[Outcome]) {
    println!();
    println!(
        "{} reloads, {} ms apart; exchanges of the long kinds last {} s; drain limit {} s \
         (baton's parent shutdown time {} s); concurrency {}.",
        options.reloads,
        options.interval_ms,
        options.long_s,
        options.drain_s,
        options.baton_drain_s,
        options.concurrency
    );
    println!();
    let heads: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
    println!("| proxy | workload | {} |", heads.join(" | "));
    println!("|---|---|{}", "---:|".repeat(heads.len()));
    for outcome in outcomes {
        for workload in Workload::ALL {
            row(outcome.name, workload.name(), |class| outcome.tally.count(workload, class));
        }
        row(&format!("**{}**", outcome.name), "**all**", |class| outcome.tally.total(class));
    }
    println!();
    for outcome in outcomes {
        foot(outcome);
    }
}

fn row(proxy: &str, workload: &str, count: impl Fn(Class) -> u64) {
    let cells: Vec<String> = Class::ALL
        .iter()
        .map(|class| match (count(*class), class.is_loss()) {
            (0, _) => "0".to_owned(),
            (count, true) => format!("**{count}**"),
            (count, false) => count.to_string(),
        })
        .collect();
    println!("| {proxy} | {workload} | {} |", cells.join(" | "));
}

fn foot(outcome: &Outcome) {
    println!("- {} ({}): lost {} in all.", outcome.name, outcome.version, outcome.tally.lost());
    println!("  - kernel: {}", outcome.counters);
    if let Some(account) = &outcome.account {
        println!("  - {account}");
    }
    if let (Some(median), Some(slowest)) = (median(&outcome.reload_times), longest(outcome)) {
        println!(
            "  - reload command: median {} ms, longest {} ms",
            median.as_millis(),
            slowest.as_millis()
        );
    }
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied()
}

fn longest(outcome: &Outcome) -> Option<Duration> {
    outcome.reload_times.iter().max().copied()
}

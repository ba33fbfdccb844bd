//! The report: one Markdown table for all proxies.

use crate::latency::millis;
use crate::moves::Moves;
use crate::options::Options;
use crate::tally::{Class, Tally, Workload};
use std::rc::Rc;
use std::sync::Arc;
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
    /// Which of their connections moved.
    pub(crate) moves: Arc<Moves>,
    /// What the kernel dropped.
    pub(crate) counters: String,
    /// The proxy's own account against the clients'.
    pub(crate) account: Option<String>,
    /// Anything else that went wrong.
    pub(crate) problems: Vec<String>,
    /// How long each reload command took.
    pub(crate) reload_times: Vec<Duration>,
    /// How often every file of the configuration changed, if that was asked for.
    pub(crate) flips: Option<u64>,
    /// The end of the proxy's log.
    pub(crate) log: String,
}

impl Outcome {
    /// Nothing happened yet.
    pub(crate) fn new(
        name: &'static str,
        version: String,
        tally: Rc<Tally>,
        moves: Arc<Moves>,
    ) -> Self {
        Self {
            name,
            version,
            tally,
            moves,
            counters: String::new(),
            account: None,
            problems: Vec::new(),
            reload_times: Vec::new(),
            flips: None,
            log: String::new(),
        }
    }

    /// Whether a client lost anything or a reload failed.
    pub(crate) fn is_failure(&self) -> bool {
        self.tally.lost() > 0
            || self.tally.total(Class::Ok) == 0
            || !self.problems.is_empty()
            || self
                .account
                .as_ref()
                .is_some_and(|account| account.contains("DIFFERENT") || account.contains("GROWN"))
    }

    /// `moved of crossed` for these workloads, or nothing when no connection lived across a reload.
    fn moved(&self, workloads: &[Workload]) -> String {
        let each = workloads.iter().map(|workload| self.moves.of(*workload));
        let (moved, crossed) =
            each.fold((0, 0), |(moved, crossed), one| (moved + one.moved, crossed + one.crossed));
        if crossed == 0 { "–".to_owned() } else { format!("{moved} of {crossed}") }
    }

    /// `lost of all` for these workloads.
    fn lost(&self, workloads: &[Workload]) -> String {
        let count = |wanted: fn(Class) -> bool| -> u64 {
            let classes = Class::ALL.iter().filter(|class| wanted(**class));
            classes.flat_map(|c| workloads.iter().map(|w| self.tally.count(*w, *c))).sum()
        };
        let lost = count(Class::is_loss);
        let all = lost + count(|class| class == Class::Ok);
        if lost == 0 { format!("0 of {all}") } else { format!("**{lost}** of {all}") }
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
        options.baton_drain_s(),
        options.concurrency
    );
    println!();
    let heads: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
    println!("| proxy | workload | {} | moved |", heads.join(" | "));
    println!("|---|---|{}", "---:|".repeat(heads.len() + 1));
    for outcome in outcomes {
        for workload in Workload::every() {
            let moved = outcome.moved(&[workload]);
            row(outcome.name, workload.name(), &moved, |class| {
                outcome.tally.count(workload, class)
            });
        }
        let moved = outcome.moved(&Workload::ALL);
        row(&format!("**{}**", outcome.name), "**all**", &moved, |class| {
            outcome.tally.total(class)
        });
    }
    long_exchanges(outcomes);
    times(outcomes);
    println!();
    for outcome in outcomes {
        foot(outcome);
    }
}

/// What was lost of the exchanges that outlive a drain limit, by kind.
fn long_exchanges(outcomes: &[Outcome]) {
    let kinds: [(&str, &[Workload]); 4] = [
        ("WebSockets", &[Workload::WebSocket]),
        ("downloads", &[Workload::Download]),
        ("uploads", &[Workload::UploadLength, Workload::UploadChunked]),
        ("TCP tunnels", &[Workload::Tunnel, Workload::HalfClosed]),
    ];
    println!();
    println!("Long exchanges lost, and connections moved to another process of those that lived");
    println!("across a reload:");
    println!();
    println!("| proxy | {} | moved |", kinds.map(|(name, _)| name).join(" | "));
    println!("|---|{}", "---:|".repeat(kinds.len() + 1));
    for outcome in outcomes {
        let cells = kinds.map(|(_, workloads)| outcome.lost(workloads));
        let all: Vec<Workload> = kinds.iter().flat_map(|(_, kind)| kind.to_vec()).collect();
        println!("| {} | {} | {} |", outcome.name, cells.join(" | "), outcome.moved(&all));
    }
}

/// How long short requests took, during reloads and otherwise.
fn times(outcomes: &[Outcome]) {
    println!();
    println!("Times of requests:");
    println!();
    println!("| proxy | when | requests | p50 | p99 | p99.9 | longest |");
    println!("|---|---|---:|---:|---:|---:|---:|");
    for outcome in outcomes {
        let (in_reloads, calm) = outcome.tally.times();
        for (when, times) in [("during reloads", in_reloads), ("otherwise", calm)] {
            let quantiles = [500, 990, 999].map(|part| millis(times.quantile(part)));
            println!(
                "| {} | {when} | {} | {} | {} |",
                outcome.name,
                times.count(),
                quantiles.join(" | "),
                millis(times.longest())
            );
        }
    }
}

fn row(proxy: &str, workload: &str, moved: &str, count: impl Fn(Class) -> u64) {
    let cells: Vec<String> = Class::ALL
        .iter()
        .map(|class| match (count(*class), class.is_loss()) {
            (0, _) => "0".to_owned(),
            (count, true) => format!("**{count}**"),
            (count, false) => count.to_string(),
        })
        .collect();
    println!("| {proxy} | {workload} | {} | {moved} |", cells.join(" | "));
}

fn foot(outcome: &Outcome) {
    println!("- {} ({}): lost {} in all.", outcome.name, outcome.version, outcome.tally.lost());
    println!("  - kernel: {}", outcome.counters);
    if let Some(flips) = outcome.flips {
        println!("  - files: each changed {flips} times, and the last version serves");
    }
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

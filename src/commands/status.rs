//! `baton status`: the generations and what they do.
#![expect(clippy::format_push_string, reason = "a screen of text, not a hot path")]

use std::time::Duration;

use baton_contract::{
    control::{Answer, GenerationReport, Report, Request, Verdict},
    exit::Exit,
    generation::State,
    message::Kinds,
    words::counted,
};

use super::control;
use crate::{cli::StatusArgs, clock, failure::Failure, out};

/// Time between two looks with `--watch`.
const INTERVAL: Duration = Duration::from_secs(1);
/// Clears the screen and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the state once, or until nobody reads any more.
///
/// # Errors
/// When there is no supervisor.
pub(crate) fn run(args: &StatusArgs) -> Result<Exit, Failure> {
    loop {
        let answer = control::request(&args.control, &Request::Status, control::SHORT, |_| ())?;
        let Answer::Status(report) = answer else { return Err(control::unexpected()) };
        let text = if args.json { json(&report, args.watch)? } else { table(&report) };
        let clear = if args.watch && !args.json && out::is_terminal() { CLEAR } else { "" };
        let is_read = out::text(format_args!("{clear}{text}"));
        if !args.watch || !is_read {
            return Ok(Exit::Ok);
        }
        clock::pause(INTERVAL);
    }
}

fn json(report: &Report, one_line: bool) -> Result<String, Failure> {
    let text =
        if one_line { serde_json::to_string(report) } else { serde_json::to_string_pretty(report) };
    text.map(|text| text + "\n").map_err(|error| Failure::of(Exit::Internal, &error))
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let alive =
        report.generations.iter().filter(|g| !matches!(g.state, State::Failed | State::Dead));
    for generation in alive {
        text.push_str(&generation_line(generation));
        text.push('\n');
    }
    let past = &report.past;
    text += &format!(
        "gone: moved {} drained {} cut {} | reloads {} failed {} respawns {} | up {}",
        past.moved,
        past.drained,
        past.cut,
        report.reloads,
        report.failed_reloads,
        report.respawns,
        duration(report.uptime_ms)
    );
    text.push('\n');
    for listener in &report.listeners {
        text += &format!("listens on {listener}");
        text.push('\n');
    }
    let serving = report.generations.iter().filter(|g| g.state == State::Serving);
    for listener in serving.flat_map(|generation| &generation.drained) {
        text += &format!("refuses clients at {listener}: drained, a reload listens again");
        text.push('\n');
    }
    if let Some(last) = &report.last_reload {
        let verdict = verdict(last.verdict);
        let line = last.text.lines().next().unwrap_or_default();
        text.push_str(format!("last reload: {verdict} {line}").trim_end());
        text.push('\n');
    }
    if report.segment.is_empty() {
        text.push_str("no shared statistics: the log says why\n");
    }
    if report.stats_overflow > 0 {
        text += &format!(
            "statistics are degraded: shared memory had no room for {}",
            counted(report.stats_overflow, "metric")
        );
        text.push('\n');
    }
    if report.stopping {
        text.push_str("stopping\n");
    }
    text
}

/// `gen 7 SERVING pid 812 cfg 9f3c 1204 conns 4 threads up 2 h 3 min`.
pub(super) fn generation_line(report: &GenerationReport) -> String {
    let state = serde_json::to_value(report.state).ok();
    let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or("?").to_owned();
    let hash: String = report.config_hash.chars().take(8).collect();
    let mut line = format!(
        "gen {} {state} pid {} cfg {hash} {} {} up {}",
        report.generation,
        report.pid,
        counted(report.connections, "conn"),
        counted(report.concurrency, "thread"),
        duration(report.age_ms)
    );
    if report.cut_in_ms.is_some() && report.connections > 0 {
        line += &format!(", {}", kinds(report.open));
    }
    if report.moved.total() > 0 {
        line += &format!(", moved {} ({})", report.moved.total(), kinds(report.moved));
    }
    match report.drained.len() {
        0 => {}
        count => line += &format!(", {} drained", counted(count, "listener")),
    }
    if let Some(left) = report.cut_in_ms {
        line += &format!(", cut in {}", duration(left));
    }
    for (why, count) in &report.stayed {
        line += &format!(", {count} stayed: {why}");
    }
    if report.heartbeat_age_ms > 3000 {
        line += &format!(", no sign of life for {}", duration(report.heartbeat_age_ms));
    }
    line
}

/// `3 http1, 1 tcp`; what there is none of is left out.
pub(super) fn kinds(kinds: Kinds) -> String {
    let all = [(kinds.http1, "http1"), (kinds.upgraded, "upgraded"), (kinds.tcp, "tcp")];
    let some = all.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = some.map(|(count, kind)| format!("{count} {kind}")).collect();
    words.join(", ")
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Serving => "serving",
        Verdict::WouldServe => "would serve",
        Verdict::Invalid => "invalid, nothing changed:",
        Verdict::Refused => "refused, nothing changed:",
        Verdict::RolledBack => "rolled back:",
        Verdict::Stopping => "stopping",
    }
}

/// `41 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use baton_contract::generation::Generation;

    use super::*;

    #[test]
    fn a_generation_is_one_line() {
        let mut report = GenerationReport {
            generation: Generation(6),
            state: State::Draining,
            pid: 812,
            config_hash: "9f3c11d2aa".to_owned(),
            age_ms: 200_000,
            connections: 2,
            cut_in_ms: Some(588_000),
            heartbeat_age_ms: 20,
            open: Kinds { http1: 1, upgraded: 0, tcp: 1 },
            moved: Kinds { http1: 800, upgraded: 12, tcp: 0 },
            stayed: [("busy".to_owned(), 3)].into(),
            concurrency: 4,
            drained: Vec::new(),
            listeners: 1,
            error: String::new(),
        };
        assert_eq!(
            generation_line(&report),
            "gen 6 DRAINING pid 812 cfg 9f3c11d2 2 conns 4 threads up 3 min 20 s, 1 http1, 1 tcp, \
             moved 812 (800 http1, 12 upgraded), cut in 9 min 48 s, 3 stayed: busy"
        );
        report.drained = vec!["tcp://0.0.0.0:80".to_owned()];
        assert!(
            generation_line(&report).contains("(800 http1, 12 upgraded), 1 listener drained, cut")
        );
        report.cut_in_ms = None;
        report.heartbeat_age_ms = 4000;
        assert!(generation_line(&report).ends_with("no sign of life for 4 s"));
    }

    #[test]
    fn durations_are_short() {
        let check = |ms, expected: &str| assert_eq!(duration(ms), expected);
        check(41, "41 ms");
        check(12_000, "12 s");
        check(7_500_000, "2 h 5 min");
    }
}

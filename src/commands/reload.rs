//! `baton reload`: a new generation from the configuration file, and how that went.

use std::time::{Duration, Instant};

use baton_contract::{
    control::{Answer, Moves, Outcome, Phase, Reload, Request, Verdict},
    exit::Exit,
    generation::State,
    message::Kinds,
    words::counted,
};

use super::{control, status};
use crate::{cli::ReloadArgs, clock, failure::Failure, out};

/// Time between two looks while connections move.
const STEP: Duration = Duration::from_millis(50);

/// Asks for a reload and shows it, unless nobody wants to wait.
///
/// # Errors
/// When the reload failed; the running generation then serves on.
pub(crate) fn run(args: &ReloadArgs) -> Result<Exit, Failure> {
    let request = Request::Reload(Reload {
        wait: !args.no_wait,
        dry_run: args.dry_run,
        force: args.force,
        concurrency: args.concurrency,
    });
    let timeout = Duration::from_secs(args.timeout);
    let began = clock::now();
    let exit = conclude(control::request(&args.control, &request, timeout, show)?)?;
    if args.settle {
        settle(args, began + timeout)?;
    }
    Ok(exit)
}

/// Waits until the older generations are gone, and says what became of their connections.
fn settle(args: &ReloadArgs, until: Instant) -> Result<(), Failure> {
    loop {
        let answer = control::request(&args.control, &Request::Status, control::SHORT, |_| ())?;
        let Answer::Status(report) = answer else { return Err(control::unexpected()) };
        let moves = Moves { draining: 0, ..report.past };
        let older = |state| matches!(state, State::HandingOff | State::Draining);
        let left: Vec<_> = report
            .generations
            .iter()
            .filter(|generation| older(generation.state))
            .map(status::generation_line)
            .collect();
        if left.is_empty() {
            out::line(format_args!("settled; connections since the start: {}", words(&moves)));
            return Ok(());
        }
        if clock::now() >= until {
            let text = format!("older generations are left:\n{}", left.join("\n"));
            return Err(Failure::new(Exit::TimedOut, text)
                .hint("`baton drain GENERATION` tells them to close, `baton status` shows them"));
        }
        clock::pause(STEP);
    }
}

/// Shows a line that is not the last one.
pub(crate) fn show(answer: &Answer) {
    if let Answer::Phase(phase) = answer {
        show_phase(phase);
    }
}

/// Shows the last line.
///
/// # Errors
/// When it says that nothing was reloaded.
pub(crate) fn conclude(answer: Answer) -> Result<Exit, Failure> {
    match answer {
        Answer::Reloaded(outcome) => show_outcome(&outcome),
        Answer::Done { text } => {
            out::line(format_args!("{text}"));
            Ok(Exit::Ok)
        }
        Answer::Phase(_) | Answer::Status(_) | Answer::Refused { .. } => Err(control::unexpected()),
    }
}

fn show_phase(phase: &Phase) {
    let generation = phase.generation.map(|g| format!("generation {g}")).unwrap_or_default();
    let line = format!(
        "{:>10}  {:<14}{generation:<15}{}",
        millis(phase.at_us),
        phase.step.text(),
        phase.text
    );
    out::line(format_args!("{}", line.trim_end()));
}

fn show_outcome(outcome: &Outcome) -> Result<Exit, Failure> {
    match outcome.verdict {
        Verdict::Serving | Verdict::WouldServe => {}
        Verdict::Invalid | Verdict::Refused | Verdict::RolledBack | Verdict::Stopping => {
            return Err(failure(outcome));
        }
    }
    for warning in &outcome.diagnostics {
        out::error_line(format_args!("{}", warning.trim_end()));
    }
    out::line(format_args!("{}", summary(outcome)));
    let listeners = &outcome.listeners;
    for (sign, list) in [('+', &listeners.added), ('-', &listeners.removed)] {
        for listener in list {
            out::line(format_args!("  {sign} {listener}"));
        }
    }
    Ok(Exit::Ok)
}

fn summary(outcome: &Outcome) -> String {
    let generation = outcome.generation.map(|g| g.to_string()).unwrap_or_default();
    let listeners = &outcome.listeners;
    let took = millis(outcome.took_us);
    if outcome.verdict == Verdict::WouldServe {
        return format!(
            "would serve: {} kept, {} added, {} removed; checked in {took}",
            counted(listeners.kept, "listener"),
            listeners.added.len(),
            listeners.removed.len()
        );
    }
    let head = format!("generation {generation} serves after {took}");
    format!("{head}; connections: {}", words(&outcome.connections))
}

/// What became of the connections of older generations.
fn words(moves: &Moves) -> String {
    let of = |kinds: Kinds| match kinds.total() {
        0 => String::new(),
        _ => format!(" ({})", status::kinds(kinds)),
    };
    let cut_in = moves.cut_in_ms.map(status::duration);
    let cut_in = cut_in.map(|left| format!("; what remains is cut in {left}")).unwrap_or_default();
    format!(
        "moved {}{}, draining {}{}, drained {}, cut {}{cut_in}",
        moves.moved,
        of(moves.moved_kinds),
        moves.draining,
        of(moves.draining_kinds),
        moves.drained,
        moves.cut
    )
}

fn failure(outcome: &Outcome) -> Failure {
    let mut text = match outcome.verdict {
        Verdict::RolledBack => format!("rolled back: {}", outcome.text),
        Verdict::Invalid
        | Verdict::Refused
        | Verdict::Stopping
        | Verdict::Serving
        | Verdict::WouldServe => format!("not reloaded: {}", outcome.text),
    };
    if !outcome.diagnostics.is_empty() {
        // They hold the line of `text` again, with its place in the file.
        let diagnostics = outcome.diagnostics.join("\n");
        text =
            format!("not reloaded: the configuration is invalid\n\n{}\n", diagnostics.trim_end());
    }
    if let Some(serving) = outcome.serving {
        text = format!("{text}\ngeneration {serving} serves on, nothing was lost");
    }
    let failure = Failure::new(outcome.verdict.exit(), text);
    match outcome.verdict {
        Verdict::Invalid => failure.hint("correct the file and reload again"),
        Verdict::RolledBack => failure.hint(
            "this configuration is refused from now on; `baton reload --force` tries it again",
        ),
        Verdict::Refused | Verdict::Stopping | Verdict::Serving | Verdict::WouldServe => failure,
    }
}

fn millis(micros: u64) -> String {
    let whole = micros / 1000;
    let tenth = micros % 1000 / 100;
    format!("{whole}.{tenth} ms")
}

#[cfg(test)]
mod tests {
    use baton_contract::{control::ListenerChanges, generation::Generation};

    use super::*;

    fn outcome(verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            generation: Some(Generation(4)),
            serving: Some(Generation(3)),
            text: "envoy.yaml:7:5: error: unknown field `connect_timout`".to_owned(),
            diagnostics: Vec::new(),
            connections: Moves {
                moved: 7,
                moved_kinds: Kinds { http1: 7, ..Kinds::default() },
                draining: 12,
                draining_kinds: Kinds { http1: 9, upgraded: 1, tcp: 2 },
                drained: 3,
                cut: 0,
                cut_in_ms: Some(900_000),
            },
            listeners: ListenerChanges { kept: 2, ..ListenerChanges::default() },
            took_us: 41_273,
        }
    }

    #[test]
    fn a_good_reload_says_what_happened_to_connections() {
        assert_eq!(
            summary(&outcome(Verdict::Serving)),
            "generation 4 serves after 41.2 ms; connections: moved 7 (7 http1), draining 12 (9 http1, \
             1 upgraded, 2 tcp), drained 3, cut 0; what remains is cut in 15 min 0 s"
        );
        assert_eq!(
            summary(&outcome(Verdict::WouldServe)),
            "would serve: 2 listeners kept, 0 added, 0 removed; checked in 41.2 ms"
        );
    }

    #[test]
    fn a_bad_reload_says_who_serves_and_what_to_do() {
        let failure = failure(&outcome(Verdict::Invalid));
        assert_eq!(failure.exit, Exit::Config);
        assert_eq!(
            failure.to_string(),
            "baton: error: not reloaded: envoy.yaml:7:5: error: unknown field `connect_timout`\n\
             generation 3 serves on, nothing was lost\nhint: correct the file and reload again"
        );
    }
}

//! `baton reload`: a new generation from the configuration file, and how that went.

use std::time::Duration;

use baton_contract::{
    control::{Answer, Outcome, Phase, Reload, Request, Verdict},
    exit::Exit,
};

use super::control;
use crate::{cli::ReloadArgs, failure::Failure, out};

/// Asks for a reload; with `--wait`, shows it.
///
/// # Errors
/// When the reload failed; the running generation then serves on.
pub(crate) fn run(args: &ReloadArgs) -> Result<Exit, Failure> {
    let request = Request::Reload(Reload {
        wait: args.wait || args.dry_run,
        dry_run: args.dry_run,
        force: args.force,
        concurrency: args.concurrency,
    });
    let timeout = Duration::from_secs(args.timeout);
    conclude(control::request(&args.control, &request, timeout, show)?)
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
            "would serve: {} listeners kept, {} added, {} removed; checked in {took}",
            listeners.kept,
            listeners.added.len(),
            listeners.removed.len()
        );
    }
    let moves = &outcome.connections;
    format!(
        "generation {generation} serves after {took}; connections: moved {}, draining {}, \
         drained {}, cut {}",
        moves.moved, moves.draining, moves.drained, moves.cut
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
    use baton_contract::{
        control::{ListenerChanges, Moves},
        generation::Generation,
    };

    use super::*;

    fn outcome(verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            generation: Some(Generation(4)),
            serving: Some(Generation(3)),
            text: "envoy.yaml:7:5: error: unknown field `connect_timout`".to_owned(),
            diagnostics: Vec::new(),
            connections: Moves { moved: 0, draining: 12, drained: 3, cut: 0 },
            listeners: ListenerChanges { kept: 2, ..ListenerChanges::default() },
            took_us: 41_273,
        }
    }

    #[test]
    fn a_good_reload_says_what_happened_to_connections() {
        assert_eq!(
            summary(&outcome(Verdict::Serving)),
            "generation 4 serves after 41.2 ms; connections: moved 0, draining 12, drained 3, cut 0"
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

//! `baton upgrade`: the supervisor goes on as another program, and a new generation starts from it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use baton_contract::{
    control::{
        Answer, Outcome, Reload, Request, Verdict,
        client::{ClientError, ask},
    },
    exit::Exit,
};

use super::{control, reload};
use crate::{cli::UpgradeArgs, clock, failure::Failure, out};

/// Time between two looks whether the supervisor answers again.
const INTERVAL: Duration = Duration::from_millis(50);

/// Asks for the upgrade and shows it.
///
/// # Errors
/// When the program was not replaced, or no new generation serves; the running one then serves on.
pub(crate) fn run(args: &UpgradeArgs) -> Result<Exit, Failure> {
    let binary = args.binary.as_deref().map(absolute).transpose()?;
    let timeout = Duration::from_secs(args.timeout);
    let request = Request::Upgrade { binary };
    let socket = control::socket(&args.control);
    match ask(&socket, &request, timeout, reload::show) {
        // The new program could not use the state. Its workers come back to it.
        Err(ClientError::Ended) => reload_after_return(args, &socket, timeout),
        answer => conclude(control::unwrap(answer, &args.control)?),
    }
}

fn conclude(answer: Answer) -> Result<Exit, Failure> {
    if let Answer::Reloaded(outcome) = &answer
        && was_not_replaced(outcome)
    {
        return Err(failure(outcome));
    }
    reload::conclude(answer)
}

/// The program was not replaced, so no generation was started from it.
fn was_not_replaced(outcome: &Outcome) -> bool {
    outcome.verdict == Verdict::Refused && outcome.generation.is_none()
}

fn failure(outcome: &Outcome) -> Failure {
    let text = format!("not upgraded: {}", outcome.text);
    let serving = outcome.serving.map_or_else(String::new, |generation| {
        format!("\nnothing changed, generation {generation} serves on")
    });
    Failure::new(outcome.verdict.exit(), text + &serving)
}

/// The supervisor has its own working directory.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::of(Exit::Usage, &error))
}

/// Starts the new generation once a supervisor answers again.
fn reload_after_return(
    args: &UpgradeArgs,
    socket: &Path,
    timeout: Duration,
) -> Result<Exit, Failure> {
    out::line(format_args!("the supervisor lost its state, its workers come back to it"));
    let began = clock::now();
    let request = Request::Reload(Reload { wait: true, force: true, ..Reload::default() });
    loop {
        let left = timeout.saturating_sub(began.elapsed());
        match ask(socket, &request, left, reload::show) {
            Err(ClientError::NotRunning { .. } | ClientError::Ended) if !left.is_zero() => {
                clock::pause(INTERVAL);
            }
            answer => return reload::conclude(control::unwrap(answer, &args.control)?),
        }
    }
}

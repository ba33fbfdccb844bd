//! Talking to a running supervisor over its control socket.

use std::{path::PathBuf, time::Duration};

use baton_contract::{
    control::{
        Answer, Request,
        client::{ClientError, ask},
        path::{Surroundings, for_client},
    },
    exit::Exit,
};

use crate::{cli::ControlArgs, failure::Failure};

/// Longest wait for answers that need no work.
pub(crate) const SHORT: Duration = Duration::from_secs(5);

/// Sends a request and returns the final answer; `on_phase` sees what comes before it.
///
/// # Errors
/// When there is no answer, or the supervisor refuses.
pub(crate) fn request(
    args: &ControlArgs,
    request: &Request,
    timeout: Duration,
    on_phase: impl FnMut(&Answer),
) -> Result<Answer, Failure> {
    let path = socket(args);
    unwrap(ask(&path, request, timeout, on_phase), args)
}

/// The answer, unless it is a refusal or there is none.
///
/// # Errors
/// What the user should read.
pub(crate) fn unwrap(
    answer: Result<Answer, ClientError>,
    args: &ControlArgs,
) -> Result<Answer, Failure> {
    match answer.map_err(|error| failure(&error, args))? {
        Answer::Refused { text, code } => Err(Failure::new(exit(code), text)),
        answer @ (Answer::Phase(_)
        | Answer::Reloaded(_)
        | Answer::Status(_)
        | Answer::Done { .. }) => Ok(answer),
    }
}

/// Where the supervisor is.
pub(crate) fn socket(args: &ControlArgs) -> PathBuf {
    let around = Surroundings::of_this_process();
    for_client(args.control_socket.as_deref(), args.base_id, &around)
}

/// An answer that does not belong to the request.
pub(crate) fn unexpected() -> Failure {
    Failure::new(Exit::Internal, "the supervisor gave an answer to another question")
        .hint("is it an older version? `baton status --json` shows its `build_id`")
}

fn failure(error: &ClientError, args: &ControlArgs) -> Failure {
    let failure = Failure::of(error.exit(), error);
    match error.exit() {
        Exit::NotRunning if args.control_socket.is_none() => failure.hint(
            "start it with `baton run -c envoy.yaml`; if it runs, name it with `--base-id` or \
             `--control-socket`",
        ),
        Exit::NotRunning => failure.hint("start it with `baton run -c envoy.yaml`"),
        Exit::Permission => failure.hint("run this as the user that started the proxy, or as root"),
        Exit::TimedOut => failure.hint("`baton status` shows what it is doing"),
        Exit::Usage => failure.hint("name a shorter path with `--control-socket`"),
        Exit::Ok | Exit::Config | Exit::Refused | Exit::RolledBack | Exit::Internal => failure,
    }
}

fn exit(code: u8) -> Exit {
    let all = [
        Exit::Ok,
        Exit::Config,
        Exit::Usage,
        Exit::Refused,
        Exit::RolledBack,
        Exit::NotRunning,
        Exit::Permission,
        Exit::TimedOut,
    ];
    all.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Exit::Internal)
}

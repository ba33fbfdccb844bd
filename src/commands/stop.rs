//! `baton stop`: the supervisor and its workers end.

use baton_contract::{
    control::{Answer, Request},
    exit::Exit,
};

use super::control;
use crate::{cli::StopArgs, failure::Failure, out};

/// Tells the supervisor.
///
/// # Errors
/// When there is none.
pub(crate) fn run(args: &StopArgs) -> Result<Exit, Failure> {
    let request = Request::Stop { now: args.now };
    let answer = control::request(&args.control, &request, control::SHORT, |_| ())?;
    let Answer::Done { text } = answer else { return Err(control::unexpected()) };
    out::line(format_args!("{text}"));
    Ok(Exit::Ok)
}

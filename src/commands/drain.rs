//! `baton drain`: a draining generation ends its connections sooner.

use baton_contract::{
    control::{Answer, Request},
    exit::Exit,
    generation::Generation,
};

use super::control;
use crate::{cli::DrainArgs, failure::Failure, out};

/// Tells the generation.
///
/// # Errors
/// When there is no such generation, or no supervisor.
pub(crate) fn run(args: &DrainArgs) -> Result<Exit, Failure> {
    let generation = Generation(args.generation);
    let request = Request::Drain { generation, strategy: Some(args.strategy.into()) };
    let answer = control::request(&args.control, &request, control::SHORT, |_| ())?;
    let Answer::Done { text } = answer else { return Err(control::unexpected()) };
    out::line(format_args!("{text}"));
    Ok(Exit::Ok)
}

//! `baton adopt-check`: a running supervisor asks this program whether it could take its place. The
//! state comes on descriptor 3, the command line of the supervisor as arguments.

use std::ffi::OsString;

use baton_contract::{channel, exit::Exit};
use clap::Parser;

use super::validate::{self, Wanted};
use crate::{
    cli::{AdoptCheckArgs, Cli, Command, RunArgs},
    failure::Failure,
    out,
};

/// Reads the state, the command line and the configuration as this program would.
///
/// # Errors
/// When it cannot do with one of them.
pub(crate) fn run(args: &AdoptCheckArgs) -> Result<Exit, Failure> {
    let state = channel::inherited_fd().map_err(|error| {
        Failure::new(Exit::Usage, format!("no state on descriptor 3: {error}"))
            .hint("`baton upgrade` runs this")
    })?;
    let (summary, proof) =
        baton_supervisor::check_state(state).map_err(|error| Failure::of(Exit::Refused, &error))?;
    let run = command_line(&args.arguments)?;
    let exit = check_config(&run)?;
    // Supervisors that ask for no proof look for this line.
    out::line(format_args!("{summary}"));
    if exit == Exit::Ok {
        proof.give().map_err(|error| Failure::of(Exit::Internal, &error))?;
    }
    Ok(exit)
}

fn command_line(arguments: &[OsString]) -> Result<RunArgs, Failure> {
    let words = std::iter::once(OsString::from("baton")).chain(arguments.iter().cloned());
    let cli = Cli::try_parse_from(words).map_err(|error| {
        Failure::new(Exit::Refused, format!("the command line is not understood: {error}"))
    })?;
    match cli.command {
        None => Ok(cli.run),
        Some(Command::Run(run)) => Ok(*run),
        Some(_) => Err(Failure::new(Exit::Refused, "the command line is not one of `baton run`")),
    }
}

/// The new generation will be started from it.
fn check_config(run: &RunArgs) -> Result<Exit, Failure> {
    if run.config_path.is_none() && run.config_yaml.is_none() {
        return Ok(Exit::Ok);
    }
    // What is written only at the first start does not matter any more.
    validate::configuration(&validate::source(run)?, run, &Wanted::default(), Ok(()))
}

//! `baton adopt-check`: a running supervisor asks this program whether it could take its place. The
//! state comes on descriptor 3, the command line of the supervisor as arguments.

use std::{ffi::OsString, path::PathBuf};

use baton_contract::{channel, exit::Exit};
use baton_worker::config::load::Source;
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
    let summary =
        baton_supervisor::check_state(state).map_err(|error| Failure::of(Exit::Refused, &error))?;
    let run = command_line(&args.arguments)?;
    let exit = check_config(&run)?;
    out::line(format_args!("{summary}"));
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
    let source = match (&run.config_path, &run.config_yaml) {
        (Some(path), _) => validate::read(path)?,
        (None, Some(text)) => {
            Source { path: PathBuf::from("--config-yaml"), bytes: text.clone().into_bytes() }
        }
        (None, None) => return Ok(Exit::Ok),
    };
    let overlay = run.config_path.as_ref().and(run.config_yaml.as_deref());
    let wanted = Wanted { json: false, bind: false, read: &run.read, overlay };
    validate::check(&source, &wanted)
}

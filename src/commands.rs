//! One module for each command.

mod adopt_check;
mod control;
mod drain;
mod reload;
mod run;
mod stats;
mod status;
mod stop;
mod upgrade;
mod validate;
mod worker;

use baton_contract::exit::Exit;
use clap::CommandFactory;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
    out,
};

/// Runs what was typed.
///
/// # Errors
/// What the user should read, and the exit code.
pub(crate) fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    if !matches!(cli.command, None | Some(Command::Run(_))) {
        baton_supervisor::let_signals_through();
    }
    match cli.command {
        None => run::run(&cli.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Validate(args)) => validate::run(&args),
        Some(Command::Reload(args)) => reload::run(&args),
        Some(Command::Upgrade(args)) => upgrade::run(&args),
        Some(Command::Status(args)) => status::run(&args),

        Some(Command::Stats(args)) => stats::run(&args),
        Some(Command::Drain(args)) => drain::run(&args),
        Some(Command::Stop(args)) => stop::run(&args),

        Some(Command::Demo(args)) => crate::demo::run(&args),
        Some(Command::Worker(args)) => worker::run(&args),
        Some(Command::AdoptCheck(args)) => adopt_check::run(&args),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "baton", &mut script);
            out::bytes(&script);
            Ok(Exit::Ok)
        }
        Some(Command::Man) => manual(),
    }
}

fn manual() -> Result<Exit, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Failure::of(Exit::Internal, &error))?;
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let heading = format!(".SH COMMAND {}\n", command.get_name().to_uppercase());
        page.extend_from_slice(heading.as_bytes());
        let man = clap_mangen::Man::new(command.clone());
        man.render_description_section(&mut page)
            .and_then(|()| man.render_options_section(&mut page))
            .map_err(|error| Failure::of(Exit::Internal, &error))?;
    }
    out::bytes(&page);
    Ok(Exit::Ok)
}

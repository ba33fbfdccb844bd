//! The `baton` program: parses, dispatches, and turns the outcome into an exit code.

mod cli;
mod clock;
mod commands;
mod demo;
mod failure;
mod logging;
mod out;
mod port_owner;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::dispatch(cli::Cli::parse()) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            out::error_line(format_args!("{failure}"));
            ExitCode::from(failure.exit as u8)
        }
    }
}

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
    // Before anything else: a reload that is asked for now must wait for its handler.
    baton_supervisor::hold_signals();
    match commands::dispatch(cli::Cli::parse()) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            out::failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

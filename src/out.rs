//! The only place that writes to the terminal: data to stdout, messages to stderr.
//!
//! A reader that goes away, as in `baton stats | head`, is not an error.

use std::{
    fmt::Arguments,
    io::{self, IsTerminal, Write},
};

use crate::{failure::Failure, logging};

/// Writes to stdout.
///
/// Returns whether anybody is still reading, so that endless output can end.
pub(crate) fn text(text: Arguments<'_>) -> bool {
    let mut stdout = io::stdout().lock();
    stdout.write_fmt(text).and_then(|()| stdout.flush()).is_ok()
}

/// Writes a line to stdout. Returns whether anybody is still reading.
pub(crate) fn line(line: Arguments<'_>) -> bool {
    text(format_args!("{line}\n"))
}

/// Writes bytes to stdout. Returns whether anybody is still reading.
pub(crate) fn bytes(bytes: &[u8]) -> bool {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).is_ok()
}

/// Writes a line to stderr. If that fails there is nobody left to tell.
pub(crate) fn error_line(line: Arguments<'_>) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Writes why the program ends, in the journal as an error.
pub(crate) fn failure(failure: &Failure) {
    if !logging::in_journal() {
        return error_line(format_args!("{failure}"));
    }
    let mut text = String::new();
    let priority = logging::PRIORITY_ERROR;
    if logging::write_for_journal(&mut text, priority, &failure.to_string()).is_ok() {
        error_line(format_args!("{}", text.trim_end()));
    }
}

/// Whether stdout is a terminal that takes escape sequences.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

//! The log in a file: standard error is that file, so that workers inherit it and nothing a process
//! says is lost.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::unistd::dup2_stderr;

static PATH: OnceLock<PathBuf> = OnceLock::new();
/// Standard error as it was.
static TERMINAL: OnceLock<OwnedFd> = OnceLock::new();

/// From now on the log is in this file.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn redirect(path: &Path) -> io::Result<()> {
    // A worker's standard error is the log already.
    let told_by_supervisor = std::env::var_os(baton_supervisor::TERMINAL_VARIABLE).is_some();
    let before = if told_by_supervisor {
        io::stdin().as_fd().try_clone_to_owned()?
    } else {
        io::stderr().as_fd().try_clone_to_owned()?
    };
    open(path)?;
    // There is one log in a process.
    drop(TERMINAL.set(before));
    drop(PATH.set(path.to_owned()));
    Ok(())
}

/// Opens the file again, which somebody may have moved away. Without one nothing happens.
pub(crate) fn reopen() {
    let Some(path) = PATH.get() else { return };
    if let Err(error) = open(path) {
        tracing::error!(path = %path.display(), %error, "the log stays in the file it is in");
    }
}

/// Standard error is what it was, for words to the user.
pub(crate) fn leave() {
    if let Some(Err(errno)) = TERMINAL.get().map(dup2_stderr) {
        tracing::error!(%errno, "the last words are in the log");
    }
}

/// Standard error as it was, if the log is in a file, for a worker.
pub(crate) fn terminal() -> Option<OwnedFd> {
    TERMINAL.get()?.try_clone().ok()
}

/// Tells whoever started the program, when the log cannot. Without a file there is nobody else to tell.
pub(super) fn tell(text: fmt::Arguments<'_>) {
    let (Some(terminal), Some(path)) = (terminal(), PATH.get()) else { return };
    let line = format!("baton: error: {text}\nhint: look at the disk of `{}`\n", path.display());
    // Nobody is left to hear of a failure.
    drop(File::from(terminal).write_all(line.as_bytes()));
}

fn open(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    dup2_stderr(file)?;
    Ok(())
}

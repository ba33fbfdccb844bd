//! Asks another program whether it could take this supervisor's place, before anything is done.
//!
//! The program gets the state as descriptor 3 and the command line of this process. It says no by
//! an exit code other than 0, and why by what it prints. Nobody waits for it: it has a deadline.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use baton_contract::channel::WORKER_FD;
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::{
    spawn::{OWN_VARIABLES, Process},
    state::event::{Death, Time},
    sys,
};

/// Most bytes of an explanation that are shown.
const MAX_TEXT: u64 = 4096;

/// A program that looks at the state.
#[derive(Debug)]
pub(crate) struct Preflight {
    process: Process,
    output: File,
    deadline: Time,
}

impl Preflight {
    /// Starts `PROGRAM WORDS ARGUMENTS`.
    ///
    /// # Errors
    /// When the program cannot be executed, or there is no descriptor or memory.
    pub(crate) fn start(
        program: &Path,
        words: &[String],
        arguments: impl Iterator<Item = OsString>,
        state: &OwnedFd,
        deadline: Time,
    ) -> io::Result<Self> {
        let output = File::from(memfd_create(c"baton-preflight", MFdFlags::MFD_CLOEXEC)?);
        let mut command = Command::new(program);
        command
            .args(words)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .process_group(0);
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        // Keeps the number taken while the standard library opens its own pipe.
        let null = File::open("/dev/null")?;
        let reserved = fcntl(&null, FcntlArg::F_DUPFD_CLOEXEC(WORKER_FD))?;
        sys::hand_down(&mut command, state.as_fd(), WORKER_FD);
        let started = command.spawn();
        nix::unistd::close(reserved)?;
        let process = Process::of_child(started?)?;
        Ok(Self { process, output, deadline })
    }

    /// The answer, once it is there.
    pub(crate) fn answer(&mut self, now: Time) -> Option<Result<(), String>> {
        let Some(death) = self.process.reap() else {
            if now < self.deadline {
                return None;
            }
            self.process.destroy();
            return Some(Err("the new program did not answer in time".to_owned()));
        };
        if death == Death::Exited(0) {
            return Some(Ok(()));
        }
        let text = self.text();
        let text = if text.is_empty() { format!("it {death}") } else { text };
        Some(Err(format!("the new program cannot take over: {text}")))
    }

    fn text(&mut self) -> String {
        let mut bytes = Vec::new();
        let output = &mut self.output;
        let read =
            io::Seek::rewind(output).and_then(|()| output.take(MAX_TEXT).read_to_end(&mut bytes));
        if let Err(error) = read {
            tracing::debug!(%error, "cannot read what the new program printed");
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl AsFd for Preflight {
    /// Readable once the program ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

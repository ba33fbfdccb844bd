//! Asks another program whether it could take this supervisor's place, before anything is done.
//!
//! ```text
//! look: PROGRAM adopt-check ARGUMENTS ─proof→ rehearse: PROGRAM ARGUMENTS ─proof→ yes
//! ```
//! Each time the program gets the state as descriptor 3. First it checks the state, the command line
//! and the configuration. Then it is started exactly as it would be executed and goes as far as it
//! can without taking anything: a program that answers questions well and does not serve is found
//! out here. It says yes by a [`Question`] answered, and no in any other way; why, by what it prints.
//! Nobody waits for it: it has a deadline.

use std::{
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use baton_contract::channel::WORKER_FD;
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::{
    proof::Question,
    reexec,
    spawn::{OWN_VARIABLES, Process},
    state::event::{Death, Time},
    sys,
};

/// Most bytes of an explanation that are shown.
const MAX_TEXT: u64 = 4096;

/// Who is asked, and how.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) program: PathBuf,
    /// Words before the arguments of this process for a look.
    pub(crate) words: Vec<String>,
    /// The last line of what a program prints that is too old to know of questions.
    pub(crate) summary: String,
}

/// A program that is asked.
#[derive(Debug)]
pub(crate) struct Preflight {
    flight: Flight,
    process: Process,
    output: File,
    question: Question,
    /// What it is asked next.
    rehearse: Option<Question>,
    deadline: Time,
}

impl Preflight {
    /// Starts the program for the first question.
    ///
    /// # Errors
    /// When the program cannot be executed, or there is no descriptor or memory.
    pub(crate) fn start(
        flight: Flight,
        look: Question,
        rehearse: Question,
        deadline: Time,
    ) -> io::Result<Self> {
        let (process, output) = flight.start(&flight.words, &look)?;
        Ok(Self { flight, process, output, question: look, rehearse: Some(rehearse), deadline })
    }

    /// The answer, once it is there.
    pub(crate) fn answer(&mut self, now: Time) -> Option<Result<(), String>> {
        let Some(death) = self.process.reap() else {
            if now < self.deadline {
                return None;
            }
            self.process.destroy_group();
            return Some(Err("the new program did not answer in time".to_owned()));
        };
        let text = self.text();
        if death != Death::Exited(0) {
            let text = if text.is_empty() { format!("it {death}") } else { text };
            return Some(Err(format!("the new program cannot take over: {text}")));
        }
        if !self.question.is_answered() {
            let looked_only = self.rehearse.is_some();
            if looked_only && text.lines().next_back() == Some(&self.flight.summary) {
                // It has read the state, and knows of no questions.
                return Some(Ok(()));
            }
            let did = if looked_only { "check the state" } else { "start" };
            return Some(Err(format!(
                "the new program ended without an error, but did not {did}: is it baton?"
            )));
        }
        let Some(question) = self.rehearse.take() else { return Some(Ok(())) };
        match self.flight.start(&[], &question) {
            Ok((process, output)) => {
                (self.process, self.output, self.question) = (process, output, question);
                None
            }
            Err(error) => {
                let program = self.flight.program.display();
                Some(Err(format!("cannot execute `{program}`: {error}")))
            }
        }
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

impl Flight {
    /// Starts `PROGRAM WORDS ARGUMENTS`; the process, and what it prints.
    fn start(&self, words: &[String], question: &Question) -> io::Result<(Process, File)> {
        let output = File::from(memfd_create(c"baton-preflight", MFdFlags::MFD_CLOEXEC)?);
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .args(std::env::args_os().skip(1))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .process_group(0);
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        if words.is_empty() {
            command.env(reexec::VARIABLE, WORKER_FD.to_string());
        }
        // Keeps the number taken while the standard library opens its own pipe.
        let null = File::open("/dev/null")?;
        let reserved = fcntl(&null, FcntlArg::F_DUPFD_CLOEXEC(WORKER_FD))?;
        sys::hand_down(&mut command, question.file().as_fd(), WORKER_FD);
        let started = command.spawn();
        nix::unistd::close(reserved)?;
        Ok((Process::of_child(started?)?, output))
    }
}

impl AsFd for Preflight {
    /// Readable once the program ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

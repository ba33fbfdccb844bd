//! Starts worker processes from the program on disk, watches and signals them.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use baton_contract::{
    channel::{Channel, WORKER_FD},
    generation::Generation,
};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{state::event::Death, sys};

/// Variables of the service manager that are meant for the supervisor alone.
const OWN_VARIABLES: [&str; 6] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// What workers are started from.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<String>,
}

impl Program {
    /// The given program, or the file this process was started from. A file that replaces it later
    /// under the same name is used by later starts.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub(crate) fn new(path: Option<PathBuf>, arguments: Vec<String>) -> io::Result<Self> {
        let path = match path {
            Some(path) => path,
            None => undeleted(std::env::current_exe()?),
        };
        Ok(Self { path, arguments })
    }

    pub(crate) const fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Starts `PROGRAM ARGUMENTS --generation N` with the channel as descriptor 3.
    ///
    /// # Errors
    /// When the program cannot be executed, or the process is out of descriptors or memory.
    pub(crate) fn start(&self, generation: Generation, channel: &Channel) -> io::Result<Process> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .arg("--generation")
            .arg(generation.to_string())
            .stdin(Stdio::null())
            // Ctrl-C in the terminal is for the supervisor alone.
            .process_group(0);
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        // Keeps the number of the channel taken while the standard library opens its own pipe.
        let null = File::open("/dev/null")?;
        let reserved = fcntl(&null, FcntlArg::F_DUPFD_CLOEXEC(WORKER_FD))?;
        sys::ignore_requests(&mut command);
        sys::hand_down(&mut command, channel.as_fd(), WORKER_FD);
        let started = command.spawn();
        nix::unistd::close(reserved)?;
        let mut child = started?;
        match sys::pidfd_open(child.id()) {
            Ok(pidfd) => Ok(Process { child, pidfd }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }
}

/// The name a program had before another file took its place.
fn undeleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(name) => PathBuf::from(name),
        None => path,
    }
}

/// A worker process. It is not ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, unless the process was reaped already.
    pub(crate) fn signal(&self, signal: Signal) {
        // It is our child and not reaped, so its number cannot belong to another process.
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Err(error) = kill(Pid::from_raw(pid), signal)
        {
            tracing::debug!(pid, %error, "cannot send a signal");
        }
    }

    /// Reaps the process if it ended.
    pub(crate) fn reap(&mut self) -> Option<Death> {
        match self.child.try_wait() {
            Ok(status) => status.map(death),
            Err(error) => {
                tracing::error!(%error, "cannot reap a worker");
                Some(Death::Exited(-1))
            }
        }
    }

    /// Ends the process at once and reaps it.
    pub(crate) fn destroy(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            tracing::error!(%error, "cannot end a worker");
        }
    }
}

impl AsFd for Process {
    /// Readable once the process ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn death(status: ExitStatus) -> Death {
    match (status.code(), status.signal()) {
        (Some(code), _) => Death::Exited(code),
        (None, Some(signal)) => Death::Killed(signal),
        (None, None) => Death::Exited(-1),
    }
}

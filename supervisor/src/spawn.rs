//! Starts worker processes from the program on disk, watches and signals them.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use baton_contract::{
    channel::{Channel, WORKER_FD},
    generation::Generation,
    shm::start_of,
};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use crate::{SupervisorOptions, reexec, state::event::Death, sys};

/// Variables of the service manager that are meant for the supervisor alone.
pub(crate) const OWN_VARIABLES: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    reexec::VARIABLE,
];

/// Says to a worker that its standard input, from which it reads nothing, is where it can speak when the
/// log is in a file that takes no more.
pub const TERMINAL_VARIABLE: &str = "BATON_TERMINAL";

/// What workers are started from.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    terminal: fn() -> Option<OwnedFd>,
}

impl Program {
    /// The given program, or the file this process was started from. A file that replaces it later
    /// under the same name is used by later starts.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub(crate) fn new(options: &SupervisorOptions) -> io::Result<Self> {
        let arguments = options.worker_arguments.clone();
        let path = match options.program.clone() {
            Some(path) => path,
            None => undeleted(std::env::current_exe()?),
        };
        Ok(Self { path, arguments, terminal: options.terminal })
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
            .env_remove(TERMINAL_VARIABLE)
            // Ctrl-C in the terminal is for the supervisor alone.
            .process_group(0);
        for name in OWN_VARIABLES {
            command.env_remove(name);
        }
        if let Some(terminal) = (self.terminal)() {
            command.stdin(terminal).env(TERMINAL_VARIABLE, "stdin");
        }
        // Keeps the number of the channel taken while the standard library opens its own pipe.
        let null = File::open("/dev/null")?;
        let reserved = fcntl(&null, FcntlArg::F_DUPFD_CLOEXEC(WORKER_FD))?;
        sys::ignore_requests(&mut command);
        sys::hand_down(&mut command, channel.as_fd(), WORKER_FD);
        let started = command.spawn();
        nix::unistd::close(reserved)?;
        Process::of_child(started?)
    }
}

/// The name a program had before another file took its place.
fn undeleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(name) => PathBuf::from(name),
        None => path,
    }
}

/// Whether a process is ours to reap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kinship {
    /// Its exit status comes to us.
    Child,
    /// A dead supervisor started it; only the fact that it ended can be seen.
    Adopted,
}

/// A worker process. It is not ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: OwnedFd,
    kinship: Kinship,
}

impl Process {
    /// A process this one has just started.
    ///
    /// # Errors
    /// When there is no descriptor for it; then it was ended.
    pub(crate) fn of_child(mut child: Child) -> io::Result<Self> {
        match sys::pidfd_open(child.id()) {
            Ok(pidfd) => Ok(Self { pid: child.id(), pidfd, kinship: Kinship::Child }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// A process the program before this one took care of.
    pub(crate) fn restore(pid: u32, pidfd: OwnedFd) -> Self {
        Self { pid, pidfd, kinship: kinship(pid) }
    }

    /// Takes care of a process that runs already. `start` is when it started, 0 = not known.
    ///
    /// # Errors
    /// When it ended, or another process has its number now.
    pub(crate) fn adopt(pid: u32, start: u64) -> io::Result<Self> {
        let pidfd = sys::pidfd_open(pid)?;
        // Looked at after it was opened: from then on the number cannot change its meaning unseen.
        match start_of(pid) {
            Some(found) if start == 0 || found == start => {}
            Some(_) | None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(Self { pid, pidfd, kinship: kinship(pid) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Sends a signal, unless the process ended already.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = sys::pidfd_send_signal(self.pidfd.as_fd(), signal) {
            tracing::debug!(pid = self.pid, %error, "cannot send a signal");
        }
    }

    /// Reaps the process if it ended.
    pub(crate) fn reap(&mut self) -> Option<Death> {
        match self.kinship {
            Kinship::Child => self.wait_for_child(),
            Kinship::Adopted => self.has_ended().then_some(Death::Unseen),
        }
    }

    fn wait_for_child(&self) -> Option<Death> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
            Ok(WaitStatus::Exited(_, status)) => Some(Death::Exited(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Death::Killed(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => None,
            Err(errno) => {
                tracing::error!(pid = self.pid, %errno, "cannot reap a worker");
                Some(Death::Unseen)
            }
        }
    }

    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// Ends the process, which leads its group, and what it started in it, at once.
    pub(crate) fn destroy_group(&mut self) {
        let group = i32::try_from(self.pid).map(Pid::from_raw);
        if let Ok(Err(errno)) = group.map(|group| killpg(group, Signal::SIGKILL)) {
            tracing::debug!(pid = self.pid, %errno, "cannot end a group of processes");
        }
        self.destroy();
    }

    /// Ends the process at once; a child is reaped.
    pub(crate) fn destroy(&mut self) {
        self.signal(Signal::SIGKILL);
        if self.kinship == Kinship::Child {
            let ended = waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED);
            if let Err(errno) = ended {
                tracing::error!(pid = self.pid, %errno, "cannot reap a worker");
            }
        }
    }
}

impl AsFd for Process {
    /// Readable once the process ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn kinship(pid: u32) -> Kinship {
    let ours = parent_of(pid) == Some(std::process::id());
    if ours { Kinship::Child } else { Kinship::Adopted }
}

/// The process that gets the exit status.
fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

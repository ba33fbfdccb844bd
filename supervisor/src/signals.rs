//! Signals as readable sockets.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use nix::{
    libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, pthread_sigmask},
    },
    unistd::getppid,
};
use signal_hook::{SigId, low_level};

use crate::state::event::{Event, StopKind};
use baton_contract::control::Reload;

/// The signals the supervisor understands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Meaning {
    Reload,
    Stop,
    StopFull,
    ReopenLogs,
    Upgrade,
}

const TABLE: [(i32, Meaning); 6] = [
    (SIGHUP, Meaning::Reload),
    (SIGTERM, Meaning::Stop),
    (SIGINT, Meaning::Stop),
    (SIGQUIT, Meaning::StopFull),
    (SIGUSR1, Meaning::ReopenLogs),
    (SIGUSR2, Meaning::Upgrade),
];

impl Meaning {
    /// What is done, for the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Stop => "stop",
            Self::StopFull => "stop with the full drain time",
            Self::ReopenLogs => "open log files again",
            Self::Upgrade => "upgrade",
        }
    }

    /// The signals that mean it.
    pub(crate) const fn names(self) -> &'static str {
        match self {
            Self::Reload => "HUP",
            Self::Stop => "TERM or INT",
            Self::StopFull => "QUIT",
            Self::ReopenLogs => "USR1",
            Self::Upgrade => "USR2",
        }
    }

    pub(crate) fn event(self) -> Event {
        match self {
            Self::Reload => Event::Reload { waiter: None, reload: Reload::default() },
            Self::Stop => Event::Stop(StopKind::Graceful),
            Self::StopFull => Event::Stop(StopKind::Full),
            Self::ReopenLogs => Event::ReopenLogs,
            Self::Upgrade => Event::Upgrade { waiter: None, program: None },
        }
    }
}

/// Keeps the signals of the supervisor back until [`let_through`]: one that comes before there are handlers
/// would end the process. To be called first of all.
///
/// SIGXFSZ stays blocked for good: where a limit of file sizes is in force (`ulimit -f`), a write
/// beyond it fails, instead of ending the process without a word.
pub fn hold() {
    let ours = TABLE.into_iter().filter_map(|(number, _)| Signal::try_from(number).ok());
    set_mask(&ours.chain([Signal::SIGXFSZ]).collect());
}

/// Lets signals through that [`hold`] kept back, or that an older program blocked before it executed
/// this one.
pub fn let_through() {
    set_mask(&SigSet::from(Signal::SIGXFSZ));
}

/// Stops this process gracefully when its parent ends, or has ended already. The kernel means the
/// thread that started this process: it has to be one that lives as long as its process.
pub(crate) fn end_with(parent: u32) {
    if let Err(errno) = prctl::set_pdeathsig(Signal::SIGTERM) {
        tracing::error!(%errno, "this process may outlive the one that started it");
    }
    // It may have ended before the kernel was told.
    if u32::try_from(getppid().as_raw()) != Ok(parent)
        && let Err(error) = low_level::raise(SIGTERM)
    {
        tracing::error!(%error, "cannot stop");
    }
}

fn set_mask(mask: &SigSet) {
    if let Err(errno) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(mask), None) {
        tracing::error!(%errno, "the signals that come through cannot be chosen");
    }
}

/// One socket for each signal. The handlers are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    sockets: Vec<(UnixStream, Meaning, SigId)>,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn install() -> io::Result<Self> {
        let mut signals = Self { sockets: Vec::new() };
        for (number, meaning) in TABLE {
            let (ours, handlers) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let id = low_level::pipe::register(number, handlers)?;
            signals.sockets.push((ours, meaning, id));
        }
        Ok(signals)
    }

    /// The sockets, each with what it means when it is readable.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Meaning)> {
        self.sockets.iter().map(|(socket, meaning, _)| (socket.as_fd(), *meaning))
    }

    /// Empties the sockets; the meanings of those that had something, each once.
    pub(crate) fn take(&self) -> Vec<Meaning> {
        let mut meanings = Vec::new();
        for (socket, meaning, _) in &self.sockets {
            let mut bytes = [0; 256];
            let mut reader = socket;
            let mut any = false;
            while matches!(reader.read(&mut bytes), Ok(1..)) {
                any = true;
            }
            if any {
                meanings.push(*meaning);
            }
        }
        meanings
    }

    /// Raises again what came and was not taken, for a program that is executed in place of this
    /// one. All signals must be blocked.
    pub(crate) fn hand_on(&self) {
        for meaning in self.take() {
            let numbers = TABLE.iter().filter(|(_, known)| *known == meaning);
            for (number, _) in numbers.take(1) {
                if let Err(error) = low_level::raise(*number) {
                    tracing::error!(number, %error, "a signal is lost");
                }
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (_, _, id) in &self.sockets {
            low_level::unregister(*id);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_signal_that_comes_before_its_handler_waits_for_it() {
        hold();
        raise(Signal::SIGHUP).expect("raise");
        raise(Signal::SIGXFSZ).expect("raise");
        let signals = Signals::install().expect("handlers");
        assert_eq!(signals.take(), []);
        let_through();
        assert_eq!(signals.take(), [Meaning::Reload]);
    }
}

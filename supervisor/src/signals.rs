//! Signals as readable sockets.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use nix::libc::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
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

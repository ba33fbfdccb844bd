//! Where orphans find the next supervisor: a Unix socket beside the control socket, in a directory
//! only its owner may enter. Both sides check who the other one is.
//!
//! ```text
//! connect → credentials → REATTACH + memfd → HOLDING + sockets … last → a Return for the loop
//! ```
//! Nothing here waits: a caller that says too little, too much or nothing is dropped at a deadline.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use baton_contract::{
    channel::{Channel, ReceiveError},
    message::{FromWorker, HeldShard, Reattach, Reattached, ToWorker},
    version::{ProtoRange, common_features},
};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{config_file, state::event::Time};

/// Name of the socket, in place of the extension of the control socket.
const EXTENSION: &str = "work";
/// Callers that may wait to be accepted.
const QUEUE: i32 = 128;
/// Most callers at once; more wait in the queue of the socket.
const MAX_CALLERS: usize = 64;
/// Most sockets one caller may hold.
const MAX_HELD: usize = 65_536;
/// Most packets read from one caller before others get their turn.
const MAX_PACKETS: usize = 64;
/// Time for a caller to say everything.
const PATIENCE: Duration = Duration::from_secs(5);

/// A worker that said everything.
#[derive(Debug)]
pub(crate) struct Return {
    pub(crate) channel: Channel,
    /// The process that connected, by the kernel's word.
    pub(crate) pid: u32,
    pub(crate) reattach: Reattach,
    /// Bytes of its configuration.
    pub(crate) config: Vec<u8>,
    pub(crate) held: Vec<(HeldShard, OwnedFd)>,
}

impl Return {
    /// The worker speaks no version of the protocol this program speaks.
    pub(crate) fn is_alien(&self) -> bool {
        ProtoRange::ours().negotiate(self.reattach.hello.proto).is_err()
    }

    /// Tells the worker that this supervisor commands it from now on. One of another version is
    /// taken back too: it can be drained with what every version has.
    ///
    /// # Errors
    /// Why it cannot come back.
    pub(crate) fn welcome(&self, epoch: u64, os_id: &str) -> Result<(), String> {
        let hello = &self.reattach.hello;
        let proto = ProtoRange::ours().negotiate(hello.proto).unwrap_or(hello.proto.max);
        let features = common_features(&hello.features);
        let os_id = os_id.to_owned();
        self.say(Reattached { proto, features, epoch, os_id, refused: String::new() })
    }

    /// Tells the worker why it cannot come back. It serves on and tries again.
    pub(crate) fn refuse(self, why: &str) {
        let generation = self.reattach.generation;
        tracing::warn!(%generation, pid = self.pid, why, "an orphan is refused");
        if let Err(error) = self.say(Reattached { refused: why.to_owned(), ..Default::default() }) {
            tracing::debug!(error, "an orphan did not hear that it is refused");
        }
    }

    fn say(&self, message: Reattached) -> Result<(), String> {
        let frame = ToWorker::from(message).to_frame(self.reattach.generation, 1, 0);
        let frame = frame.map_err(|error| error.to_string())?;
        self.channel.send(&frame, &[]).map_err(|error| error.to_string())
    }
}

/// A worker that has not said everything yet.
#[derive(Debug)]
struct Caller {
    channel: Channel,
    pid: u32,
    deadline: Time,
    said: Option<(Reattach, Vec<u8>)>,
    held: Vec<(HeldShard, OwnedFd)>,
}

/// What a look at a caller showed.
enum Look {
    Waiting,
    Complete,
    Done,
}

/// The socket and who calls.
#[derive(Debug)]
pub(crate) struct Door {
    listener: Socket,
    path: PathBuf,
    callers: Vec<Caller>,
}

impl Door {
    /// Opens the socket beside the control socket. Whoever has the lock may replace a stale one.
    ///
    /// # Errors
    /// When the directory cannot be written to, or the path is too long for a socket.
    pub(crate) fn open(control_socket: &Path) -> io::Result<Self> {
        let path = control_socket.with_extension(EXTENSION);
        Ok(Self { listener: Self::bind(&path)?, path, callers: Vec::new() })
    }

    /// Opens the socket anew when somebody removed its file.
    pub(crate) fn restore(&mut self) {
        if self.path.exists() {
            return;
        }
        match Self::bind(&self.path) {
            Ok(listener) => self.listener = listener,
            Err(error) => tracing::warn!(%error, "orphans find no socket any more"),
        }
    }

    fn bind(path: &Path) -> io::Result<Socket> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
        listener.bind(&SockAddr::unix(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listener.listen(QUEUE)?;
        Ok(listener)
    }

    /// The socket this process opened before it executed another program.
    pub(crate) fn reopen(listener: OwnedFd, control_socket: &Path) -> Self {
        let path = control_socket.with_extension(EXTENSION);
        Self { listener: listener.into(), path, callers: Vec::new() }
    }

    /// Where workers find it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Everything to poll.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let callers = self.callers.iter().map(|caller| caller.channel.as_fd());
        std::iter::once(self.listener.as_fd()).chain(callers)
    }

    /// The listening socket, for a program that is executed in place of this one.
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Accepts and reads what is possible; the workers that said everything.
    pub(crate) fn turn(&mut self, now: Time) -> Vec<Return> {
        self.accept(now);
        let mut returns = Vec::new();
        for mut caller in std::mem::take(&mut self.callers) {
            match caller.look() {
                Look::Waiting if caller.deadline > now => self.callers.push(caller),
                Look::Complete => returns.extend(caller.into_return()),
                Look::Waiting | Look::Done => {}
            }
        }
        returns
    }

    fn accept(&mut self, now: Time) {
        while self.callers.len() < MAX_CALLERS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            let Ok(peer) = getsockopt(&stream, PeerCredentials) else { continue };
            let ours = peer.uid() == geteuid().as_raw() || peer.uid() == 0;
            let Some(pid) = u32::try_from(peer.pid()).ok().filter(|_| ours) else {
                tracing::warn!(uid = peer.uid(), "a process of another user is not let in");
                continue;
            };
            let Ok(channel) = Channel::from_fd(stream.into()) else { continue };
            let deadline = now.saturating_add(PATIENCE);
            self.callers.push(Caller { channel, pid, deadline, said: None, held: Vec::new() });
        }
    }

    /// Removes the socket.
    pub(crate) fn clean(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "cannot remove the socket for orphans");
        }
    }
}

impl Caller {
    fn look(&mut self) -> Look {
        for _ in 0..MAX_PACKETS {
            let (frame, fds) = match self.channel.recv() {
                Ok(Some(received)) => received,
                Err(ReceiveError::Empty) => return Look::Waiting,
                Ok(None) | Err(_) => return Look::Done,
            };
            let complete = match FromWorker::from_frame(&frame) {
                Ok(FromWorker::Reattach(reattach)) => self.on_reattach(reattach, fds),
                Ok(FromWorker::Holding(holding)) => {
                    let last = holding.last;
                    self.held.extend(holding.manifest.into_iter().zip(fds));
                    (self.said.is_some() && self.held.len() <= MAX_HELD).then_some(last)
                }
                // A worker says these only later.
                Ok(_) | Err(_) => None,
            };
            match complete {
                Some(true) => return Look::Complete,
                Some(false) => {}
                None => return Look::Done,
            }
        }
        Look::Waiting
    }

    /// Takes the configuration; `None` when it is not what the message says.
    fn on_reattach(&mut self, reattach: Reattach, mut fds: Vec<OwnedFd>) -> Option<bool> {
        let bytes = config_file::read_sealed(fds.pop()?).ok()?;
        if config_file::identify(&bytes).to_string() != reattach.config.hash {
            tracing::warn!(pid = self.pid, "the configuration of an orphan is damaged");
            return None;
        }
        self.said = Some((reattach, bytes));
        Some(false)
    }

    fn into_return(self) -> Option<Return> {
        let (reattach, config) = self.said?;
        let Self { channel, pid, held, .. } = self;
        Some(Return { channel, pid, reattach, config, held })
    }
}

//! The server side of the control socket: who may connect, lines in, lines out. Never blocks.

mod home;
mod pack;

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use baton_contract::{
    control::{Answer, MAX_LINE_LEN, Request},
    exit::Exit,
};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};

pub(crate) use self::{
    home::{Home, HomeError},
    pack::ControlState,
};
use crate::state::event::Waiter;

/// Most clients at once. More are closed at once; a command then says so.
const MAX_CLIENTS: usize = 128;
/// Most bytes that wait for one client to read them.
const MAX_UNREAD: usize = 4 * MAX_LINE_LEN;

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// It asked; more input is ignored.
    asked: bool,
    /// Close once the output is written.
    last: bool,
}

/// The control socket and its clients.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    clients: BTreeMap<Waiter, Client>,
    next: u64,
    home: Home,
    leaves: bool,
}

impl ControlSocket {
    /// Opens the socket in its directory.
    ///
    /// # Errors
    /// When the directory is not safe, or another supervisor has it.
    pub(crate) fn open(home: Home) -> Result<Self, HomeError> {
        let listener = home.bind()?;
        Ok(Self { listener, clients: BTreeMap::new(), next: 0, home, leaves: false })
    }

    /// Opens the socket anew when somebody removed its file, a cleaner of /tmp for example.
    pub(crate) fn restore(&mut self) {
        if let Err(error) = self.home.restore_files() {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "the lock beside the control socket was removed");
            return;
        }
        if !self.home.is_lost() {
            return;
        }
        match self.home.bind() {
            Ok(listener) => {
                self.listener = listener;
                let path = self.home.socket().display();
                tracing::warn!(%path, "the control socket had been removed and is there again");
            }
            Err(error) => tracing::warn!(%error, "the control socket was removed"),
        }
    }

    /// Where commands find it.
    pub(crate) fn path(&self) -> &Path {
        self.home.socket()
    }

    /// Lets the socket's file stay when this is dropped: it belongs to another supervisor.
    pub(crate) fn leave(&mut self) {
        self.leaves = true;
    }

    /// Everything to poll, with whether there is something to write.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let clients = self.clients.values();
        let clients = clients.map(|client| (client.stream.as_fd(), !client.output.is_empty()));
        std::iter::once((self.listener.as_fd(), false)).chain(clients)
    }

    /// Accepts, reads and writes what is possible; the requests that are complete.
    pub(crate) fn turn(&mut self) -> Vec<(Waiter, Request)> {
        self.accept();
        let mut requests = Vec::new();
        let mut gone = Vec::new();
        for (waiter, client) in &mut self.clients {
            match client.turn() {
                Ok(Some(request)) => requests.push((*waiter, request)),
                Ok(None) => {}
                Err(_) => gone.push(*waiter),
            }
        }
        for waiter in gone {
            self.clients.remove(&waiter);
        }
        requests
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= MAX_CLIENTS {
                continue;
            }
            let Ok(peer) = getsockopt(&stream, PeerCredentials) else { continue };
            if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
                tracing::warn!(uid = peer.uid(), pid = peer.pid(), "refused on the control socket");
                continue;
            }
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let client =
                Client { stream, input: Vec::new(), output: Vec::new(), asked: false, last: false };
            self.clients.insert(Waiter(self.next), client);
            self.next = self.next.saturating_add(1);
        }
    }

    /// Sends a line to a client; the connection ends after a final one.
    pub(crate) fn answer(&mut self, waiter: Waiter, answer: &Answer) {
        let Some(client) = self.clients.get_mut(&waiter) else { return };
        client.queue(answer);
        if client.flush().is_err() {
            self.clients.remove(&waiter);
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if !self.leaves {
            self.home.clean();
        }
    }
}

impl Client {
    /// Reads and writes; an error means that the client is done.
    fn turn(&mut self) -> io::Result<Option<Request>> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if self.asked => {}
                Ok(count) => self.input.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.input.len() > MAX_LINE_LEN {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let request = self.parse();
        self.flush()?;
        Ok(request)
    }

    /// The request, once its line is complete.
    fn parse(&mut self) -> Option<Request> {
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        self.asked = true;
        let input = std::mem::take(&mut self.input);
        match serde_json::from_slice(input.get(..end).unwrap_or_default()) {
            Ok(request) => Some(request),
            Err(error) => {
                let text = format!("the supervisor does not understand this request: {error}");
                self.queue(&Answer::Refused { text, code: Exit::Usage as u8 });
                None
            }
        }
    }

    fn queue(&mut self, answer: &Answer) {
        if self.output.len() > MAX_UNREAD && !answer.is_final() {
            return;
        }
        self.last |= answer.is_final();
        if let Err(error) = serde_json::to_writer(&mut self.output, answer) {
            tracing::error!(%error, "cannot write an answer");
        }
        self.output.push(b'\n');
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.last {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}

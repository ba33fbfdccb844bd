//! The listening sockets. The supervisor holds all of them for as long as anybody may need them.
//!
//! A TCP listener has several sockets bound to one address with `SO_REUSEPORT`, its shards, so that
//! each worker thread has its own accept queue. Their number never falls, because closing one would
//! reset the connections in its queue. A socket that is bound accepts nothing until [`FdStore::listen`];
//! so a reload that fails before the switch was never visible from outside. Options that a reload
//! changes are set on the sockets that accept already, at the same moment; the one option that only
//! an unbound socket takes refuses the reload.

mod adopt;
mod bind;
mod files;
mod owner;
mod pack;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use baton_contract::{
    fault,
    listener_key::{ListenerKey, ListenerSpec, Place, SocketOptions},
};
use socket2::Socket;

use crate::systemd;

pub(crate) use self::{adopt::copy_listening, pack::StoreState};

/// Most sockets of one listener. More than the threads of any machine; without a limit a worker that
/// asks for nonsense takes the memory and the descriptors of this process.
const MAX_SHARDS: usize = 4096;

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FdStoreError {
    #[error("cannot {verb} `{key}` for listener `{name}`: {source}{owner}")]
    Refused { verb: &'static str, key: ListenerKey, name: String, source: io::Error, owner: String },
    #[error(
        "listener `{name}` at `{key}` shall have {wanted} sockets, at most {MAX_SHARDS} are given"
    )]
    TooManyShards { key: ListenerKey, name: String, wanted: usize },
    #[error(
        "cannot change `ipv4_compat` of `{key}` for listener `{name}` while it is bound: give it \
         another port, or reload once without it and again when the older generation has ended"
    )]
    Fixed { key: ListenerKey, name: String },
}

/// One socket.
#[derive(Debug)]
struct Shard {
    socket: Socket,
    listening: bool,
}

/// The sockets of one listener.
#[derive(Debug)]
struct Held {
    options: SocketOptions,
    shards: Vec<Shard>,
    /// Number of shards workers are told about. More than `shards` when sockets are shared.
    width: usize,
    /// No new connection gets into the queues, or it is not known whether one does.
    deaf: bool,
    /// The service manager made it.
    adopted: bool,
    /// A socket file of ours, with its device and inode, to be removed in the end.
    file: Option<(PathBuf, u64, u64)>,
}

/// A socket the service manager passed and nobody asked for yet.
#[derive(Debug)]
struct Inherited {
    socket: Socket,
    name: String,
    key: Option<ListenerKey>,
}

impl Inherited {
    /// A socket of the service manager that was used for a listener that is gone.
    fn again(socket: Socket, key: &ListenerKey) -> Self {
        Self { socket, name: key.to_string(), key: Some(key.clone()) }
    }

    /// An earlier supervisor made it. It is closed when nobody asks for it.
    fn is_stale(&self) -> bool {
        self.name.is_empty() || self.name.starts_with(systemd::STORED)
    }
}

/// All listening sockets.
#[derive(Debug, Default)]
pub(crate) struct FdStore {
    held: BTreeMap<ListenerKey, Held>,
    inherited: Vec<Inherited>,
    /// Program of workers; sockets of such processes that outlived their supervisor may be shared.
    program: PathBuf,
}

impl FdStore {
    pub(crate) fn new(inherited: Vec<(OwnedFd, String)>, program: PathBuf) -> Self {
        let inherited = inherited
            .into_iter()
            .map(|(fd, name)| {
                let socket = Socket::from(fd);
                let key = bind::key_of(&socket);
                Inherited { socket, name, key }
            })
            .collect();
        Self { held: BTreeMap::new(), inherited, program }
    }

    /// Makes sure that all listeners have sockets, at least `shards` for TCP. Binds all or nothing.
    ///
    /// # Errors
    /// When one of them cannot be bound; then nothing changed.
    pub(crate) fn bind(&mut self, specs: &[ListenerSpec], shards: u32) -> Result<(), FdStoreError> {
        let before: Vec<(ListenerKey, usize)> =
            self.held.iter().map(|(key, held)| (key.clone(), held.shards.len())).collect();
        for spec in specs {
            if let Err(error) = self.bind_one(spec, shards) {
                self.undo(&before);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Closes what was bound since `before`.
    fn undo(&mut self, before: &[(ListenerKey, usize)]) {
        let known: HashSet<&ListenerKey> = before.iter().map(|(key, _)| key).collect();
        let added: Vec<ListenerKey> =
            self.held.keys().filter(|key| !known.contains(key)).cloned().collect();
        self.release(&added);
        for (key, count) in before {
            if let Some(held) = self.held.get_mut(key) {
                // A Unix socket stays that took the place of one without a file.
                if matches!(key.place(), Place::Tcp(_)) {
                    held.shards.truncate(*count);
                }
                held.width = held.width.min((*count).max(1));
            }
        }
    }

    fn bind_one(&mut self, spec: &ListenerSpec, shards: u32) -> Result<(), FdStoreError> {
        let wanted = usize::try_from(shards.max(spec.min_shards)).unwrap_or(usize::MAX).max(1);
        if wanted > MAX_SHARDS {
            let (key, name) = (spec.key.clone(), spec.name.clone());
            return Err(FdStoreError::TooManyShards { key, name, wanted });
        }
        if !self.held.contains_key(&spec.key) {
            let held = self.adopt(spec, wanted).map_or_else(|| self.first(spec), Ok)?;
            self.held.insert(spec.key.clone(), held);
        }
        let Some(held) = self.held.get_mut(&spec.key) else { return Ok(()) };
        let ipv6 = matches!(spec.key.place(), Place::Tcp(address) if address.is_ipv6());
        if ipv6 && !held.adopted && held.options.ipv4_compat != spec.options.ipv4_compat {
            return Err(FdStoreError::Fixed { key: spec.key.clone(), name: spec.name.clone() });
        }
        let shareable = matches!(spec.key.place(), Place::Unix(_) | Place::Abstract(_));
        let own_ports = held.shards.first().is_some_and(|s| s.socket.reuse_port().unwrap_or(false));
        while !shareable && own_ports && held.shards.len() < wanted {
            let first = held.shards.first().and_then(|shard| shard.socket.local_addr().ok());
            let Some(address) = first else { break };
            let socket = bind::another(&address, &spec.options)
                .map_err(|source| refused("bind", spec, source, String::new()))?;
            held.shards.push(Shard { socket, listening: false });
        }
        held.width = held.width.max(wanted);
        Ok(())
    }

    /// Sockets of the service manager that fit, by address or by name.
    fn adopt(&mut self, spec: &ListenerSpec, width: usize) -> Option<Held> {
        let fits = |inherited: &Inherited| {
            inherited.key.as_ref() == Some(&spec.key) || inherited.name == spec.name
        };
        let (taken, rest) = std::mem::take(&mut self.inherited).into_iter().partition(fits);
        self.inherited = rest;
        let taken: Vec<Inherited> = taken;
        let adopted = taken.iter().any(|inherited| !inherited.is_stale());
        let shards: Vec<Shard> = taken.into_iter().map(bind::inherited_shard).collect();
        if shards.is_empty() {
            return None;
        }
        Some(Held {
            options: spec.options.clone(),
            shards,
            width,
            // A service that was stopped made its sockets deaf before it left them in the store.
            deaf: true,
            adopted,
            file: None,
        })
    }

    /// Binds the first socket of a listener.
    fn first(&self, spec: &ListenerSpec) -> Result<Held, FdStoreError> {
        let failed = |source: io::Error| {
            let owner = owner::describe(&spec.key, &source);
            refused("bind", spec, source, owner)
        };
        if let Place::Tcp(address) = spec.key.place()
            && let Some(other) = owner::foreign_listener(*address, &self.program)
        {
            let source = io::Error::from_raw_os_error(nix::libc::EADDRINUSE);
            return Err(refused("bind", spec, source, other));
        }
        let (socket, file) = bind::first(&spec.key, &spec.options).map_err(failed)?;
        let shards = vec![Shard { socket, listening: false }];
        Ok(Held {
            options: spec.options.clone(),
            shards,
            width: 1,
            deaf: false,
            adopted: false,
            file,
        })
    }

    /// Lets the sockets of these listeners accept, with the options asked for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn listen(&mut self, specs: &[ListenerSpec]) -> Result<(), FdStoreError> {
        for spec in specs {
            let Some(held) = self.held.get_mut(&spec.key) else { continue };
            let changed = held.options.backlog != spec.options.backlog;
            if held.options != spec.options {
                bind::change(&spec.key, &held.shards, &held.options, &spec.options).map_err(
                    |source| refused("change the options of", spec, source, String::new()),
                )?;
            }
            held.options = spec.options.clone();
            let backlog = i32::try_from(spec.options.backlog).unwrap_or(i32::MAX).max(1);
            if std::mem::take(&mut held.deaf) {
                bind::open_ears(&held.shards)
                    .map_err(|source| refused("listen on", spec, source, String::new()))?;
            }
            if held.shards.iter().all(|shard| !shard.listening) {
                bind::announce(spec, &held.shards);
            }
            for shard in &mut held.shards {
                if shard.listening && !changed {
                    continue;
                }
                shard
                    .socket
                    .listen(backlog)
                    .map_err(|source| refused("listen on", spec, source, String::new()))?;
                shard.listening = true;
            }
        }
        Ok(())
    }

    /// Binds one listener if it is not held, and lets it accept with the options asked for.
    ///
    /// # Errors
    /// When that fails; then it is held only if it was before, with the options it had.
    pub(crate) fn add(&mut self, spec: &ListenerSpec, shards: u32) -> Result<(), FdStoreError> {
        let held = self.held.contains_key(&spec.key);
        let one = std::slice::from_ref(spec);
        let added = self.bind(one, shards).and_then(|()| self.listen(one));
        if added.is_err() && !held {
            self.release(std::slice::from_ref(&spec.key));
        }
        added
    }

    /// The sockets of a listener by shard number. `true` when the socket accepts.
    pub(crate) fn shards(&self, key: &ListenerKey) -> Vec<(u32, BorrowedFd<'_>, bool)> {
        let Some(held) = self.held.get(key) else { return Vec::new() };
        let shards: Vec<&Shard> = match key.place() {
            Place::Tcp(_) => {
                held.shards.iter().cycle().take(held.width.max(held.shards.len())).collect()
            }
            // Each thread has each of them.
            Place::Unix(_) | Place::Abstract(_) => {
                held.shards.iter().flat_map(|s| std::iter::repeat_n(s, held.width)).collect()
            }
        };
        (0..).zip(shards).map(|(i, s)| (i, s.socket.as_fd(), s.listening)).collect()
    }

    /// Listeners the service manager may keep for the next start: those that accept. A socket file
    /// goes with the supervisor, so its socket is of no use later.
    pub(crate) fn for_later(&self) -> Vec<(ListenerKey, Vec<BorrowedFd<'_>>)> {
        let keeps = self.held.iter().filter(|(key, held)| {
            !held.adopted && !held.deaf && !matches!(key.place(), Place::Unix(_))
        });
        keeps
            .map(|(key, held)| {
                let accepting = held.shards.iter().filter(|shard| shard.listening);
                (key.clone(), accepting.map(|shard| shard.socket.as_fd()).collect())
            })
            .collect()
    }

    /// Closes sockets of an earlier supervisor that the configuration does not have any more: a
    /// client would wait in their queues for ever. Their names in the descriptor store.
    pub(crate) fn close_unused(&mut self) -> Vec<String> {
        let (stale, rest) =
            std::mem::take(&mut self.inherited).into_iter().partition(Inherited::is_stale);
        self.inherited = rest;
        let stale: Vec<Inherited> = stale;
        stale.into_iter().map(|i| i.name).filter(|name| !name.is_empty()).collect()
    }

    /// Keeps new connections out of the queues of these listeners, so that they can be emptied and
    /// closed without a loss. A client that tries meanwhile is refused once they are closed.
    pub(crate) fn deafen(&mut self, keys: &[ListenerKey]) {
        for key in keys {
            let Some(held) = self.held.get_mut(key) else { continue };
            match key.place() {
                Place::Tcp(_) => {
                    held.deaf = true;
                    bind::close_ears(&held.shards);
                }
                Place::Unix(_) | Place::Abstract(_) => {
                    if let Some((path, device, inode)) = held.file.take() {
                        bind::remove_file(&path, device, inode);
                    }
                }
            }
        }
        fault::point("supervisor.deafened");
    }

    /// Closes listeners. What the service manager made is kept, because it keeps it, too, and the address
    /// cannot be bound again: the next generation that wants it takes it from here.
    pub(crate) fn release(&mut self, keys: &[ListenerKey]) {
        for key in keys {
            let Some(held) = self.held.remove(key) else { continue };
            if let Some((path, device, inode)) = held.file {
                bind::remove_file(&path, device, inode);
            }
            if held.adopted {
                let sockets = held.shards.into_iter().map(|shard| shard.socket);
                let inherited = |socket| Inherited::again(socket, key);
                self.inherited.extend(sockets.map(inherited));
            }
        }
        fault::point("supervisor.released");
    }

    /// Closes all listeners.
    pub(crate) fn release_all(&mut self) {
        let keys: Vec<ListenerKey> = self.held.keys().cloned().collect();
        self.release(&keys);
    }
}

fn refused(
    verb: &'static str,
    spec: &ListenerSpec,
    source: io::Error,
    owner: String,
) -> FdStoreError {
    let (key, name) = (spec.key.clone(), spec.name.clone());
    FdStoreError::Refused { verb, key, name, source, owner }
}

#[cfg(test)]
mod tests;

//! Where a configuration listens, and with which sockets.

use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc};

use baton_contract::{
    listener_key::{ListenerKey, ListenerSpec, SocketOptions},
    message::{FailReason, Failed, ListenerShard, WorkerSettings},
};

use super::{super::threads::Shard, StartError};
use crate::config::{
    listener::{Listener, ListenerSocket},
    model::{Address, Bootstrap},
};

/// Longest name of a listener that the supervisor is told, bytes; as long as systemd's may be.
const TOLD_NAME_MAX: usize = 255;

/// Where the configuration listens.
#[derive(Debug)]
pub(in super::super) struct Places {
    /// Position of the listener in the configuration.
    listeners: HashMap<ListenerKey, usize>,
    admin: Option<ListenerKey>,
}

impl Places {
    pub(super) fn of(bootstrap: &Bootstrap) -> Result<Self, StartError> {
        let mut listeners = HashMap::new();
        for (index, listener) in bootstrap.listeners.iter().enumerate() {
            for address in &listener.addresses {
                listeners.entry(key(address)?).or_insert(index);
            }
        }
        let admin = bootstrap.admin.as_ref().map(|admin| key(&admin.address)).transpose()?;
        Ok(Self { listeners, admin })
    }

    /// Where the listeners of the configuration are, the admin interface's not among them.
    pub(in super::super) fn traffic(&self) -> impl Iterator<Item = &ListenerKey> {
        self.listeners.keys()
    }

    /// Whether an address belongs to something else than the listener at this position.
    pub(in super::super) fn is_other(&self, key: &ListenerKey, at: usize) -> bool {
        self.is_admin(key) || self.listeners.get(key).is_some_and(|its| *its != at)
    }

    /// Where a listener is.
    pub(in super::super) fn of_listener(&self, at: usize) -> impl Iterator<Item = &ListenerKey> {
        self.listeners.iter().filter(move |(_, its)| **its == at).map(|(key, _)| key)
    }

    /// Where a listener is from now on; what it had besides is not its own any more.
    pub(in super::super) fn set(&mut self, at: usize, keys: &[ListenerKey]) {
        self.listeners.retain(|_, its| *its != at);
        self.listeners.extend(keys.iter().map(|key| (key.clone(), at)));
    }

    /// The sockets of the admin interface, and the others.
    pub(super) fn part(&self, shards: Vec<Shard>) -> (Vec<Shard>, Vec<Shard>) {
        shards.into_iter().partition(|shard| self.is_admin(&shard.key))
    }

    pub(in super::super) fn is_admin(&self, key: &ListenerKey) -> bool {
        self.admin.as_ref() == Some(key)
    }

    /// The shard with what is known about its listener; `None` when it is not ours.
    pub(in super::super) fn shard(&self, shard: ListenerShard, socket: OwnedFd) -> Option<Shard> {
        let listener = match self.listeners.get(&shard.key) {
            Some(index) => *index,
            None if self.is_admin(&shard.key) => usize::MAX,
            None => return None,
        };
        Some(Shard { key: shard.key, number: shard.shard, listener, socket: Arc::new(socket) })
    }
}

fn key(address: &Address) -> Result<ListenerKey, StartError> {
    match address {
        Address::Ip(address) => Ok(ListenerKey::tcp(*address)),
        Address::Pipe { path, .. } => Ok(ListenerKey::unix(path)),
        Address::Name { host, port } => Err(StartError::Failed(Failed::new(
            FailReason::Config,
            &format!("a listener needs an IP address, not the name `{host}:{port}`"),
            [],
        ))),
    }
}

/// The sockets that a listener needs.
pub(in super::super) fn specs_of(
    listener: &Listener,
    min_shards: u32,
) -> Result<Vec<ListenerSpec>, StartError> {
    let end = listener.name.floor_char_boundary(TOLD_NAME_MAX);
    let name = listener.name.get(..end).unwrap_or_default();
    let spec = |address: &Address| {
        let (key, name) = (key(address)?, name.to_owned());
        let options = socket_options(&listener.socket, address);
        Ok(ListenerSpec { key, name, options, min_shards })
    };
    listener.addresses.iter().map(spec).collect()
}

pub(super) fn specs(
    bootstrap: &Bootstrap,
    places: &Places,
    settings: &WorkerSettings,
) -> Result<Vec<ListenerSpec>, StartError> {
    let mut specs = Vec::new();
    for (index, listener) in bootstrap.listeners.iter().enumerate() {
        let own = specs_of(listener, settings.concurrency)?;
        specs
            .extend(own.into_iter().filter(|spec| places.listeners.get(&spec.key) == Some(&index)));
    }
    if let (Some(admin), Some(key)) = (&bootstrap.admin, &places.admin) {
        let options = socket_options(&ListenerSocket::default(), &admin.address);
        let (key, name) = (key.clone(), "admin".to_owned());
        specs.push(ListenerSpec { key, name, options, min_shards: 1 });
    }
    Ok(specs)
}

fn socket_options(socket: &ListenerSocket, address: &Address) -> SocketOptions {
    SocketOptions {
        backlog: socket.backlog,
        transparent: socket.transparent,
        freebind: socket.freebind,
        ipv4_compat: socket.ipv4_compat,
        fast_open_queue: socket.fast_open_queue,
        mode: match address {
            Address::Pipe { mode, .. } => *mode,
            Address::Ip(_) | Address::Name { .. } => 0,
        },
    }
}

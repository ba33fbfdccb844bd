//! Sockets that came from somewhere else: from a worker that came back, from one that hangs, or
//! from the service manager's store. A socket is never bound while anybody has it.

use std::{
    collections::HashSet,
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::PathBuf,
};

use baton_contract::{listener_key::Place, message::HeldShard};
use socket2::Socket;

use super::{FdStore, Held, Inherited, MAX_SHARDS, Shard, bind};
use crate::sys;

/// Most listening sockets taken from one process.
const MAX_RESCUED: usize = 16_384;
/// Other sockets in a row after which no listening one is expected any more.
const MAX_OTHERS: usize = 4096;

impl FdStore {
    /// Takes the copy of a socket a worker has, unless it is held already.
    pub(crate) fn hold(&mut self, entry: &HeldShard, fd: OwnedFd) {
        let HeldShard { spec, shard, shards } = entry;
        let socket = Socket::from(fd);
        let inode = inode(&socket);
        let adopted = self.forget_inherited(entry);
        let held = self.held.entry(spec.key.clone()).or_insert_with(|| Held {
            options: spec.options.clone(),
            shards: Vec::new(),
            width: 1,
            // The supervisor before may have died while it removed the listener.
            deaf: true,
            adopted,
            file: if adopted { None } else { file_of(spec.key.place()) },
        });
        let width = usize::try_from(*shards).unwrap_or(1).clamp(1, MAX_SHARDS);
        held.width = held.width.max(width);
        let known = held.shards.iter().any(|held| self::inode(&held.socket) == inode);
        let shared = !matches!(spec.key.place(), Place::Tcp(_));
        if !known && (shared || usize::try_from(*shard) == Ok(held.shards.len())) {
            let listening = socket.is_listener().unwrap_or(true);
            held.shards.push(Shard { socket, listening });
        }
    }

    /// Drops what the service manager passed for a listener a worker has; whether it made it.
    fn forget_inherited(&mut self, entry: &HeldShard) -> bool {
        let mut made_it = false;
        self.inherited.retain(|inherited| {
            let known = inherited.key.as_ref() == Some(&entry.spec.key)
                || inherited.name == entry.spec.name;
            made_it |= known && !inherited.is_stale();
            !known
        });
        made_it
    }

    /// Keeps listening sockets for whoever asks for their address next; how many were not held.
    pub(crate) fn keep_for_later(&mut self, sockets: Vec<OwnedFd>) -> usize {
        let held = self.held.values().flat_map(|held| &held.shards).map(|shard| &shard.socket);
        let later = self.inherited.iter().map(|inherited| &inherited.socket);
        let mut known: HashSet<Option<u64>> = held.chain(later).map(inode).collect();
        let mut kept = 0_usize;
        for socket in sockets.into_iter().map(Socket::from) {
            let is_new = known.insert(inode(&socket));
            if let Some(key) = bind::key_of(&socket).filter(|_| is_new) {
                let name = String::new();
                self.inherited.push(Inherited { socket, name, key: Some(key) });
                kept = kept.saturating_add(1);
            }
        }
        kept
    }
}

/// What makes a socket the same one under several descriptors.
fn inode(socket: &Socket) -> Option<u64> {
    let stat = nix::sys::stat::fstat(socket.as_fd()).ok()?;
    Some(stat.st_ino)
}

/// The file of a Unix socket, which is ours because a worker of ours has the socket.
fn file_of(place: &Place) -> Option<(PathBuf, u64, u64)> {
    let Place::Unix(path) = place else { return None };
    let metadata = fs::symlink_metadata(path).ok()?;
    let is_socket = metadata.file_type().is_socket();
    is_socket.then(|| (path.clone(), metadata.dev(), metadata.ino()))
}

/// Copies the listening sockets of a process. They came before its connections, so not all of its
/// descriptors have to be looked at.
///
/// # Errors
/// When the process may not be looked into; what was copied before is lost.
pub(crate) fn copy_listening(pid: u32, process: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut numbers: Vec<i32> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let mut found = Vec::new();
    let mut others = 0_usize;
    for number in numbers {
        if others >= MAX_OTHERS || found.len() >= MAX_RESCUED {
            break;
        }
        match fs::read_link(format!("/proc/{pid}/fd/{number}")) {
            Ok(link) if link.to_string_lossy().starts_with("socket:") => {}
            Ok(_) | Err(_) => continue,
        }
        let socket = Socket::from(sys::pidfd_getfd(process, number)?);
        if socket.is_listener().unwrap_or(false) {
            found.push(socket.into());
            others = 0;
        } else {
            others = others.saturating_add(1);
        }
    }
    Ok(found)
}

//! Files of Unix sockets that somebody removed, and how they come back.

use baton_contract::listener_key::{ListenerKey, ListenerSpec, Place};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use super::{FdStore, FdStoreError, Held, Shard, bind};

/// What became of lost files.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// Listeners that have another socket now, with a file. It does not accept yet.
    pub(crate) keys: Vec<ListenerKey>,
    /// Why others have none: nobody can connect to them, as before.
    pub(crate) failed: Vec<FdStoreError>,
}

impl Held {
    /// Nobody can connect to this Unix socket: its file was removed, or is another one now.
    fn lost_its_file(&self) -> bool {
        let there = self
            .file
            .as_ref()
            .is_some_and(|(path, device, inode)| bind::is_file(path, *device, *inode));
        !there && !self.adopted
    }
}

impl FdStore {
    /// Binds Unix sockets anew whose file is gone. To be called before sockets are handed to a worker.
    pub(crate) fn restore_files(&mut self, specs: &[ListenerSpec]) -> Restored {
        let mut restored = Restored::default();
        for spec in specs.iter().filter(|spec| matches!(spec.key.place(), Place::Unix(_))) {
            if !self.held.get(&spec.key).is_some_and(Held::lost_its_file) {
                continue;
            }
            match self.first(spec) {
                Ok(made) => {
                    self.replace(&spec.key, made);
                    restored.keys.push(spec.key.clone());
                }
                Err(error) => restored.failed.push(error),
            }
        }
        restored
    }

    /// Puts a new socket in the place of those without a file. They stay where clients wait in them.
    fn replace(&mut self, key: &ListenerKey, made: Held) {
        let Some(held) = self.held.get_mut(key) else { return };
        held.shards.retain(|shard| shard.listening && somebody_waits(shard));
        held.shards.splice(0..0, made.shards);
        held.file = made.file;
        // The mode of the file is that of the new options.
        held.options = made.options;
        tracing::warn!(%key, "a socket file had been removed and is there again");
    }
}

fn somebody_waits(shard: &Shard) -> bool {
    let mut fds = [PollFd::new(shard.socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

//! The service manager: notifications, watchdog, inherited sockets. Without one all is a no-op.

use std::{
    collections::BTreeMap,
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use baton_contract::listener_key::ListenerKey;
use sd_notify::NotifyState;

use crate::{
    config_file,
    state::{action::Notice, event::Time},
    sys,
};

/// Sockets passed by the service manager, with their names. To be called once, at the start.
pub(crate) fn inherited_sockets() -> Vec<(OwnedFd, String)> {
    let named = match sd_notify::listen_fds_with_names() {
        Ok(named) => named,
        Err(error) => {
            tracing::warn!(%error, "cannot use the sockets of the service manager");
            return Vec::new();
        }
    };
    named
        .filter_map(|(number, name)| match sys::inherited(number) {
            Ok(fd) => Some((fd, name)),
            Err(error) => {
                tracing::warn!(number, name, %error, "an inherited socket is not open");
                None
            }
        })
        .collect()
}

/// Begins the names of our sockets in the descriptor store.
pub(crate) const STORED: &str = "baton-";
/// Most descriptors in one message to the store.
const MAX_FDS: usize = 200;

/// The connection to the service manager.
#[derive(Debug)]
pub(crate) struct Manager {
    /// There is one.
    present: bool,
    /// Listeners in its descriptor store, with their number of sockets.
    stored: BTreeMap<ListenerKey, usize>,
    /// Time between two pings, if it watches us.
    ping_every: Option<Duration>,
    next_ping: Time,
    status: String,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let ping_every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self {
            present: std::env::var_os("NOTIFY_SOCKET").is_some(),
            stored: BTreeMap::new(),
            ping_every,
            next_ping: Time::ZERO,
            status: String::new(),
        }
    }

    /// Puts sockets that accept into the descriptor store, and takes those out that are gone. The
    /// next start gets them back, so that no queue is lost even when no process is left.
    pub(crate) fn store(&mut self, listeners: &[(ListenerKey, Vec<BorrowedFd<'_>>)]) {
        if !self.present {
            return;
        }
        let gone: Vec<ListenerKey> = self
            .stored
            .keys()
            .filter(|key| listeners.iter().all(|(held, _)| held != *key))
            .cloned()
            .collect();
        for key in gone {
            self.stored.remove(&key);
            forget(&stored_name(&key));
        }
        for (key, sockets) in listeners {
            let known = self.stored.get(key).copied().unwrap_or(0);
            let name = stored_name(key);
            for chunk in sockets.get(known..).unwrap_or_default().chunks(MAX_FDS) {
                let state = [NotifyState::FdStore, NotifyState::FdName(&name)];
                if let Err(error) = sd_notify::notify_with_fds(&state, chunk) {
                    tracing::warn!(%key, %error, "a listener is not in the descriptor store");
                }
            }
            self.stored.insert(key.clone(), sockets.len());
        }
    }

    /// Sends the line if it is another one than before.
    pub(crate) fn status(&mut self, status: String) {
        if status != self.status {
            send(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// Shows the watchdog that the loop turns; the time of the next call.
    pub(crate) fn ping(&mut self, now: Time) -> Option<Time> {
        let every = self.ping_every?;
        if self.next_ping <= now {
            send(&[NotifyState::Watchdog]);
            self.next_ping = now.saturating_add(every);
        }
        Some(self.next_ping)
    }
}

/// Name of a listener in the descriptor store. Colons are not allowed there.
fn stored_name(key: &ListenerKey) -> String {
    let hash = config_file::identify(key.to_string().as_bytes()).0 >> 64;
    format!("{STORED}{hash:016x}")
}

/// Takes what has this name out of the descriptor store.
pub(crate) fn forget(name: &str) {
    send(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Sends a notice.
pub(crate) fn tell(notice: Notice) {
    match notice {
        Notice::Ready => send(&[NotifyState::Ready]),
        Notice::Reloading => match NotifyState::monotonic_usec_now() {
            Ok(time) => send(&[NotifyState::Reloading, time]),
            Err(_) => send(&[NotifyState::Reloading]),
        },
        Notice::Stopping => send(&[NotifyState::Stopping]),
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

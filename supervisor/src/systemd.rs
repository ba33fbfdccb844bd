//! The service manager: notifications, watchdog, inherited sockets. Without one all is a no-op.

use std::{os::fd::OwnedFd, time::Duration};

use sd_notify::NotifyState;

use crate::{
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

/// The connection to the service manager.
#[derive(Debug)]
pub(crate) struct Manager {
    /// Time between two pings, if it watches us.
    ping_every: Option<Duration>,
    next_ping: Time,
    status: String,
}

impl Manager {
    pub(crate) fn new() -> Self {
        let ping_every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { ping_every, next_ping: Time::ZERO, status: String::new() }
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

//! `/drain_listeners`: clients are told that their connections end, then the listeners are closed while
//! the worker serves what it has.
//!
//! ```text
//! asked ──at once, or after the drain time──→ DRAIN_LISTENERS ──→ RELEASE ──→ emptied and closed
//! ```
//! The supervisor closes its own copies then, so that clients are refused. One of an older version does
//! not know how; under it the worker stops polling. Without a supervisor nothing is closed: clients would
//! wait in queues that nobody empties.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use baton_contract::{
    listener_key::ListenerKey,
    message::{DRAIN_LISTENERS_FEATURE, DrainListeners, DrainStrategy, Welcome},
};

use super::{lifecycle::Phase, running::Running};
use crate::{admin::ListenersEnd, clock, drain::Scope, listener::acceptor::Patience};

/// What is to become of the listeners of a worker that serves.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// When all of them are closed.
    all: Option<Instant>,
    /// When the inbound ones are.
    inbound: Option<Instant>,
    /// What the supervisor was asked to take away.
    asked: Vec<ListenerKey>,
    /// Those that are closed, by their position in the configuration.
    closed: HashSet<usize>,
}

impl Closing {
    /// Listeners that were closed while others go on.
    pub(super) fn closed(&self) -> usize {
        self.closed.len()
    }

    /// The generation serves again: what was not closed yet is not closed.
    pub(super) fn cancel(&mut self) {
        (self.all, self.inbound) = (None, None);
        self.asked.clear();
    }

    /// Of two times the earlier one counts.
    fn plan(&mut self, scope: Scope, at: Instant) {
        let planned = match scope {
            Scope::All => &mut self.all,
            Scope::Inbound => &mut self.inbound,
        };
        *planned = Some(planned.map_or(at, |before| before.min(at)));
    }

    /// What is to be closed now.
    fn due(&mut self, now: Instant) -> Option<Scope> {
        let is_due = |at: &mut Instant| *at <= now;
        let all = self.all.take_if(is_due).map(|_| Scope::All);
        let inbound = self.inbound.take_if(is_due).map(|_| Scope::Inbound);
        all.or(inbound)
    }
}

/// The supervisor closes listeners when it is asked to.
pub(super) fn supervisor_closes(welcome: &Welcome) -> bool {
    welcome.features.iter().any(|name| name == DRAIN_LISTENERS_FEATURE)
}

impl Running {
    /// Begins what somebody asked for on the admin interface.
    pub(super) fn drain_listeners(&mut self, scope: Scope, end: ListenersEnd) {
        let settings = &self.it.welcome.settings;
        let drain_time = Duration::from_millis(settings.drain_time_ms);
        let now = clock::now();
        let (strategy, time) = match end {
            ListenersEnd::Now => (DrainStrategy::Immediate, Duration::ZERO),
            ListenersEnd::AfterDrain | ListenersEnd::Never => (settings.drain_strategy, drain_time),
        };
        self.it.drain.start_in(scope, strategy, time, now);
        match end {
            ListenersEnd::Now | ListenersEnd::AfterDrain => self.closing.plan(scope, now + time),
            ListenersEnd::Never => {}
        }
    }

    /// Closes listeners whose time has come.
    pub(super) async fn close_due_listeners(&mut self) {
        if self.life.is_orphan() || self.life.phase != Phase::Serving {
            return;
        }
        let Some(scope) = self.closing.due(clock::now()) else { return };
        let (keys, others) = self.held(scope);
        if supervisor_closes(&self.it.welcome) {
            self.ask_to_close(keys);
        } else if let Err(error) = self.it.threads.pause(others.as_slice().into()).await {
            tracing::error!(%error, "cannot stop listening");
        }
    }

    /// The listeners this worker has sockets of: those of the scope, and all others.
    fn held(&self, scope: Scope) -> (Vec<ListenerKey>, Vec<ListenerKey>) {
        // The admin interface has no place in the configuration's list.
        let listeners = &self.it.listeners;
        let traffic = self.it.sockets.iter().filter_map(|shard| {
            let listener = listeners.get(shard.listener)?;
            Some((shard.key.clone(), scope.has(Scope::of(listener.direction))))
        });
        let traffic: BTreeSet<(ListenerKey, bool)> = traffic.collect();
        let (wanted, others): (Vec<_>, Vec<_>) = traffic.into_iter().partition(|(_, in_it)| *in_it);
        let keys = |list: Vec<(ListenerKey, bool)>| list.into_iter().map(|(key, _)| key).collect();
        (keys(wanted), keys(others))
    }

    fn ask_to_close(&mut self, keys: Vec<ListenerKey>) {
        for message in DrainListeners::messages(keys.iter().cloned()) {
            self.try_send(|link| link.send(message));
        }
        self.closing.asked.extend(keys);
    }

    /// The supervisor that was asked is gone, and another one commands. It may have taken sockets back
    /// that are closed here since; then this generation is told to close them, and says that it has.
    pub(super) fn ask_again(&mut self) {
        if self.life.phase == Phase::Serving && supervisor_closes(&self.it.welcome) {
            let keys = std::mem::take(&mut self.closing.asked);
            self.ask_to_close(keys);
        }
    }

    /// RELEASE: no new connection gets into the queues of these listeners.
    pub(super) fn release_drained(&mut self, keys: Vec<ListenerKey>) {
        let theirs = self.it.sockets.iter().filter(|shard| keys.contains(&shard.key));
        let listeners: HashSet<usize> = theirs.map(|shard| shard.listener).collect();
        for listener in listeners {
            if self.closing.closed.insert(listener) {
                self.it.server_stats.listener_manager.listener_stopped.inc();
            }
        }
        tracing::info!(listeners = keys.len(), "listeners are drained and closed");
        self.release(keys, Patience::DRAINED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_of_two_times_counts_and_all_listeners_are_more_than_some() {
        let now = clock::now();
        let second = Duration::from_secs(1);
        let mut closing = Closing::default();
        closing.plan(Scope::Inbound, now + second * 2);
        closing.plan(Scope::Inbound, now + second);
        closing.plan(Scope::Inbound, now + second * 3);
        assert_eq!(closing.due(now), None);
        assert_eq!(closing.due(now + second), Some(Scope::Inbound));
        assert_eq!(closing.due(now + second * 9), None, "once");
        closing.plan(Scope::Inbound, now);
        closing.plan(Scope::All, now);
        assert_eq!(closing.due(now), Some(Scope::All));
        closing.plan(Scope::All, now);
        closing.cancel();
        assert_eq!(closing.due(now), None);
    }
}

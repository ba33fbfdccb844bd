//! The admin listener of the serving generation: its connections are accepted and served on the
//! main thread, and what they ask for is done here.

use std::{os::fd::OwnedFd, rc::Rc, sync::Arc, time::Duration};

use baton_contract::{message::DrainStrategy, shm::SegmentReader};
use nix::sys::signal::{Signal, kill};
use tokio::sync::mpsc;

use super::{running::Running, startup::Prepared};
use crate::{
    admin::{self, AdminAction, AdminContext, AdminOptions, Peer},
    clock,
    listener::{
        Accepted, Serve,
        acceptor::{Acceptor, Shared},
        limit::{Door, Gate, Limit, Permit},
    },
};

/// Admin connections at the same time. More than a few scrapers and people is a mistake somewhere,
/// and must not take descriptors from the traffic.
const CONNECTIONS_MAX: u64 = 100;

/// The admin listener, and what was asked for on it.
pub(super) struct Admin {
    acceptors: Vec<Acceptor>,
    actions: mpsc::UnboundedReceiver<AdminAction>,
    /// Keeps `actions` open when there is no listener.
    _sender: mpsc::UnboundedSender<AdminAction>,
}

impl Admin {
    /// An admin listener that does not accept yet.
    pub(super) fn new(it: &Prepared) -> Self {
        let (sender, actions) = mpsc::unbounded_channel();
        let acceptors = context(it, sender.clone()).map_or_else(Vec::new, |context| {
            let shared = Rc::new(Shared {
                serve: Rc::new(AdminService(Rc::new(context))),
                global: Door::alone(&Gate::global(Some(CONNECTIONS_MAX), None)),
                listener: Door::alone(&Gate::listener("admin", None)),
                ignores_global: false,
                keepalive: None,
            });
            let acceptor =
                |socket: &Arc<OwnedFd>| Acceptor::new(Arc::clone(socket), Rc::clone(&shared));
            it.admin_shards.iter().map(acceptor).collect()
        });
        Self { acceptors, actions, _sender: sender }
    }

    /// Begins to accept. Without descriptors left the traffic goes first.
    pub(super) fn start(&mut self) {
        for acceptor in &mut self.acceptors {
            if let Err(error) = acceptor.start() {
                tracing::error!(%error, "cannot poll the admin listener");
            }
        }
    }

    /// Stops accepting; a newer generation does.
    pub(super) fn stop(&mut self) {
        for acceptor in &mut self.acceptors {
            acceptor.stop();
        }
    }

    /// Closes the listener; nobody will serve it any more.
    pub(super) fn close(&mut self) {
        self.acceptors.clear();
    }

    /// The next thing somebody asked for.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn action(&mut self) -> AdminAction {
        match self.actions.recv().await {
            Some(action) => action,
            // Not possible while `_sender` lives.
            None => std::future::pending().await,
        }
    }
}

fn context(it: &Prepared, actions: mpsc::UnboundedSender<AdminAction>) -> Option<AdminContext> {
    it.bootstrap.admin.as_ref()?;
    let place = it.welcome.segment.as_ref().zip(it.segment.as_ref());
    let Some((place, segment)) = place else {
        tracing::warn!("no admin interface: there are no shared statistics");
        return None;
    };
    let reader = match SegmentReader::open(&place.os_id) {
        Ok(reader) => reader,
        Err(error) => {
            tracing::error!(%error, "no admin interface: cannot read the statistics");
            return None;
        }
    };
    let settings = &it.welcome.settings;
    Some(AdminContext {
        reader,
        segment: Arc::clone(segment),
        generation: it.welcome.generation,
        bootstrap: Arc::clone(&it.bootstrap),
        clusters: Arc::clone(&it.clusters),
        log: Arc::clone(&it.log),
        actions,
        options: AdminOptions {
            config_path: it.config_path.clone(),
            concurrency: settings.concurrency,
            drain_time: Duration::from_millis(settings.drain_time_ms),
            parent_shutdown_time: Duration::from_millis(settings.parent_shutdown_time_ms),
            drain_immediately: settings.drain_strategy == DrainStrategy::Immediate,
            allow_mutations: settings.admin_allow_mutations,
        },
        started: it.started,
        health_failed: false.into(),
    })
}

struct AdminService(Rc<AdminContext>);

impl Serve for AdminService {
    fn serve(self: Rc<Self>, connection: Accepted, permit: Permit) {
        let context = Rc::clone(&self.0);
        tokio::task::spawn_local(async move {
            match connection {
                Accepted::Tcp { stream, .. } => admin::serve(context, stream, Peer::Tcp).await,
                Accepted::Unix { stream } => admin::serve(context, stream, Peer::Unix).await,
            }
            drop(permit);
        });
    }

    fn refused(&self, _limit: Limit) {
        tracing::warn!(max = CONNECTIONS_MAX, "an admin connection was refused");
    }
}

impl Running {
    /// Does what somebody asked for on the admin interface.
    pub(super) async fn act(&mut self, action: AdminAction) {
        tracing::info!(?action, "asked for on the admin interface");
        match action {
            AdminAction::FailHealthChecks(failed) => self.it.drain.set_health_failed(failed),
            AdminAction::ReopenLogs => self.it.log_writer.reopen(),
            AdminAction::DrainListeners { graceful, skip_exit } => {
                self.drain_listeners(graceful, skip_exit).await;
            }
            AdminAction::Quit => self.quit(),
        }
    }

    async fn drain_listeners(&mut self, graceful: bool, skip_exit: bool) {
        let settings = &self.it.welcome.settings;
        let drain_time = Duration::from_millis(settings.drain_time_ms);
        let now = clock::now();
        if graceful {
            self.it.drain.start(settings.drain_strategy, drain_time, now);
            self.stop_listening_at = (!skip_exit).then(|| now + drain_time);
        } else {
            self.it.drain.start(DrainStrategy::Immediate, Duration::ZERO, now);
            self.stop_listening().await;
        }
    }

    /// Stops polling all listeners but the admin one, which is how this can be seen and undone.
    pub(super) async fn stop_listening(&mut self) {
        self.stop_listening_at = None;
        if let Err(error) = self.it.threads.pause(Arc::from([])).await {
            tracing::error!(%error, "cannot stop listening");
        }
    }

    /// Asks the supervisor to stop, as its user would: it ends the workers in order.
    fn quit(&mut self) {
        if self.life.is_orphan() {
            let graceful = Duration::from_millis(self.it.welcome.settings.drain_time_ms);
            self.it.drain.start(DrainStrategy::Immediate, Duration::ZERO, clock::now());
            self.life.stop(clock::now(), graceful);
        } else if let Err(error) = self.link.supervisor().and_then(|pid| kill(pid, Signal::SIGTERM))
        {
            tracing::error!(%error, "cannot ask the supervisor to stop");
        }
    }
}

//! The admin listener of the serving generation: its connections are accepted and served on the
//! main thread, and what they ask for is done here.

use std::{
    cell::{Cell, RefCell},
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use baton_contract::{message::DrainStrategy, shm::SegmentReader};
use nix::sys::{
    signal::{Signal, kill},
    socket::{SockaddrStorage, UnixAddr, getsockname},
};
use tokio::sync::mpsc;

use super::{
    drain_listeners::supervisor_closes,
    running::Running,
    startup::{Prepared, load_options},
};
use crate::{
    admin::{self, AdminAction, AdminContext, AdminOptions, Peer},
    clock,
    listener::{
        Accepted, Serve,
        acceptor::{Acceptor, Shared},
        limit::{Capacity, Door, Gate, Limit, Permit},
    },
    seldom::Seldom,
};

/// The admin listener, and what was asked for on it.
pub(super) struct Admin {
    acceptors: Vec<Acceptor>,
    /// Where its address is to be written, and the address.
    told: Option<(PathBuf, String)>,
    actions: mpsc::UnboundedReceiver<AdminAction>,
    /// Keeps `actions` open when there is no listener.
    _sender: mpsc::UnboundedSender<AdminAction>,
}

impl Admin {
    /// An admin listener that does not accept yet.
    pub(super) fn new(it: &Prepared) -> Self {
        let (sender, actions) = mpsc::unbounded_channel();
        let acceptors = context(it, sender.clone()).map_or_else(Vec::new, |context| {
            let max = it.room.admin_connections();
            let shared = Rc::new(Shared {
                serve: RefCell::new(Rc::new(AdminService { context: Rc::new(context), max })),
                global: Door::alone(&Gate::global(Some(max), Capacity::UNLIMITED)),
                listener: Door::alone(&Gate::listener("admin", None)),
                rules: Cell::default(),
            });
            let acceptor =
                |socket: &Arc<OwnedFd>| Acceptor::new(Arc::clone(socket), Rc::clone(&shared));
            it.admin_shards.iter().map(acceptor).collect()
        });
        Self { acceptors, told: address_to_tell(it), actions, _sender: sender }
    }

    /// Begins to accept. Without descriptors left the traffic goes first.
    pub(super) fn start(&mut self) {
        for acceptor in &mut self.acceptors {
            if let Err(error) = acceptor.start() {
                tracing::error!(%error, "cannot poll the admin listener");
            }
        }
        if let Some((path, address)) = self.told.take()
            // Left alone when it is right: somebody may read it just now.
            && fs::read(&path).ok().as_deref() != Some(address.as_bytes())
            && let Err(error) = fs::write(&path, address)
        {
            let path = path.display();
            tracing::error!(%path, %error, "cannot write the address of the admin interface");
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

fn address_to_tell(it: &Prepared) -> Option<(PathBuf, String)> {
    let path = &it.welcome.settings.admin_address_path;
    let socket = it.admin_shards.first().filter(|_| !path.is_empty())?;
    let address = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok()?;
    let text = match address.as_unix_addr().and_then(UnixAddr::path) {
        Some(file) => file.display().to_string(),
        None => address.to_string(),
    };
    Some((PathBuf::from(path), text))
}

fn context(it: &Prepared, actions: mpsc::UnboundedSender<AdminAction>) -> Option<AdminContext> {
    it.bootstrap.admin.as_ref()?;
    let Some(segment) = &it.counted else {
        tracing::error!("no admin interface: there are no statistics");
        return None;
    };
    let settings = &it.welcome.settings;
    Some(AdminContext {
        reader: SegmentReader::beside(segment),
        segment: Arc::clone(segment),
        generation: it.welcome.generation,
        bootstrap: Arc::clone(&it.bootstrap),
        clusters: Arc::clone(&it.clusters),
        shown: Arc::clone(&it.shown),
        log: Arc::clone(&it.log),
        actions,
        options: AdminOptions {
            config_path: it.config_path.clone(),
            concurrency: settings.concurrency,
            drain_time: Duration::from_millis(settings.drain_time_ms),
            parent_shutdown_time: Duration::from_millis(settings.parent_shutdown_time_ms),
            drain_strategy: settings.drain_strategy,
            allow_mutations: settings.admin_allow_mutations,
            supervisor_keeps_sockets: !supervisor_closes(&it.welcome),
        },
        started: it.started,
        started_at: clock::wall() - clock::now().duration_since(it.started),
        load_options: load_options(settings),
        health_failed: false.into(),
    })
}

struct AdminService {
    context: Rc<AdminContext>,
    /// Connections at the same time.
    max: u64,
}

impl Serve for AdminService {
    fn serve(self: Rc<Self>, connection: Accepted, permit: Permit) {
        let context = Rc::clone(&self.context);
        tokio::task::spawn_local(async move {
            match connection {
                Accepted::Tcp { stream, .. } => admin::serve(context, stream, Peer::Tcp).await,
                Accepted::Unix { stream } => admin::serve(context, stream, Peer::Unix).await,
            }
            drop(permit);
        });
    }

    fn refused(&self, _limit: Limit) {
        static REFUSED: Seldom = Seldom::new();
        if let Some(connections) = REFUSED.count() {
            tracing::warn!(max = self.max, connections, "admin connections are refused");
        }
    }
}

impl Running {
    /// Does what somebody asked for on the admin interface.
    pub(super) fn act(&mut self, action: AdminAction) {
        tracing::info!(action = action.as_str(), "asked for on the admin interface");
        match action {
            AdminAction::FailHealthChecks(failed) => self.it.drain.set_health_failed(failed),
            AdminAction::ReopenLogs => {
                self.it.log_writer.reopen();
                self.it.log.reopen();
            }
            AdminAction::DrainListeners { scope, end } => self.drain_listeners(scope, end),
            AdminAction::Quit => self.quit(),
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

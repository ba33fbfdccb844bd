//! What a worker thread does when the main thread tells it to: reports its books, gives connections
//! away, takes others over. Not here: how a connection is served (`active_listener`).

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use baton_contract::{peer::Stay, shm::EscrowId};

use super::{
    active_listener::ActiveListener,
    adopt::{Places, Worlds},
    books::Books,
    crew::{GiveAway, Import, Landing},
    threads::{MakeService, Service, Update},
};
use crate::{
    access_log::{LogError, LogWriter, ThreadLogs},
    clock,
    cluster::ClusterManager,
    config::{
        access_log::AccessLog,
        listener::{Listener, NetworkFilter},
        model::Bootstrap,
    },
    drain::DrainHandle,
    escrow::Desk,
    filter::network::hcm,
    listener::Serve,
    migrate::{ConfigSource, Term},
    outbox,
    stats::{ConnectionKind, EndReason, ThreadStats},
    thread::{Parts, Thread},
};

/// How the services of all threads are made.
///
/// # Errors
/// When an access log cannot be opened.
pub(super) fn maker(
    bootstrap: &Arc<Bootstrap>,
    clusters: &Arc<ClusterManager>,
    drain: &DrainHandle,
    log_writer: &Arc<LogWriter>,
    source: &Arc<ConfigSource>,
    escrow: &Desk,
) -> Result<Arc<MakeService>, LogError> {
    open_logs(bootstrap, log_writer)?;
    let (bootstrap, clusters, source) =
        (Arc::clone(bootstrap), Arc::clone(clusters), Arc::clone(source));
    let (drain, log_writer, escrow) = (drain.clone(), Arc::clone(log_writer), escrow.clone());
    Ok(Arc::new(move |index, slab, activity| {
        let thread = Thread::new(Parts {
            index: index as usize,
            bootstrap: Arc::clone(&bootstrap),
            stats: ThreadStats::new(slab),
            drain: drain.clone(),
            clusters: Arc::clone(&clusters),
            log_writer: Arc::clone(&log_writer),
            source: Some(Arc::clone(&source)),
            escrow: escrow.clone(),
            activity: Arc::clone(activity),
        });
        let deadlines = thread.deadlines.clone();
        tokio::task::spawn_local(async move { deadlines.run().await });
        tokio::task::spawn_local(outbox::run());
        Rc::new(ThreadService {
            places: RefCell::new(Places::new(thread.bootstrap.listeners.iter().enumerate())),
            configs: RefCell::new(thread.bootstrap.listeners.iter().cloned().enumerate().collect()),
            thread,
            cut: Rc::default(),
            listeners: RefCell::default(),
            gone: RefCell::default(),
            worlds: Worlds::default(),
        })
    }))
}

/// Opens all log files now, where a failure can still be reported before anything changed.
fn open_logs(bootstrap: &Bootstrap, writer: &Arc<LogWriter>) -> Result<(), LogError> {
    open_logs_of(&bootstrap.listeners, writer)
}

/// Opens the log files of listeners.
///
/// # Errors
/// When one cannot be opened.
pub(super) fn open_logs_of<'l>(
    listeners: impl IntoIterator<Item = &'l Arc<Listener>>,
    writer: &Arc<LogWriter>,
) -> Result<(), LogError> {
    let logs = ThreadLogs::new(writer);
    for listener in listeners {
        logs.logger(&listener.access_log)?;
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for filter in chains.flat_map(|chain| &chain.filters) {
            logs.logger(logs_of(filter))?;
        }
    }
    Ok(())
}

fn logs_of(filter: &NetworkFilter) -> &[AccessLog] {
    match filter {
        NetworkFilter::HttpConnectionManager(manager) => &manager.access_log,
        NetworkFilter::TcpProxy(proxy) => &proxy.access_log,
        NetworkFilter::Echo | NetworkFilter::DirectResponse(_) => &[],
    }
}

/// The service of one thread.
pub(super) struct ThreadService {
    pub(super) thread: Rc<Thread>,
    /// The books are closed; connections that are dropped now were written off already.
    pub(super) cut: Rc<Cell<bool>>,
    /// The listeners of the newest edition of the configuration, by position.
    configs: RefCell<HashMap<usize, Arc<Listener>>>,
    /// Those that run, made when they are needed first.
    listeners: RefCell<HashMap<usize, Rc<ActiveListener>>>,
    pub(super) places: RefCell<Places>,
    /// The terms of listeners that are gone, by position, as long as there are connections of them.
    gone: RefCell<HashMap<usize, Weak<Term>>>,
    pub(super) worlds: Worlds,
}

impl ThreadService {
    /// A listener of this configuration.
    pub(super) fn active(&self, index: usize) -> Option<Rc<ActiveListener>> {
        if let Some(listener) = self.listeners.borrow().get(&index) {
            return Some(Rc::clone(listener));
        }
        let config = Arc::clone(self.configs.borrow().get(&index)?);
        match ActiveListener::new(&self.thread, (index, &config), &self.cut) {
            Ok(listener) => {
                let listener = Rc::new(listener);
                self.listeners.borrow_mut().insert(index, Rc::clone(&listener));
                Some(listener)
            }
            Err(error) => {
                tracing::error!(listener = config.name, %error, "cannot run the listener");
                None
            }
        }
    }
}

impl ThreadService {
    /// Connections of a listener that is gone are to end within a time, unless it comes back.
    fn part_with(&self, at: usize, term: Option<Rc<Term>>, within: Duration) {
        let mut gone = self.gone.borrow_mut();
        let Some(term) = term else {
            if let Some(before) = gone.remove(&at).and_then(|before| before.upgrade()) {
                before.take_back();
            }
            return;
        };
        term.say_farewell(clock::now(), within);
        gone.insert(at, Rc::downgrade(&term));
        // Idle connections learn when they are to end.
        tokio::task::spawn_local(look_again(Rc::clone(&self.thread)));
    }
}

impl Service for ThreadService {
    fn listener(&self, index: usize) -> Option<Rc<dyn Serve>> {
        self.active(index).map(|listener| listener as Rc<dyn Serve>)
    }

    fn update(&self, update: &Update) {
        let mut running = self.listeners.borrow_mut();
        let mut configs = self.configs.borrow_mut();
        let slots = update
            .routes
            .iter()
            .filter_map(|(hcm, table)| Some((self.thread.slot_of(hcm)?, table)));
        let slots: Vec<_> = slots.collect();
        // What ends here ends with the edition before.
        for (at, changed) in &update.listeners {
            let before = running.remove(at).map(|before| before.end_term());
            self.part_with(*at, before.filter(|_| changed.is_none()), update.farewell);
        }
        for (slot, _) in &slots {
            slot.end_term();
        }
        self.thread.edition.renew(Arc::clone(&update.source));
        self.thread.update_clusters();
        if update.shows_upstream_local {
            self.thread.show_upstream_local();
        }
        for (at, listener) in &update.listeners {
            match listener {
                Some(changed) => configs.insert(*at, Arc::clone(&changed.config)),
                None => configs.remove(at),
            };
        }
        self.places.replace(Places::new(configs.iter().map(|(at, config)| (*at, config))));
        drop((running, configs));
        for (at, _) in update.listeners.iter().filter(|(_, listener)| listener.is_some()) {
            self.active(*at);
        }
        for (hcm, table) in &update.routes {
            if let Some(slot) = self.thread.slot_of(hcm) {
                slot.replace(table, &self.thread.edition);
            }
        }
    }

    fn tick(&self) {
        self.thread.tick();
        self.worlds.sweep();
    }

    fn books(&self) -> Books {
        let ledger = &self.thread.ledger;
        let (opened, ended) = ledger.totals();
        let (moved, stayed) = self.thread.mover.totals();
        Books {
            opened,
            ended,
            active_requests: self.thread.active_requests.get(),
            open: ConnectionKind::ALL.map(|kind| ledger.open(kind).value()),
            moved,
            stayed,
        }
    }

    fn cut(&self) {
        self.cut.set(true);
        for _ in 0..self.thread.ledger.open_now() {
            self.thread.ledger.closed(EndReason::CutByDeadline);
        }
    }

    fn give_away(&self, to: Option<GiveAway>) {
        let mover = &self.thread.mover;
        let Some(GiveAway { exports, closes_removed }) = to else { return mover.stop() };
        let runs = mover.is_active();
        mover.start(exports, closes_removed);
        if !runs {
            tokio::task::spawn_local(give_away(Rc::clone(&self.thread)));
        }
    }

    fn look_again(&self) {
        tokio::task::spawn_local(look_again(Rc::clone(&self.thread)));
    }

    fn import(&self, import: Import) -> Result<Landing, Stay> {
        self.adopt(import)
    }

    fn inherit(&self, id: EscrowId, import: Import) -> Option<Landing> {
        let desk = &self.thread.escrow;
        if !desk.is_given(id) {
            return None;
        }
        match self.adopt(import) {
            Ok(Landing { listener, start }) => {
                let desk = desk.clone();
                // In one step with counting it: who dies before its task runs had it in its books.
                let start = Box::new(move |permit| {
                    if desk.book(id) {
                        start(permit);
                    }
                });
                Some(Landing { listener, start })
            }
            Err(why) => {
                tracing::error!(why = why.as_str(), "a connection of a dead generation is lost");
                let hold = desk.book(id).then(|| desk.take(id));
                self.thread.ledger.opened();
                self.thread.ledger.closed(EndReason::Crash);
                // A hold that is dropped ends the escrow.
                drop(hold);
                None
            }
        }
    }
}

/// Between two groups of connections that are woken, so that traffic goes on.
const STEP: Duration = Duration::from_millis(1);

/// Wakes each connection of a thread once.
async fn look_again(thread: Rc<Thread>) {
    /// Connections that are woken together.
    const GROUP: usize = 64;
    let mut at = 0;
    loop {
        at = thread.deadlines.wake_some(at, GROUP);
        if at == 0 {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Wakes the connections of a thread, a few at a time, so that each finds out that it shall move;
/// traffic goes on in between. Those that cannot move at that moment are woken again.
async fn give_away(thread: Rc<Thread>) {
    /// Between two rounds over all of them.
    const ROUND: Duration = Duration::from_millis(25);
    let mut at = 0;
    while thread.mover.is_active() {
        hcm::pooled::give_away(&thread);
        at = thread.deadlines.wake_some(at, thread.mover.room());
        tokio::time::sleep(if at == 0 { ROUND } else { STEP }).await;
    }
}

//! What a worker thread does with accepted connections: counts them, finds the filter chain and
//! lets it serve.
//!
//! Here the books of a connection are kept: opened once, ended once, with a reason, whatever the
//! filters do.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::threads::{Books, MakeService, Service};
use crate::{
    access_log::{AccessLogger, LogError, LogWriter, ThreadLogs},
    clock,
    cluster::ClusterManager,
    config::{
        access_log::AccessLog,
        listener::{FilterChain, Listener, NetworkFilter},
        model::Bootstrap,
    },
    drain::DrainHandle,
    filter::{chain::Chain, network::NewConnection},
    http::stream_info::{ConnectionInfo, LogContext, StreamInfo},
    listener::{
        Accepted, Serve,
        filter_chain_match::{self, Addresses},
        limit::{Limit, Permit},
    },
    stats::{ConnectionKind, EndReason, ListenerStats, ThreadStats},
    thread::{Parts, Thread},
    transport::Stream,
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
) -> Result<Arc<MakeService>, LogError> {
    open_logs(bootstrap, log_writer)?;
    let (bootstrap, clusters) = (Arc::clone(bootstrap), Arc::clone(clusters));
    let (drain, log_writer) = (drain.clone(), Arc::clone(log_writer));
    Ok(Arc::new(move |index, slab| {
        let thread = Thread::new(Parts {
            index: index as usize,
            bootstrap: Arc::clone(&bootstrap),
            stats: ThreadStats::new(slab),
            drain: drain.clone(),
            clusters: Arc::clone(&clusters),
            log_writer: Arc::clone(&log_writer),
        });
        let deadlines = thread.deadlines.clone();
        tokio::task::spawn_local(async move { deadlines.run().await });
        Rc::new(ThreadService { thread, cut: Rc::default() })
    }))
}

/// Opens all log files now, where a failure can still be reported before anything changed.
fn open_logs(bootstrap: &Bootstrap, writer: &Arc<LogWriter>) -> Result<(), LogError> {
    let logs = ThreadLogs::new(writer);
    for listener in &bootstrap.listeners {
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
struct ThreadService {
    thread: Rc<Thread>,
    /// The books are closed; connections that are dropped now were written off already.
    cut: Rc<Cell<bool>>,
}

impl Service for ThreadService {
    fn listener(&self, index: usize) -> Option<Rc<dyn Serve>> {
        let config = self.thread.bootstrap.listeners.get(index)?;
        match ActiveListener::new(&self.thread, config, &self.cut) {
            Ok(listener) => Some(Rc::new(listener)),
            Err(error) => {
                tracing::error!(listener = config.name, %error, "cannot run the listener");
                None
            }
        }
    }

    fn tick(&self) {
        self.thread.tick();
    }

    fn books(&self) -> Books {
        let (opened, ended) = self.thread.ledger.totals();
        Books { opened, ended, active_requests: self.thread.active_requests.get() }
    }

    fn cut(&self) {
        self.cut.set(true);
        for _ in 0..self.thread.ledger.open_now() {
            self.thread.ledger.closed(EndReason::CutByDeadline);
        }
    }
}

/// One listener on one thread.
struct ActiveListener {
    thread: Rc<Thread>,
    config: Arc<Listener>,
    name: Arc<str>,
    /// The chains of the configuration, in its order, then the default one.
    chains: Vec<(Arc<FilterChain>, Chain)>,
    stats: ListenerStats,
    logger: AccessLogger,
    cut: Rc<Cell<bool>>,
}

impl ActiveListener {
    fn new(
        thread: &Rc<Thread>,
        config: &Arc<Listener>,
        cut: &Rc<Cell<bool>>,
    ) -> Result<Self, LogError> {
        let chains = config.filter_chains.iter().chain(&config.default_filter_chain);
        let chains = chains.map(|chain| Ok((Arc::clone(chain), Chain::new(thread, chain)?)));
        Ok(Self {
            chains: chains.collect::<Result<_, LogError>>()?,
            stats: ListenerStats::new(&thread.stats, &config.stat_prefix),
            logger: thread.access_logger(&config.access_log)?,
            name: config.name.as_str().into(),
            thread: Rc::clone(thread),
            config: Arc::clone(config),
            cut: Rc::clone(cut),
        })
    }

    fn chain(&self, addresses: Option<&Addresses>) -> Option<&(Arc<FilterChain>, Chain)> {
        let wanted = filter_chain_match::find(&self.config, addresses)?;
        self.chains.iter().find(|(config, _)| Arc::ptr_eq(config, wanted))
    }

    fn log(&self, connection: ConnectionInfo, started: Instant, wall: SystemTime) {
        let now = clock::now();
        let mut info = StreamInfo::new(Rc::new(connection), (wall, started), &Arc::from(""));
        info.ended = Some(now);
        self.logger.log(&LogContext {
            info: &info,
            request: None,
            response: None,
            trailers: None,
            now,
            node: &self.thread.bootstrap.node,
        });
    }
}

impl Serve for ActiveListener {
    fn serve(self: Rc<Self>, connection: Accepted, permit: Permit) {
        let (stream, peer) = match connection {
            Accepted::Tcp { stream, peer } => (Stream::from(stream), Some(peer)),
            Accepted::Unix { stream } => (Stream::from(stream), None),
        };
        let local = stream.local_addr();
        let addresses = addresses(local, peer);
        let found = self.chain(addresses.as_ref()).cloned();
        let kind = found.as_ref().map_or(ConnectionKind::Tcp, |(config, _)| kind(config));
        let mut open = Open::new(&self, kind, permit);
        let Some((_, chain)) = found else {
            self.stats.no_filter_chain_match.inc();
            open.end(EndReason::Upstream);
            return;
        };
        tokio::task::spawn_local(async move {
            let info = (!self.logger.is_empty()).then(|| {
                let info = ConnectionInfo {
                    id: self.thread.connection_id(),
                    peer,
                    local,
                    listener: Arc::clone(&self.name),
                    filter_chain: Arc::clone(&chain.name),
                };
                (info, clock::wall())
            });
            let serving = chain.serve(NewConnection {
                buffer_limit_bytes: self.config.buffer_limit_bytes,
                stream,
                peer,
                local,
                listener: Arc::clone(&self.name),
                filter_chain: Arc::clone(&chain.name),
            });
            open.end(serving.await);
            if let Some((info, wall)) = info {
                self.log(info, open.started, wall);
            }
        });
    }

    fn refused(&self, limit: Limit) {
        match limit {
            Limit::Global => self.stats.downstream_global_cx_overflow.inc(),
            Limit::Listener => self.stats.downstream_cx_overflow.inc(),
        }
    }
}

fn addresses(local: Option<SocketAddr>, peer: Option<SocketAddr>) -> Option<Addresses> {
    let peer = peer?;
    Some(Addresses { local: local?, peer, source: peer })
}

fn kind(chain: &FilterChain) -> ConnectionKind {
    match chain.filters.last() {
        Some(NetworkFilter::HttpConnectionManager(_)) => ConnectionKind::Http1,
        Some(
            NetworkFilter::TcpProxy(_) | NetworkFilter::Echo | NetworkFilter::DirectResponse(_),
        )
        | None => ConnectionKind::Tcp,
    }
}

/// An open connection in the books; closes itself there when its task is lost.
struct Open {
    listener: Rc<ActiveListener>,
    kind: ConnectionKind,
    started: Instant,
    ended: bool,
    _permit: Permit,
}

impl Open {
    fn new(listener: &Rc<ActiveListener>, kind: ConnectionKind, permit: Permit) -> Self {
        listener.stats.downstream_cx_total.inc();
        listener.stats.downstream_cx_active.inc();
        listener.thread.ledger.opened();
        listener.thread.ledger.open(kind).inc();
        let started = clock::now();
        Self { listener: Rc::clone(listener), kind, started, ended: false, _permit: permit }
    }

    fn end(&mut self, reason: EndReason) {
        if self.ended || self.listener.cut.get() {
            return;
        }
        self.ended = true;
        let Self { listener, kind, started, .. } = self;
        let millis =
            u64::try_from(clock::now().duration_since(*started).as_millis()).unwrap_or(u64::MAX);
        listener.stats.downstream_cx_length_ms.record(millis);
        listener.stats.downstream_cx_active.dec();
        listener.stats.downstream_cx_destroy.inc();
        listener.thread.ledger.open(*kind).dec();
        listener.thread.ledger.closed(reason);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Only a task that panicked gets here without an end.
        self.end(EndReason::Crash);
    }
}

//! One listener on one worker thread: counts accepted connections, finds the filter chain and lets it
//! serve.
//!
//! Here the books of a connection are kept: opened once, ended once, with a reason, whatever the
//! filters do.

use std::{cell::Cell, net::SocketAddr, path::Path, rc::Rc, sync::Arc};

use baton_contract::listener_key::ListenerKey;

use crate::{
    access_log::{AccessLogger, LogError},
    activity::Work,
    clock,
    config::{
        listener::{FilterChain, Listener, NetworkFilter},
        model::Address,
    },
    filter::{
        chain::Chain,
        network::{NewConnection, Serving},
    },
    http::stream_info::{ConnectionInfo, LogContext, StreamInfo},
    listener::{
        Accepted, Serve,
        filter_chain_match::{self, Addresses},
        limit::{Limit, Permit},
    },
    migrate::{Common, Ended, Opened, Origin, Term},
    seldom::Seldom,
    stats::{ConnectionKind, EndReason, ListenerStats},
    sys::fault,
    thread::Thread,
    transport::Stream,
};

/// One listener on one thread.
pub(super) struct ActiveListener {
    thread: Rc<Thread>,
    pub(super) config: Arc<Listener>,
    pub(super) name: Arc<str>,
    /// The chains of the configuration, in its order, then the default one.
    pub(super) chains: Vec<(Arc<FilterChain>, Chain)>,
    /// Where connections of each chain belong.
    origins: Vec<Rc<Origin>>,
    stats: ListenerStats,
    logger: AccessLogger,
    cut: Rc<Cell<bool>>,
    /// The editions of the configuration that have the listener as it is here.
    term: Rc<Term>,
}

impl ActiveListener {
    /// The newest edition of the configuration is the last one that has it so.
    pub(super) fn end_term(&self) -> Rc<Term> {
        self.term.end();
        Rc::clone(&self.term)
    }

    pub(super) fn new(
        thread: &Rc<Thread>,
        (index, config): (usize, &Arc<Listener>),
        cut: &Rc<Cell<bool>>,
    ) -> Result<Self, LogError> {
        let chains = config.filter_chains.iter().chain(&config.default_filter_chain);
        let chains = chains.map(|chain| Ok((Arc::clone(chain), Chain::new(thread, chain)?)));
        let chains = chains.collect::<Result<Vec<_>, LogError>>()?;
        let name: Arc<str> = config.name.as_str().into();
        let path: Option<Arc<Path>> = config.addresses.iter().find_map(|address| match address {
            Address::Pipe { path, .. } => Some(path.as_path().into()),
            Address::Ip(_) | Address::Name { .. } => None,
        });
        let term = Term::begin(&thread.edition);
        let origin = |chain| {
            Rc::new(Origin {
                term: Rc::clone(&term),
                listener: index,
                chain,
                name: Arc::clone(&name),
                keys: keys(config),
                path: path.clone(),
            })
        };
        Ok(Self {
            origins: (0..chains.len()).map(origin).collect(),
            chains,
            stats: ListenerStats::new(&thread.stats, &config.stat_prefix),
            logger: thread.access_logger(&config.access_log)?,
            name,
            thread: Rc::clone(thread),
            config: Arc::clone(config),
            cut: Rc::clone(cut),
            term,
        })
    }

    /// Position of the chain for these addresses.
    pub(super) fn chain_for(
        &self,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> Option<usize> {
        let wanted = filter_chain_match::find(&self.config, addresses(local, peer).as_ref())?;
        self.chains.iter().position(|(config, _)| Arc::ptr_eq(config, wanted))
    }

    /// Where connections of a chain belong.
    pub(super) fn origin(&self, chain: usize) -> Rc<Origin> {
        let origin = self.origins.get(chain).or_else(|| self.origins.first());
        // A listener without chains has no connections.
        origin.map_or_else(Origin::nowhere, Rc::clone)
    }

    /// Serves a connection to its end and keeps its books.
    fn spawn(self: Rc<Self>, mut open: Open, info: Option<Box<ConnectionInfo>>, serving: Serving) {
        tokio::task::spawn_local(async move {
            let Ended { reason, moved } = serving.await;
            open.end(reason);
            if moved.is_some() {
                fault::point("migrate.old.ended");
            }
            if let Some(info) = info.filter(|_| moved.is_none()) {
                self.log(*info, open.opened);
            }
            // Only now the books of this generation have it.
            drop(moved);
        });
    }

    /// The connection for the listener's own access log, if it has one.
    fn logged(
        &self,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        filter_chain: &Arc<str>,
    ) -> Option<Box<ConnectionInfo>> {
        (!self.logger.is_empty()).then(|| {
            Box::new(ConnectionInfo {
                id: self.thread.connection_id(),
                peer,
                local,
                path: self.origin(0).path.clone(),
                listener: Arc::clone(&self.name),
                filter_chain: Arc::clone(filter_chain),
            })
        })
    }

    /// Serves a connection that another generation gave away.
    pub(super) fn serve_arrived(
        self: Rc<Self>,
        kind: ConnectionKind,
        permit: Permit,
        common: &Common,
        filter_chain: &Arc<str>,
        serving: Serving,
    ) {
        let open = Open::arrived(&self, kind, permit, common.opened);
        let info = self.logged(common.peer, common.local, filter_chain);
        self.spawn(open, info, serving);
    }

    fn log(&self, connection: ConnectionInfo, opened: Opened) {
        let now = clock::now();
        let begin = (opened.wall, opened.at);
        let mut info = StreamInfo::new(Rc::new(connection), begin, &Arc::from(""));
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
        self.thread.activity.begin(Work::Accept);
        let (stream, peer, local) = match connection {
            Accepted::Tcp { stream, peer, local } => (Stream::from(stream), Some(peer), local),
            Accepted::Unix { stream } => (Stream::from(stream), None, None),
        };
        let found = self.chain_for(local, peer);
        let found =
            found.and_then(|at| self.chains.get(at).map(|(config, chain)| (at, config, chain)));
        let kind = found.map_or(ConnectionKind::Tcp, |(_, config, _)| kind(config));
        let mut open = Open::new(&self, kind, permit);
        let Some((at, _, chain)) = found else {
            self.stats.no_filter_chain_match.inc();
            open.end(EndReason::Upstream);
            return;
        };
        let info = self.logged(peer, local, &chain.name);
        let serving = chain.serve(NewConnection {
            buffer_limit_bytes: self.config.buffer_limit_bytes,
            stream,
            peer,
            local,
            listener: Arc::clone(&self.name),
            filter_chain: Arc::clone(&chain.name),
            origin: self.origin(at),
            opened: open.opened,
        });
        self.spawn(open, info, serving);
    }

    fn refused(&self, limit: Limit) {
        static REFUSED: Seldom = Seldom::new();
        match limit {
            Limit::Global => self.stats.downstream_global_cx_overflow.inc(),
            Limit::Listener => self.stats.downstream_cx_overflow.inc(),
            Limit::Descriptors => {
                self.stats.downstream_global_cx_overflow.inc();
                self.thread.descriptors.refused.inc();
            }
        }
        if let Some(connections) = REFUSED.count() {
            tracing::warn!(
                target: "baton_worker::listener",
                listener = &*self.name,
                connections,
                limit = limit.as_str(),
                "connections are refused, a limit is reached"
            );
        }
    }
}

/// The addresses of a listener as text, by which it is found in another configuration.
pub(super) fn keys(listener: &Listener) -> Vec<String> {
    let key = |address: &Address| match address {
        Address::Ip(address) => ListenerKey::tcp(*address).to_string(),
        Address::Pipe { path, .. } => ListenerKey::unix(path).to_string(),
        Address::Name { host, port } => format!("{host}:{port}"),
    };
    listener.addresses.iter().map(key).collect()
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
    opened: Opened,
    ended: bool,
    _permit: Permit,
}

impl Open {
    fn new(listener: &Rc<ActiveListener>, kind: ConnectionKind, permit: Permit) -> Self {
        listener.stats.downstream_cx_total.inc();
        Self::begin(listener, kind, permit, Opened::now())
    }

    /// One that another generation accepted.
    fn arrived(
        listener: &Rc<ActiveListener>,
        kind: ConnectionKind,
        permit: Permit,
        opened: Opened,
    ) -> Self {
        listener.thread.mover.imported().inc();
        Self::begin(listener, kind, permit, opened)
    }

    fn begin(
        listener: &Rc<ActiveListener>,
        kind: ConnectionKind,
        permit: Permit,
        opened: Opened,
    ) -> Self {
        listener.stats.downstream_cx_active.inc();
        listener.thread.ledger.opened();
        listener.thread.ledger.open(kind).inc();
        Self { listener: Rc::clone(listener), kind, opened, ended: false, _permit: permit }
    }

    fn end(&mut self, reason: EndReason) {
        if self.ended || self.listener.cut.get() {
            return;
        }
        self.ended = true;
        let Self { listener, kind, opened, .. } = self;
        if reason != EndReason::Migrated {
            let age = clock::now().saturating_duration_since(opened.at).as_millis();
            let millis = u64::try_from(age).unwrap_or(u64::MAX);
            listener.stats.downstream_cx_length_ms.record(millis);
            listener.stats.downstream_cx_destroy.inc();
        }
        listener.stats.downstream_cx_active.dec();
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

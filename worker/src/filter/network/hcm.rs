//! The HTTP connection manager: a downstream connection's codec, filters, router and upstream.
//!
//! One object serves a thread; each connection is a `connection::Connection`, a plain struct
//! that a single task polls. There is no other state of a connection than that struct, so that it
//! can be taken apart and sent to another process whenever it waits (`migrate`).

use std::{rc::Rc, sync::Arc};

use baton_contract::peer::Stay;

use crate::{
    access_log::{AccessLogger, LogError},
    config::hcm::HttpConnectionManager,
    drain::Scope,
    extension::http::{self, Making, router::RouterSettings},
    filter::{
        http::{chain::HttpChain, router::Router},
        network::{Arrived, NetworkFilter, NewConnection, Serving},
    },
    http::{h1::Limits, path::PathPolicy},
    route::EnvoyHeaders,
    stats::HttpStats,
    thread::Thread,
};

mod attempt;
mod bulk;
mod client;
mod connecting;
mod connection;
mod downstream;
mod exchange;
mod filtering;
mod finish;
mod hedge;
mod idle;
mod limits;
mod linger;
mod migrate;
mod mirror;
pub mod pooled;
mod posting;
mod record;
mod request;
mod response;
mod resume;
mod retained;
mod retry;
mod tunnel;
mod upstream;

/// A connection manager of one thread.
#[derive(Debug)]
pub struct Hcm {
    config: Arc<HttpConnectionManager>,
    thread: Rc<Thread>,
    stats: HttpStats,
    router: Router,
    chain: HttpChain,
    access_log: AccessLogger,
    limits: Limits,
    path_policy: PathPolicy,
    upstream_limits: Limits,
    no_name: Arc<str>,
    /// Which drains are about its connections.
    scope: Scope,
}

impl Hcm {
    /// Makes a configured connection manager run on a thread.
    ///
    /// # Errors
    /// When an access log cannot be opened.
    pub fn new(thread: &Rc<Thread>, config: &Arc<HttpConnectionManager>) -> Result<Self, LogError> {
        let suppress = RouterSettings::of(&config.filters).suppress_envoy_headers;
        let making =
            Making { drain: &thread.drain, stats: &thread.stats, prefix: &config.stat_prefix };
        Ok(Self {
            config: Arc::clone(config),
            thread: Rc::clone(thread),
            stats: HttpStats::new(&thread.stats, &config.stat_prefix),
            router: Router::new(
                thread.routes(config),
                if suppress { EnvoyHeaders::Suppress } else { EnvoyHeaders::Add },
                config.stream_idle_timeout,
            ),
            chain: http::chain(&config.filters, &making),
            access_log: thread.access_logger(&config.access_log)?,
            limits: Limits::of(config),
            path_policy: PathPolicy::of(config),
            upstream_limits: Limits::default(),
            no_name: "".into(),
            scope: Scope::of(config.direction),
        })
    }
}

impl NetworkFilter for Hcm {
    fn serve(self: Rc<Self>, connection: NewConnection) -> Serving {
        Box::pin(connection::Connection::new(self, connection).run())
    }

    fn import(self: Rc<Self>, arrived: Arrived<'_>) -> Result<Serving, Stay> {
        self.adopt(arrived)
    }

    fn as_hcm(self: Rc<Self>) -> Option<Rc<Hcm>> {
        Some(self)
    }
}

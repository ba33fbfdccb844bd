//! The HTTP connection manager: a downstream connection's codec, filters, router and upstream.
//!
//! One object serves a thread; each connection is a `connection::Connection`, a plain struct
//! that a single task polls. There is no other state of a connection than that struct, so that it
//! can be taken apart and sent to another process whenever it waits (`migrate`).

use std::{rc::Rc, sync::Arc};

use baton_contract::peer::Stay;

use crate::{
    access_log::{AccessLogger, LogError},
    config::hcm::{HttpConnectionManager, HttpFilter},
    filter::{
        http::{HttpChain, router::Router},
        network::{Arrived, NetworkFilter, NewConnection, Serving},
    },
    http::{h1::Limits, path::PathPolicy},
    route::{EnvoyHeaders, RouteTable},
    stats::HttpStats,
    thread::Thread,
};

mod bulk;
mod connection;
mod exchange;
mod finish;
mod idle;
mod limits;
mod migrate;
pub mod pooled;
mod posting;
mod record;
mod request;
mod response;
mod resume;
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
}

impl Hcm {
    /// Makes a configured connection manager run on a thread.
    ///
    /// # Errors
    /// When an access log cannot be opened.
    pub fn new(thread: &Rc<Thread>, config: &Arc<HttpConnectionManager>) -> Result<Self, LogError> {
        let suppress = config.filters.iter().any(|filter| match filter {
            HttpFilter::Router { suppress_envoy_headers } => *suppress_envoy_headers,
            HttpFilter::HealthCheck { .. } => false,
        });
        Ok(Self {
            config: Arc::clone(config),
            thread: Rc::clone(thread),
            stats: HttpStats::new(&thread.stats, &config.stat_prefix),
            router: Router::new(
                RouteTable::new(&config.routes),
                if suppress { EnvoyHeaders::Suppress } else { EnvoyHeaders::Add },
                config.stream_idle_timeout,
            ),
            chain: HttpChain::new(&config.filters, &thread.drain),
            access_log: thread.access_logger(&config.access_log)?,
            limits: Limits::of(config),
            path_policy: PathPolicy::of(config),
            upstream_limits: Limits::default(),
            no_name: "".into(),
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

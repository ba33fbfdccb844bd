//! A filter chain of one thread: made once from the configuration, then serving connections.

use std::{rc::Rc, sync::Arc};

use crate::{
    access_log::LogError,
    config::listener::{FilterChain, NetworkFilter as Config},
    filter::network::{
        NetworkFilter, NewConnection, Serving,
        hcm::Hcm,
        simple::{DirectResponse, Echo},
        tcp_proxy::TcpProxyFilter,
    },
    thread::Thread,
};

/// A filter chain that runs.
#[derive(Clone, Debug)]
pub struct Chain {
    /// `name` of the filter chain.
    pub name: Arc<str>,
    terminal: Rc<dyn NetworkFilter>,
}

impl Chain {
    /// Makes the filters of a chain run on a thread.
    ///
    /// # Errors
    /// When an access log cannot be opened.
    pub fn new(thread: &Rc<Thread>, chain: &FilterChain) -> Result<Self, LogError> {
        let terminal: Rc<dyn NetworkFilter> = match chain.filters.last() {
            Some(Config::HttpConnectionManager(config)) => Rc::new(Hcm::new(thread, config)?),
            Some(Config::TcpProxy(config)) => Rc::new(TcpProxyFilter::new(thread, config)?),
            Some(Config::Echo) => Rc::new(Echo),
            Some(Config::DirectResponse(body)) => Rc::new(DirectResponse(Arc::clone(body))),
            // As in Envoy: a chain without filters closes its connections.
            None => Rc::new(DirectResponse(Arc::new([]))),
        };
        Ok(Self { name: chain.name.as_str().into(), terminal })
    }

    /// The terminal filter.
    pub fn terminal(&self) -> &Rc<dyn NetworkFilter> {
        &self.terminal
    }

    /// The life of one connection.
    pub fn serve(&self, connection: NewConnection) -> Serving {
        Rc::clone(&self.terminal).serve(connection)
    }
}

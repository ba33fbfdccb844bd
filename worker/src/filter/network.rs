//! Network filters: the trait, and the ones there are.

use std::{
    collections::VecDeque, fmt::Debug, future::Future, net::SocketAddr, os::fd::OwnedFd, pin::Pin,
    rc::Rc, sync::Arc,
};

use baton_contract::{peer::Stay, record::Reader};

use crate::{
    migrate::{Common, Ended, Opened, Origin},
    upstream::Stream,
};

pub mod hcm;
mod life;
pub mod simple;
pub mod tcp_proxy;

/// A connection that was just accepted, on its way through the filter chain.
#[derive(Debug)]
pub struct NewConnection {
    /// The socket.
    pub stream: Stream,
    /// The socket's peer; `None` on Unix sockets.
    pub peer: Option<SocketAddr>,
    /// The socket's own address; `None` on Unix sockets.
    pub local: Option<SocketAddr>,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Name of the filter chain.
    pub filter_chain: Arc<str>,
    /// The listener's `per_connection_buffer_limit_bytes`, bytes.
    pub buffer_limit_bytes: usize,
    /// Where it belongs in the configuration.
    pub origin: Rc<Origin>,
    /// When it was accepted.
    pub opened: Opened,
}

/// A connection that came from another generation, on its way into the filter that will serve it.
#[derive(Debug)]
pub struct Arrived<'r> {
    /// Its state; the common fields were read.
    pub record: Reader<'r>,
    /// Its descriptors, in the order the filter that wrote the record gave them.
    pub fds: VecDeque<OwnedFd>,
    /// What every record has.
    pub common: Common,
    /// Name of the listener, in the configuration that governs it.
    pub listener: Arc<str>,
    /// Name of the filter chain.
    pub filter_chain: Arc<str>,
    /// The listener's `per_connection_buffer_limit_bytes`, bytes.
    pub buffer_limit_bytes: usize,
    /// Where it belongs in the configuration that governs it.
    pub origin: Rc<Origin>,
    /// What serves it after what is in progress, when that is another configuration's matter;
    /// `None` when the newest configuration has no place for it.
    pub successor: Option<Box<Successor>>,
    /// It runs on the newest configuration already.
    pub at_home: bool,
}

/// Where a connection goes on once what its old configuration governs is over.
#[derive(Clone, Debug)]
pub struct Successor {
    /// The terminal filter.
    pub filter: Rc<dyn NetworkFilter>,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Name of the filter chain.
    pub filter_chain: Arc<str>,
    /// The listener's `per_connection_buffer_limit_bytes`, bytes.
    pub buffer_limit_bytes: usize,
    /// Where it then belongs.
    pub origin: Rc<Origin>,
}

/// The future of a connection: it ends when the connection does.
pub type Serving = Pin<Box<dyn Future<Output = Ended>>>;

/// A terminal network filter. One object serves a thread.
pub trait NetworkFilter: Debug {
    /// Takes the connection over.
    fn serve(self: Rc<Self>, connection: NewConnection) -> Serving;

    /// Takes over a connection from another generation. Nothing may be read, written or counted
    /// before the future is polled; a future that is dropped before has no effect.
    ///
    /// # Errors
    /// Why the connection has to stay where it is.
    fn import(self: Rc<Self>, _arrived: Arrived<'_>) -> Result<Serving, Stay> {
        Err(Stay::Version)
    }

    /// The connection manager, if it is one.
    fn as_hcm(self: Rc<Self>) -> Option<Rc<hcm::Hcm>> {
        None
    }
}

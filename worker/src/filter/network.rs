//! Network filters: the trait, and the ones there are.

use std::{fmt::Debug, future::Future, net::SocketAddr, pin::Pin, rc::Rc, sync::Arc};

use crate::{stats::EndReason, upstream::Stream};

pub mod hcm;
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
}

/// The future of a connection: it ends when the connection does.
pub type Serving = Pin<Box<dyn Future<Output = EndReason>>>;

/// A terminal network filter. One object serves a thread.
pub trait NetworkFilter: Debug {
    /// Takes the connection over.
    fn serve(self: Rc<Self>, connection: NewConnection) -> Serving;
}

//! Listeners: accepting connections and choosing the filter chain for each.
//!
//! The sockets belong to the supervisor, which never closes them; a worker only polls copies. What
//! is done with an accepted connection is up to whoever implements [`Serve`].

pub mod acceptor;
pub mod filter_chain_match;
pub mod limit;
pub mod table;

use std::{net::SocketAddr, rc::Rc};

use tokio::net::{TcpStream, UnixStream};

/// An accepted connection.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP.
    Tcp {
        /// The connection; it never blocks and is closed on exec.
        stream: TcpStream,
        /// The client.
        peer: SocketAddr,
        /// Our own address; `None` when the connection is gone already.
        local: Option<SocketAddr>,
    },
    /// Over a Unix socket.
    Unix {
        /// The connection; it never blocks and is closed on exec.
        stream: UnixStream,
    },
}

/// What is done with accepted connections of one listener on one thread.
pub trait Serve {
    /// Takes the connection over. The permit is dropped when the connection has ended.
    fn serve(self: Rc<Self>, connection: Accepted, permit: limit::Permit);

    /// A connection was closed at once because a limit was reached.
    fn refused(&self, limit: limit::Limit);
}

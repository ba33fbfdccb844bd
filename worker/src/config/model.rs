//! The configuration a generation runs on, after Envoy's YAML was decoded and validated.
//!
//! Plain, immutable data: no positions, no strings that still have to be parsed, no Envoy spelling
//! variants. `config::load` makes it; every other part of the worker only reads it.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{
    access_log::AccessLog, cluster::Cluster, listener::Listener, load::Dump, names::ClusterNames,
    subscription::Dynamic,
};
pub use super::{node::Node, target::ClusterIndex};

/// Everything one configuration file says.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Envoy's `node`.
    pub node: Node,
    /// Envoy's `admin`, if the configuration has one.
    pub admin: Option<Admin>,
    /// Static listeners, in the order of the file.
    pub listeners: Vec<Arc<Listener>>,
    /// Runtime value `overload.global_downstream_max_connections`: downstream connections over all
    /// listeners; `None` = no limit.
    pub max_connections: Option<u64>,
    /// Runtime values `envoy.resource_limits.listener.NAME.connection_limit`, by the name of the
    /// listener: downstream connections.
    pub listener_limits: HashMap<String, u64>,
    /// Static clusters, in the order of the file: the number of a name is the position in this list.
    pub clusters: Vec<Arc<Cluster>>,
    /// Numbers of the names of clusters; those of static clusters come first.
    pub cluster_names: Arc<ClusterNames>,
    /// `dynamic_resources`: where more clusters and listeners come from.
    pub dynamic: Dynamic,
    /// A log or a header shows our own address towards endpoints, so that it has to be asked for.
    pub shows_upstream_local: bool,
    /// What `/config_dump` shows.
    pub dump: Dump,
}

/// Envoy's `config.bootstrap.v3.Admin`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where the admin interface listens.
    pub address: Address,
    /// Access logs of the admin interface.
    pub access_log: Vec<AccessLog>,
}

/// A place to listen on or to connect to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A name to resolve and a port.
    Name {
        /// DNS name.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix domain socket.
    Pipe {
        /// Path in the file system; `@name` is an abstract socket.
        path: PathBuf,
        /// File mode for listeners, 0 = leave as the umask makes it.
        mode: u32,
    },
}

/// Envoy's `config.core.v3.TcpKeepalive`; a missing value leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TcpKeepalive {
    /// `keepalive_probes`.
    pub probes: Option<u32>,
    /// `keepalive_time`.
    pub time: Option<Duration>,
    /// `keepalive_interval`.
    pub interval: Option<Duration>,
}

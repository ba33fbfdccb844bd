//! Kinds of resources, and what they become.

use std::sync::Arc;

use super::{
    cluster::{Assignment, Cluster},
    listener::Listener,
    route::RouteConfiguration,
};

/// The kinds of resources, in the order in which they take effect.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`: the endpoints of a cluster.
    ClusterLoadAssignment,
    /// `envoy.config.listener.v3.Listener`.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`.
    RouteConfiguration,
}

impl Kind {
    /// All kinds, in the order in which they take effect.
    pub const ALL: [Self; 4] =
        [Self::Cluster, Self::ClusterLoadAssignment, Self::Listener, Self::RouteConfiguration];

    /// The full name of its message, which a type URL ends with.
    pub fn message(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The field that names a resource.
    pub(crate) fn name_field(self) -> &'static str {
        match self {
            Self::Cluster | Self::Listener | Self::RouteConfiguration => "name",
            Self::ClusterLoadAssignment => "cluster_name",
        }
    }

    /// The word for messages: `cluster`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::ClusterLoadAssignment => "list of endpoints",
            Self::Listener => "listener",
            Self::RouteConfiguration => "route table",
        }
    }
}

/// The content of a resource.
#[derive(Clone, Debug)]
pub enum Resource {
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// The endpoints of clusters.
    Endpoints(Arc<Assignment>),
    /// A listener.
    Listener(Arc<Listener>),
    /// A route table. One that needs to know its connection manager says nothing about filters here:
    /// [`routes_for`](super::resource::routes_for) makes what is used.
    Routes(Arc<RouteConfiguration>),
}

//! Clusters: which endpoints a configured cluster has at this moment, and which of them takes the
//! next request.
//!
//! One [`ClusterManager`] is shared by all threads. The endpoints of a cluster are an immutable
//! [`endpoint::EndpointSet`] behind an atomic pointer: data threads read it without a lock, only
//! the main thread's DNS refresh replaces it. Choosing is per-thread state ([`balance::Picker`]).
//!
//! Not here: connections (`upstream`), health (a later layer filters the set).

pub mod balance;
mod discovery;
pub mod endpoint;
pub mod manager;
pub mod report;
pub mod resolver;

pub use discovery::Wait;
pub use endpoint::{Endpoint, EndpointAddress, EndpointSet};
pub use manager::{Candidate, Change, ClusterManager, ClusterState, ClusterTable};

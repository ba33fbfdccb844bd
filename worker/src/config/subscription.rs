//! Resources that do not stand in the configuration itself: where they come from.
//!
//! The model of `envoy.config.core.v3.ConfigSource`. Files are the only source so far; what is in them
//! is read elsewhere.

use std::{path::PathBuf, time::Duration};

/// A file that resources come from (`path_config_source`, or the deprecated `path`).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileSource {
    /// `path`. It always has a directory, if only `.`; the file need not be there yet.
    pub path: PathBuf,
    /// `watched_directory`: changes are looked for there instead of in the directory of the file.
    pub watched_directory: Option<PathBuf>,
    /// `initial_fetch_timeout`: how long a start waits for what should come from it. Default 15 s;
    /// `None` = for ever, which is written as 0.
    pub initial_fetch_timeout: Option<Duration>,
}

/// Envoy's `dynamic_resources`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dynamic {
    /// `cds_config`: more clusters.
    pub clusters: Option<FileSource>,
    /// `lds_config`: more listeners.
    pub listeners: Option<FileSource>,
}

/// Envoy's `EdsClusterConfig`: where the endpoints of a cluster come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EdsSource {
    /// `eds_config`.
    pub source: FileSource,
    /// `service_name`, or the name of the cluster: the name of the endpoints' resource.
    pub service_name: String,
}

/// Envoy's `Rds`: where the routes of a connection manager come from.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RdsSource {
    /// `route_config_name`: the name of the routes' resource.
    pub name: String,
    /// `config_source`.
    pub source: FileSource,
}

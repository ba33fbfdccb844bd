//! The configuration of [`super::envoy_config`] with everything in files that change while they are used:
//! clusters, their endpoints, listeners and their routes.
//!
//! Each has two versions that no client can tell apart, and that differ in as much as they can: limits and
//! times, the address at which the same servers are reached, a listener and a cluster that nobody uses.

use super::envoy_config::EnvoyConfig;
use crate::files::{ResourceFile, Way};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

const BOOTSTRAP: &str = include_str!("dynamic/bootstrap.yaml");
const CLUSTERS: &str = include_str!("dynamic/clusters.yaml");
const MORE_CLUSTERS: &str = include_str!("dynamic/more_clusters.yaml");
const ENDPOINTS: &str = include_str!("dynamic/endpoints.yaml");
const LISTENERS: &str = include_str!("dynamic/listeners.yaml");
const MORE_LISTENERS: &str = include_str!("dynamic/more_listeners.yaml");
const ROUTES: &str = include_str!("dynamic/routes.yaml");

/// A file of the configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// All clusters.
    Clusters,
    /// The endpoints of the cluster of the HTTP listener.
    HttpEndpoints,
    /// The endpoints of the cluster of the TCP listener.
    TcpEndpoints,
    /// All listeners.
    Listeners,
    /// The routes of the HTTP listener.
    Routes,
}

impl Part {
    /// All of them, each after those that it needs.
    pub const ALL: [Self; 5] =
        [Self::Clusters, Self::HttpEndpoints, Self::TcpEndpoints, Self::Routes, Self::Listeners];

    const fn name(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::HttpEndpoints => "http_endpoints",
            Self::TcpEndpoints => "tcp_endpoints",
            Self::Listeners => "listeners",
            Self::Routes => "routes",
        }
    }
}

/// One of the two versions of a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// The one to begin with.
    First,
    /// The one to change to.
    Second,
}

impl Version {
    /// The version after `changes` changes.
    pub fn after(changes: u64) -> Self {
        if changes.is_multiple_of(2) { Self::First } else { Self::Second }
    }

    /// Its `version_info`, which `GET /version` answers, too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// The files and what is in them.
#[derive(Debug)]
pub struct DynamicConfig {
    config: EnvoyConfig,
    sometimes: SocketAddr,
    files: [ResourceFile; Part::ALL.len()],
}

impl DynamicConfig {
    /// Makes the directories of the files below `directory`, and the first version of each file. The second
    /// version of the listeners has one more, at the address `sometimes`.
    ///
    /// # Errors
    ///
    /// When a directory or a file can not be made.
    pub fn new(config: EnvoyConfig, sometimes: SocketAddr, directory: &Path) -> io::Result<Self> {
        let file = |part: Part| ResourceFile::new(directory.join(part.name()));
        let [clusters, http_endpoints, tcp_endpoints, routes, listeners] = Part::ALL;
        let files = [
            file(clusters)?,
            file(http_endpoints)?,
            file(tcp_endpoints)?,
            file(routes)?,
            file(listeners)?,
        ];
        let made = Self { config, sometimes, files };
        for part in Part::ALL {
            made.put(part, Version::First, Way::Rename)?;
        }
        Ok(made)
    }

    /// The file of a part.
    pub fn file(&self, part: Part) -> &ResourceFile {
        let [clusters, http_endpoints, tcp_endpoints, routes, listeners] = &self.files;
        match part {
            Part::Clusters => clusters,
            Part::HttpEndpoints => http_endpoints,
            Part::TcpEndpoints => tcp_endpoints,
            Part::Listeners => listeners,
            Part::Routes => routes,
        }
    }

    /// What the program is started with.
    pub fn bootstrap(&self) -> String {
        self.fill(BOOTSTRAP)
    }

    /// A version of a part.
    pub fn text(&self, part: Part, version: Version) -> String {
        let first = version == Version::First;
        let host = if first { "127.0.0.1" } else { "127.0.0.2" };
        let endpoints = |cluster: &str, servers: SocketAddr| {
            let text = ENDPOINTS.replace("@cluster@", cluster).replace("@host@", host);
            text.replace("@port@", &servers.port().to_string())
        };
        let more = |text: &str, more: &str| format!("{text}{}", if first { "" } else { more });
        let text = match part {
            Part::Clusters => more(CLUSTERS, MORE_CLUSTERS)
                .replace("@connect_timeout@", if first { "5s" } else { "6s" }),
            Part::HttpEndpoints => endpoints("up", self.config.upstream.http),
            Part::TcpEndpoints => endpoints("tcp_up", self.config.upstream.tcp),
            Part::Listeners => more(LISTENERS, MORE_LISTENERS)
                .replace("@kilobytes@", if first { "60" } else { "61" })
                .replace("@attempts@", if first { "1" } else { "2" }),
            Part::Routes => ROUTES.to_owned(),
        };
        self.fill(&text).replace("@version@", version.name())
    }

    /// Changes a file.
    ///
    /// # Errors
    ///
    /// When it can not be written.
    pub fn put(&self, part: Part, version: Version, way: Way) -> io::Result<()> {
        self.file(part).put(&self.text(part, version), way)
    }

    /// Ports and sources.
    fn fill(&self, text: &str) -> String {
        let port = |address: SocketAddr| address.port().to_string();
        let source = |part| self.file(part).source();
        text.replace("@admin@", &port(self.config.admin))
            .replace("@http@", &port(self.config.http))
            .replace("@tcp@", &port(self.config.tcp))
            .replace("@sometimes@", &port(self.sometimes))
            .replace("@http_upstream@", &port(self.config.upstream.http))
            .replace("@clusters@", &source(Part::Clusters))
            .replace("@listeners@", &source(Part::Listeners))
            .replace("@routes@", &source(Part::Routes))
            .replace("@http_endpoints@", &source(Part::HttpEndpoints))
            .replace("@tcp_endpoints@", &source(Part::TcpEndpoints))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_each_part_are_whole_and_differ() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let upstream = crate::Upstreams { http: address(4), tcp: address(5) };
        let (admin, http, tcp) = (address(1), address(2), address(3));
        let config = EnvoyConfig { admin, http, tcp, upstream, extra_route: false };
        let directory = tempfile::tempdir().expect("a directory");
        let dynamic = DynamicConfig::new(config, address(6), directory.path()).expect("files");
        assert!(!dynamic.bootstrap().contains(": @"), "{}", dynamic.bootstrap());
        for part in Part::ALL {
            let [first, second] = [Version::First, Version::Second].map(|v| dynamic.text(part, v));
            assert_ne!(first, second);
            for text in [&first, &second] {
                assert!(!text.contains(": @") && text.contains("version_info: "), "{text}");
            }
            let there = std::fs::read_to_string(dynamic.file(part).path()).expect("a file");
            assert_eq!(there, first);
        }
    }
}

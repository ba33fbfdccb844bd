//! What is derived from a route configuration to find the virtual host and the route of a request
//! without looking at every one. Made once; all threads share it.

use std::sync::OnceLock;

use super::{RouteConfiguration, domains::Domains, index::PathIndex};

/// The indexes of a route configuration, made when they are used first. They are those of what the
/// configuration was at that moment.
#[derive(Clone, Debug, Default)]
pub struct Lookup(OnceLock<Indexes>);

#[derive(Clone, Debug)]
struct Indexes {
    domains: Domains,
    /// One for each virtual host, in the same order.
    routes: Vec<PathIndex>,
}

impl RouteConfiguration {
    /// Makes the indexes now, so that no request waits for them.
    pub fn make_lookup(&self) {
        self.indexes();
    }

    /// Position of the virtual host an authority belongs to.
    pub fn virtual_host_of(&self, authority: &[u8]) -> Option<usize> {
        self.indexes().domains.find(authority)
    }

    /// Position of the first route of a virtual host for which `matches` holds. `path` is that of the
    /// request, without its query; routes whose path differs are not asked for.
    pub fn route_of(
        &self,
        virtual_host: usize,
        path: &[u8],
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.indexes().routes.get(virtual_host)?.find(path, matches)
    }

    fn indexes(&self) -> &Indexes {
        self.lookup.0.get_or_init(|| Indexes {
            domains: Domains::new(&self.virtual_hosts),
            routes: self.virtual_hosts.iter().map(|host| PathIndex::new(&host.routes)).collect(),
        })
    }
}

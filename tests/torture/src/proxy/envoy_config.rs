//! The configuration that Envoy and baton share, byte for byte.

use std::net::SocketAddr;

use crate::upstream::Upstreams;

/// Marks between `@` are replaced.
const TEMPLATE: &str = include_str!("envoy.yaml");

/// One more route, which no client uses.
const EXTRA_ROUTE: &str = "
                        - match: { prefix: /added }
                          direct_response: { status: 200, body: { inline_string: added } }";

/// Ports and routes of one configuration.
#[derive(Clone, Copy, Debug)]
pub struct EnvoyConfig {
    /// The admin listener.
    pub admin: SocketAddr,
    /// The HTTP listener.
    pub http: SocketAddr,
    /// The TCP listener.
    pub tcp: SocketAddr,
    /// The servers behind.
    pub upstream: Upstreams,
    /// Whether there is one more route.
    pub extra_route: bool,
}

impl EnvoyConfig {
    /// The YAML text.
    pub fn text(&self) -> String {
        let port = |address: SocketAddr| address.port().to_string();
        TEMPLATE
            .replace("@admin@", &port(self.admin))
            .replace("@http@", &port(self.http))
            .replace("@tcp@", &port(self.tcp))
            .replace("@http_upstream@", &port(self.upstream.http))
            .replace("@tcp_upstream@", &port(self.upstream.tcp))
            .replace("@extra@", if self.extra_route { EXTRA_ROUTE } else { "" })
    }
}

//! `envoy.filters.http.router`: how the router is configured. What it does stands in
//! `filter::http::router`, because it needs what no other filter needs: routes and clusters.

use std::sync::Arc;

use super::Room;
use crate::config::{
    extension::HttpExtension,
    hcm::HttpFilter as Configured,
    lower::Lower,
    message::Msg,
    settings::{SharedSettings, settings_of},
    support::{harmless, message, no_effect, read},
};

const MESSAGE: &str = "envoy.extensions.filters.http.router.v3.Router";

/// Its entry in the list.
pub(super) const ROOM: Room = Room { known: &EXTENSION, make: |_, _| None };

const EXTENSION: HttpExtension = HttpExtension {
    names: &["envoy.filters.http.router", "envoy.router"],
    message: MESSAGE,
    may_be_empty: true,
    is_terminal: true,
    tables: &[message(
        MESSAGE,
        &[
            read("suppress_envoy_headers", ""),
            no_effect("dynamic_stats", "statistics are always kept"),
            harmless("start_child_span", "tracing is not implemented yet"),
        ],
    )],
    skippable: &[(
        MESSAGE,
        &[
            "upstream_log",
            "upstream_log_options",
            "respect_expected_rq_timeout",
            "suppress_grpc_request_failure_code_stats",
        ],
    )],
    lower,
    per_route: None,
};

/// How the router is configured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RouterSettings {
    /// `suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
}

impl RouterSettings {
    /// As an entry of a chain.
    pub fn configured(self) -> Configured {
        Configured {
            name: "envoy.filters.http.router".to_owned(),
            message: MESSAGE,
            disabled: false,
            settings: Arc::new(self),
        }
    }

    /// The router's configuration in a chain.
    pub fn of(chain: &[Configured]) -> Self {
        let mut found = chain.iter().filter_map(|configured| settings_of(&configured.settings));
        found.next().map_or_else(Self::default, |settings| *settings)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "others may find a mistake")]
fn lower(_: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    let suppress_envoy_headers = message.flag("suppress_envoy_headers").unwrap_or(false);
    Some(Arc::new(RouterSettings { suppress_envoy_headers }))
}

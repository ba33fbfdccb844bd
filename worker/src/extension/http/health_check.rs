//! `envoy.filters.http.health_check` without pass-through: the proxy itself answers health checks.
//!
//! 200 while it serves, 503 after `POST /healthcheck/fail`.

use std::sync::Arc;

use super::{Making, Room};
use crate::{
    config::{
        extension::HttpExtension,
        lower::Lower,
        matcher::HeaderMatcher,
        message::Msg,
        settings::{SharedSettings, settings_of},
        support::{message, read},
    },
    drain::DrainHandle,
    filter::http::{HttpFilter, Step, StreamContext},
    http::{
        head::{RequestHead, ResponseHead},
        header_match,
        local_reply::LocalReply,
    },
};

const MESSAGE: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";

/// Its entry in the list.
pub(super) const ROOM: Room = Room { known: &EXTENSION, make };

const EXTENSION: HttpExtension = HttpExtension {
    names: &["envoy.filters.http.health_check", "envoy.health_check"],
    message: MESSAGE,
    may_be_empty: false,
    is_terminal: false,
    tables: &[message(MESSAGE, &[read("pass_through_mode", "only `false`"), read("headers", "")])],
    skippable: &[(MESSAGE, &["cache_time"])],
    lower,
    per_route: None,
};

/// Requests that all of these match are health checks.
#[derive(Debug)]
struct Settings {
    headers: Vec<HeaderMatcher>,
}

#[expect(clippy::unnecessary_wraps, reason = "others may find a mistake")]
fn lower(lower: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    if message.flag("pass_through_mode") == Some(true) {
        let at = message.at_of("pass_through_mode");
        let text = "`pass_through_mode: true` is not implemented by baton yet";
        lower.report.error(&at, text);
    }
    Some(Arc::new(Settings { headers: lower.header_matchers(message) }))
}

fn make(settings: &SharedSettings, making: &Making<'_>) -> Option<Box<dyn HttpFilter>> {
    Some(Box::new(HealthCheck { drain: making.drain.clone(), settings: settings_of(settings)? }))
}

/// The filter.
#[derive(Debug)]
struct HealthCheck {
    drain: DrainHandle,
    settings: Arc<Settings>,
}

impl HttpFilter for HealthCheck {
    fn on_request(&self, request: &mut RequestHead, cx: &mut StreamContext<'_>) -> Step {
        if !header_match::all(&self.settings.headers, request) {
            return Step::Continue;
        }
        cx.info.health_check = true;
        if self.drain.health_failed() {
            return Step::Reply(LocalReply::new(503, "", "health_check_failed"));
        }
        Step::Reply(LocalReply::new(200, "", "health_check_ok"))
    }

    fn on_response(
        &self,
        _: &RequestHead,
        response: &mut ResponseHead,
        cx: &mut StreamContext<'_>,
    ) {
        if cx.info.health_check && !cx.node.cluster.is_empty() {
            let cluster = cx.node.cluster.as_bytes();
            response.headers.set(b"x-envoy-upstream-healthchecked-cluster", cluster);
        }
    }
}

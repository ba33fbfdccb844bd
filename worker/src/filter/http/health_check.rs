//! `envoy.filters.http.health_check` without pass-through: the proxy itself answers health checks.
//!
//! 200 while it serves, 503 after `POST /healthcheck/fail`.

use crate::{
    config::route::HeaderMatcher,
    drain::DrainHandle,
    filter::http::{HttpFilter, Verdict},
    http::{head::RequestHead, header_match, local_reply::LocalReply, stream_info::StreamInfo},
};

/// The filter.
#[derive(Debug)]
pub struct HealthCheck {
    drain: DrainHandle,
    headers: Vec<HeaderMatcher>,
}

impl HealthCheck {
    /// Answers requests that all of `headers` match.
    pub fn new(headers: Vec<HeaderMatcher>, drain: &DrainHandle) -> Self {
        Self { drain: drain.clone(), headers }
    }
}

impl HttpFilter for HealthCheck {
    fn on_request(&self, request: &mut RequestHead, info: &mut StreamInfo) -> Verdict {
        if !header_match::all(&self.headers, request) {
            return Verdict::Continue;
        }
        info.health_check = true;
        if self.drain.health_failed() {
            return Verdict::Reply(LocalReply::new(503, "", "health_check_failed"));
        }
        Verdict::Reply(LocalReply::new(200, "", "health_check_ok"))
    }
}

//! What a route and its request say about tries, taken together.

use std::time::Duration;

use super::{PerTry, Plan, Retry};
use crate::{
    config::retry::{AttemptHeaders, RetryOptions},
    http::{forwarded, head::RequestHead, headers::Headers},
};

/// Number and limits of the tries of a request.
#[derive(Clone, Debug)]
pub struct Tries {
    /// Whether there is another one after one that ended; `None` = never.
    pub retry: Option<Retry>,
    /// Limits of each.
    pub per_try: PerTry,
    /// What the route says.
    pub options: RetryOptions,
    /// What the request said, in headers that are taken out of it.
    pub asked: Headers,
}

impl Tries {
    /// `None` for a request about whose tries nobody says anything, as for nearly every one. `timeout` is the
    /// time for all of them. The request still has its headers about tries.
    pub fn of(
        options: &RetryOptions,
        request: &RequestHead,
        timeout: Option<Duration>,
    ) -> Option<Box<Self>> {
        let silent = options.policy.is_none() && options.tells == AttemptHeaders::default();
        let asked = forwarded::consumed(&request.headers);
        if silent && asked.is_none() {
            return None;
        }
        let Plan { retry, per_try } = Plan::of(options, request, timeout);
        Some(Box::new(Self {
            retry,
            per_try,
            options: options.clone(),
            asked: asked.unwrap_or_default(),
        }))
    }

    /// Retries that are left, and the bound of the next wait, for another process; `None` = never.
    pub fn state(&self) -> Option<(u64, Duration)> {
        self.retry.as_ref().map(|retry| (retry.left, retry.backoff.bound))
    }

    /// Goes on from there.
    pub fn resume(&mut self, state: Option<(u64, Duration)>) {
        match (&mut self.retry, state) {
            (Some(retry), Some((left, bound))) => (retry.left, retry.backoff.bound) = (left, bound),
            (retry, _) => *retry = None,
        }
    }
}

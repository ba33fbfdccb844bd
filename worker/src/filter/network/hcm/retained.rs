//! The body of a request, kept for those who may need it later: a further try, or a copy for another cluster.

use super::exchange::Exchange;
use crate::http::{
    h1::body::{CHUNK_END, MAX_CHUNK_HEADER, write_chunk_header, write_last_chunk},
    headers::Headers,
};

/// What came of a body so far.
#[derive(Debug)]
pub(super) struct Retained {
    body: Vec<u8>,
    trailers: Headers,
    /// Most bytes of a body that is kept.
    limit: usize,
}

impl Retained {
    /// Nothing came yet. 0 is no limit, as in Envoy.
    pub(super) fn new(limit_bytes: usize) -> Self {
        let limit = if limit_bytes == 0 { usize::MAX } else { limit_bytes };
        Self { body: Vec::new(), trailers: Headers::default(), limit }
    }

    /// What another process kept.
    pub(super) fn resume(body: Vec<u8>, trailers: Headers, limit_bytes: usize) -> Self {
        Self { body, trailers, ..Self::new(limit_bytes) }
    }

    /// The body so far, without any framing.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Most bytes of it.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What came behind it.
    pub(super) fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// Whether a body of this length can be kept.
    pub(super) fn has_room_for(&self, length: u64) -> bool {
        usize::try_from(length).is_ok_and(|length| length <= self.limit)
    }

    /// Keeps what came; false when it is too much.
    #[must_use]
    pub(super) fn keep(&mut self, data: &[u8]) -> bool {
        let fits = self.limit.saturating_sub(self.body.len()) >= data.len();
        if fits {
            self.body.extend_from_slice(data);
        }
        fits
    }

    /// What came behind the body.
    pub(super) fn end(&mut self, trailers: Headers) {
        self.trailers = trailers;
    }

    /// As it goes over the wire of HTTP/1. `whole` when nothing is missing.
    pub(super) fn encode(&self, chunked: bool, whole: bool) -> Vec<u8> {
        if !chunked {
            return self.body.clone();
        }
        let mut bytes = Vec::with_capacity(self.body.len() + 2 * MAX_CHUNK_HEADER);
        if !self.body.is_empty() {
            write_chunk_header(&mut bytes, self.body.len());
            bytes.extend_from_slice(&self.body);
            bytes.extend_from_slice(CHUNK_END);
        }
        if whole {
            write_last_chunk(&mut bytes, &self.trailers);
        }
        bytes
    }
}

impl Exchange {
    /// Keeps a piece of the request's body, if somebody may need it again.
    pub(super) fn retain(&mut self, data: &[u8]) {
        let Some(retained) = &mut self.retained else { return };
        if retained.keep(data) {
            return;
        }
        self.abandon_copies();
    }

    /// The body is larger than what may be kept: it goes on its way, once.
    pub(super) fn abandon_copies(&mut self) {
        self.retained = None;
        self.mirrors.clear();
        self.give_up_retries();
        if let Some(target) = &self.target {
            target.cluster.stats.retry_or_shadow_abandoned.inc();
        }
    }
}

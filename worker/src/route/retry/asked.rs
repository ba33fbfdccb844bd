//! What a request says itself about retries, in headers that the router takes out again.

use crate::{config::retry::RetryOn, http::headers::Headers};

/// Where the names of these headers begin.
const ENVOY: &[u8] = b"x-envoy-";

/// What a request asks for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// `x-envoy-retry-on` or `x-envoy-retry-grpc-on` is there, if only with words nobody knows.
    pub(super) wants: bool,
    /// Their words.
    pub(super) retry_on: RetryOn,
    /// `x-envoy-max-retries`.
    pub(super) max_retries: Option<u64>,
    /// `x-envoy-retriable-status-codes`.
    pub(super) status_codes: Vec<u32>,
    /// `x-envoy-retriable-header-names`, lower case.
    pub(super) header_names: Vec<Box<[u8]>>,
    /// `x-envoy-hedge-on-per-try-timeout`.
    pub(super) hedge: Option<bool>,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`.
    pub(super) per_try_timeout_ms: Option<u64>,
}

impl Asked {
    /// Reads the headers. Several lines of a list are one list; of the others the last one that can be
    /// read counts.
    pub(super) fn of(headers: &Headers) -> Self {
        let mut asked = Self::default();
        for (name, value) in headers.iter() {
            if let Some(name) = name.strip_prefix(ENVOY) {
                asked.header(name, value);
            }
        }
        asked
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"retry-on" => self.words(RetryOn::WORDS, value),
            b"retry-grpc-on" => self.words(RetryOn::GRPC_WORDS, value),
            b"max-retries" => self.max_retries = number(value).or(self.max_retries),
            b"retriable-status-codes" => {
                let codes = list(value).filter_map(number);
                self.status_codes.extend(codes.filter_map(|code| u32::try_from(code).ok()));
            }
            b"retriable-header-names" => {
                let names = list(value).map(|name| name.to_ascii_lowercase().into_boxed_slice());
                self.header_names.extend(names);
            }
            b"hedge-on-per-try-timeout" => {
                self.hedge = match value {
                    b"true" => Some(true),
                    b"false" => Some(false),
                    _ => self.hedge,
                };
            }
            b"upstream-rq-per-try-timeout-ms" => {
                self.per_try_timeout_ms = number(value).or(self.per_try_timeout_ms);
            }
            _ => {}
        }
    }

    fn words(&mut self, known: &[(&str, RetryOn)], value: &[u8]) {
        self.wants = true;
        for word in list(value) {
            if let Some((_, bit)) = known.iter().find(|(known, _)| known.as_bytes() == word) {
                self.retry_on |= *bit;
            }
        }
    }
}

/// The elements of a list.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// A number without a sign, or with `+`, and with blanks around it.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}

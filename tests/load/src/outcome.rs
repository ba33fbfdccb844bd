//! What a run found, and its line of JSON.

use baton_load::latency::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// What can go wrong with an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The connection could not be opened.
    Connect,
    /// It ended in the middle of an exchange.
    Cut,
    /// The answer was no success, or no HTTP.
    Status,
    /// The answer had another length than it must have.
    Length,
    /// The answer had other bytes than it must have.
    Content,
    /// There was no answer in time.
    Unanswered,
}

/// Number of kinds of failure.
const FAILURES: usize = 6;
const NAMES: [&str; FAILURES] = ["connect", "cut", "status", "length", "content", "unanswered"];

/// Figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Exchanges that went well.
    pub(crate) exchanges: u64,
    /// Bytes of answers, or of the transfers.
    pub(crate) bytes: u64,
    /// Connections opened.
    pub(crate) connections: u64,
    /// From the first request to the last answer.
    pub(crate) time: Duration,
    /// How long exchanges took; those of the warm-up are not here.
    pub(crate) latency: Histogram,
    failures: [u64; FAILURES],
}

impl Outcome {
    /// One more failure.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.fail_many(failure, 1);
    }

    /// More failures of a kind.
    pub(crate) fn fail_many(&mut self, failure: Failure, count: u64) {
        if let Some(slot) = self.failures.get_mut(failure as usize) {
            *slot += count;
        }
    }

    /// Failures of all kinds.
    pub(crate) fn errors(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// The line.
    pub(crate) fn json(&self) -> Value {
        let seconds = self.time.as_secs_f64();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let failures: serde_json::Map<String, Value> = NAMES
            .iter()
            .zip(self.failures)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| ((*name).to_owned(), count.into()))
            .collect();
        json!({
            "requests": self.exchanges,
            "bytes": self.bytes,
            "connections": self.connections,
            "seconds": seconds,
            "errors": self.errors(),
            "failures": failures,
            "timed": self.latency.count(),
            "p50_us": micros(self.latency.quantile(500)),
            "p90_us": micros(self.latency.quantile(900)),
            "p99_us": micros(self.latency.quantile(990)),
            "p999_us": micros(self.latency.quantile(999)),
            "max_us": micros(self.latency.longest()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_their_own_names() {
        let mut outcome = Outcome::default();
        outcome.fail(Failure::Connect);
        outcome.fail_many(Failure::Unanswered, 2);
        outcome.fail(Failure::Length);
        assert_eq!(outcome.errors(), 4);
        let expected = json!({ "connect": 1, "length": 1, "unanswered": 2 });
        assert_eq!(outcome.json()["failures"], expected);
    }
}

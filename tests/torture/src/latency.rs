//! How times of requests are told.

use baton_load::latency::Histogram;
use std::time::Duration;

/// `p50 0.31 ms, p99 1.20 ms, p99.9 4.00 ms, longest 9.10 ms of 4000`.
pub(crate) fn summary(times: &Histogram) -> String {
    let [p50, p99, p999] = [500, 990, 999].map(|part| millis(times.quantile(part)));
    let (longest, count) = (millis(times.longest()), times.count());
    format!("p50 {p50}, p99 {p99}, p99.9 {p999}, longest {longest} of {count}")
}

/// Milliseconds with two digits.
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

//! `/stats`: metrics as text or JSON, in Envoy's shapes. `baton stats` prints the same.

use std::fmt::Write as _;

use baton_contract::shm::{HistogramValues, Kind, Metric, Value};
use hyper::StatusCode;
use regex::bytes::Regex;
use serde_json::json;

use super::{AdminContext, Answer, extra, prometheus, query::Query};
use crate::config::pattern;

/// The quantiles that are shown, in percent.
const QUANTILES: [(&str, f64); 10] = [
    ("0", 0.0),
    ("25", 0.25),
    ("50", 0.5),
    ("75", 0.75),
    ("90", 0.9),
    ("95", 0.95),
    ("99", 0.99),
    ("99.5", 0.995),
    ("99.9", 0.999),
    ("100", 1.0),
];

/// Which metrics are shown.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only names in which this is found (`filter`), or is not (`invert_filter`).
    pub filter: Option<Regex>,
    /// Names in which the filter is not found.
    pub invert: bool,
    /// Only those that are not 0 (`usedonly`).
    pub used_only: bool,
    /// Only these (`type`): `Counters`, `Gauges`, `Histograms`; `None` is all.
    pub kind: Option<ShownKind>,
}

/// Envoy's `type` of `/stats`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShownKind {
    /// `Counters`.
    Counters,
    /// `Gauges`.
    Gauges,
    /// `Histograms`.
    Histograms,
    /// `TextReadouts`, of which there are none.
    TextReadouts,
}

/// The query is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// The filter is not a regular expression.
    #[error("Invalid re2 regex")]
    Filter,
    /// The type is none of Envoy's.
    #[error("invalid /stats?type={0}; one of All, Counters, Gauges, Histograms, TextReadouts")]
    Type(String),
}

impl Selection {
    /// Reads `filter`, `invert_filter`, `usedonly` and `type`.
    ///
    /// # Errors
    /// When the filter or the type is wrong.
    pub fn from_query(query: &Query) -> Result<Self, SelectionError> {
        let filter = query.get("filter").map(pattern::search).transpose();
        let kind = match query.get("type") {
            None | Some("All" | "") => None,
            Some("Counters") => Some(ShownKind::Counters),
            Some("Gauges") => Some(ShownKind::Gauges),
            Some("Histograms") => Some(ShownKind::Histograms),
            Some("TextReadouts") => Some(ShownKind::TextReadouts),
            Some(other) => return Err(SelectionError::Type(other.to_owned())),
        };
        Ok(Self {
            filter: filter.map_err(|_| SelectionError::Filter)?,
            invert: query.has("invert_filter"),
            used_only: query.has("usedonly"),
            kind,
        })
    }

    /// True when the metric is shown.
    pub fn shows(&self, metric: &Metric) -> bool {
        let shown = match metric.kind {
            Kind::Counter => ShownKind::Counters,
            Kind::Gauge | Kind::LocalGauge => ShownKind::Gauges,
            Kind::Histogram => ShownKind::Histograms,
        };
        let used = match &metric.value {
            Value::Number(number) => *number != 0,
            Value::Histogram(values) => values.count() != 0,
        };
        let found = |filter: &Regex| filter.is_match(metric.name.name().as_bytes()) != self.invert;
        self.kind.is_none_or(|kind| kind == shown)
            && (used || !self.used_only)
            && self.filter.as_ref().is_none_or(found)
    }
}

/// Answers `/stats`.
pub(super) fn answer(context: &AdminContext, query: &Query) -> Answer {
    let render: fn(&[Metric]) -> Answer = match query.get("format") {
        None | Some("text" | "") => |metrics| Answer::text(text(metrics)),
        Some("json") => |metrics| {
            let body = json(metrics).to_string().into_bytes();
            Answer { status: StatusCode::OK, content_type: "application/json", body }
        },
        Some("prometheus") => |metrics| Answer::text(prometheus::render(metrics)),
        Some(_) => {
            let usage = "usage: /stats?format=(text|json|prometheus)\n";
            return Answer::error(StatusCode::BAD_REQUEST, usage);
        }
    };
    select(context, query).map_or_else(|refusal| refusal, |metrics| render(&metrics))
}

/// Answers `/stats/prometheus`.
pub(super) fn prometheus(context: &AdminContext, query: &Query) -> Answer {
    select(context, query)
        .map_or_else(|refusal| refusal, |metrics| Answer::text(prometheus::render(&metrics)))
}

fn select(context: &AdminContext, query: &Query) -> Result<Vec<Metric>, Answer> {
    let selection = Selection::from_query(query)
        .map_err(|error| Answer::error(StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    let mut metrics = context
        .reader
        .snapshot()
        .map_err(|error| Answer::error(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")))?;
    metrics.extend(extra::of_generations(&context.reader));
    metrics.extend(extra::of_server(context));
    metrics.retain(|metric| selection.shows(metric));
    metrics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(metrics)
}

/// Lines `name: value`, counters and gauges first, then histograms.
pub fn text(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for metric in metrics {
        if let Value::Number(number) = &metric.value {
            // Writing to a string cannot fail.
            writeln!(text, "{}: {number}", metric.name.name()).ok();
        }
    }
    for metric in metrics {
        if let Value::Histogram(values) = &metric.value {
            writeln!(text, "{}: {}", metric.name.name(), summary(values)).ok();
        }
    }
    text
}

/// `P0(nan,1) P25(nan,2) …`. Envoy's first number is of the last flush interval; there are no
/// intervals here.
fn summary(values: &HistogramValues) -> String {
    if values.count() == 0 {
        return "No recorded values".to_owned();
    }
    let quantiles = QUANTILES.iter().map(|(percent, share)| {
        format!("P{percent}(nan,{})", values.quantile(*share).unwrap_or_default())
    });
    quantiles.collect::<Vec<_>>().join(" ")
}

/// Envoy's JSON shape.
pub fn json(metrics: &[Metric]) -> serde_json::Value {
    let mut stats = Vec::new();
    let mut computed = Vec::new();
    for metric in metrics {
        match &metric.value {
            Value::Number(number) => {
                stats.push(json!({ "name": metric.name.name(), "value": number }));
            }
            Value::Histogram(values) => {
                let values = QUANTILES.map(
                    |(_, share)| json!({ "interval": null, "cumulative": values.quantile(share) }),
                );
                computed.push(json!({ "name": metric.name.name(), "values": values }));
            }
        }
    }
    if !computed.is_empty() {
        let supported = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];
        stats.push(json!({ "histograms": {
            "supported_quantiles": supported,
            "computed_quantiles": computed,
        } }));
    }
    json!({ "stats": stats })
}

//! The text format of Prometheus, with Envoy's names and labels.

use std::{collections::BTreeMap, fmt::Write as _};

use baton_contract::shm::{HistogramValues, Kind, Metric, MetricName, Value};

use crate::stats::help;

/// Upper bounds of the buckets that are shown, as Envoy's, with the largest whole number below each.
const BOUNDS: [(&str, u64); 19] = [
    ("0.5", 0),
    ("1", 1),
    ("5", 5),
    ("10", 10),
    ("25", 25),
    ("50", 50),
    ("100", 100),
    ("250", 250),
    ("500", 500),
    ("1000", 1000),
    ("2500", 2500),
    ("5000", 5000),
    ("10000", 10_000),
    ("30000", 30_000),
    ("60000", 60_000),
    ("300000", 300_000),
    ("600000", 600_000),
    ("1800000", 1_800_000),
    ("3600000", 3_600_000),
];

/// Renders metrics, every family once with its help and its type.
pub fn render(metrics: &[Metric]) -> String {
    let mut families: BTreeMap<String, Vec<&Metric>> = BTreeMap::new();
    for metric in metrics {
        families.entry(family_name(metric.name.family())).or_default().push(metric);
    }
    let mut text = String::new();
    for (family, metrics) in &families {
        let Some(first) = metrics.first() else { continue };
        if let Some(help) = help(first.name.family()) {
            // Writing to a string cannot fail, here and below.
            writeln!(text, "# HELP {family} {help}").ok();
        }
        writeln!(text, "# TYPE {family} {}", type_of(first.kind)).ok();
        // One family has one type; what else bears its name cannot be shown.
        for metric in metrics.iter().filter(|m| type_of(m.kind) == type_of(first.kind)) {
            let labels = labels(&metric.name);
            match &metric.value {
                Value::Number(number) => {
                    writeln!(text, "{family}{{{labels}}} {number}").ok();
                }
                Value::Histogram(values) => histogram(&mut text, family, &labels, values),
            }
        }
    }
    text
}

const fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::LocalGauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

fn histogram(text: &mut String, family: &str, labels: &str, values: &HistogramValues) {
    let comma = if labels.is_empty() { "" } else { "," };
    for (bound, at_most) in BOUNDS {
        let count = values.at_most(at_most);
        writeln!(text, "{family}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}").ok();
    }
    let count = values.count();
    writeln!(text, "{family}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}").ok();
    writeln!(text, "{family}_sum{{{labels}}} {}", values.sum).ok();
    writeln!(text, "{family}_count{{{labels}}} {count}").ok();
}

/// `envoy_http_downstream_rq_xx`; what Envoy does not have begins with `baton_`.
fn family_name(family: &str) -> String {
    let name = sanitize(family);
    if name.starts_with("baton_") { name } else { format!("envoy_{name}") }
}

fn labels(name: &MetricName) -> String {
    let labels = name.tags().iter().map(|(key, value)| {
        let value = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        format!("{}=\"{value}\"", sanitize(key))
    });
    labels.collect::<Vec<_>>().join(",")
}

fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

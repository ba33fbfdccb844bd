//! `baton stats`: statistics, read straight from shared memory, so that they can be seen while
//! every worker hangs.

use baton_contract::{
    control::{Answer, Request},
    exit::Exit,
    shm::{Metric, SegmentReader, Value},
};
use serde_json::json;

use super::control;
use crate::{cli::StatsArgs, failure::Failure, out};

/// Quantiles shown for a histogram.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Shows all statistics, or those that match.
///
/// # Errors
/// When no supervisor runs, or it keeps no statistics.
pub(crate) fn run(args: &StatsArgs) -> Result<Exit, Failure> {
    let answer = control::request(&args.control, &Request::Status, control::SHORT, |_| ())?;
    let Answer::Status(report) = answer else { return Err(control::unexpected()) };
    if report.segment.is_empty() {
        return Err(Failure::new(Exit::Refused, "the supervisor runs without shared statistics")
            .hint("its log says why the segment could not be created"));
    }
    let mut metrics = SegmentReader::open(&report.segment)
        .and_then(|reader| reader.snapshot())
        .map_err(|error| Failure::of(Exit::Internal, &error))?;
    metrics.retain(|metric| metric.name.name().contains(&args.filter));
    if metrics.is_empty() {
        let text = format!("there is no statistic with `{}` in its name", args.filter);
        return Err(Failure::new(Exit::Usage, text).hint("`baton stats` shows all of them"));
    }
    metrics.sort_by(|a, b| a.name.name().cmp(b.name.name()));
    if args.json {
        let list: Vec<_> = metrics.iter().map(as_json).collect();
        out::line(format_args!("{:#}", json!({ "stats": list })));
    } else {
        let lines: String = metrics.iter().map(as_line).collect();
        out::text(format_args!("{lines}"));
    }
    Ok(Exit::Ok)
}

fn as_line(metric: &Metric) -> String {
    let name = metric.name.name();
    match &metric.value {
        Value::Number(number) => format!("{name}: {number}\n"),
        Value::Histogram(values) if values.count() == 0 => {
            format!("{name}: No recorded values\n")
        }
        Value::Histogram(values) => {
            let quantiles: Vec<String> = QUANTILES
                .iter()
                .filter_map(|(label, share)| Some(format!("{label} {}", values.quantile(*share)?)))
                .collect();
            format!("{name}: count {} sum {} {}\n", values.count(), values.sum, quantiles.join(" "))
        }
    }
}

fn as_json(metric: &Metric) -> serde_json::Value {
    let name = metric.name.name();
    match &metric.value {
        Value::Number(number) => json!({ "name": name, "value": number }),
        Value::Histogram(values) => {
            let quantiles: serde_json::Map<String, serde_json::Value> = QUANTILES
                .iter()
                .map(|(label, share)| ((*label).to_owned(), json!(values.quantile(*share))))
                .collect();
            json!({
                "name": name,
                "count": values.count(),
                "sum": values.sum,
                "quantiles": quantiles,
            })
        }
    }
}

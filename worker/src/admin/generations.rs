//! `/generations`: every generation that lives, and what became of all connections so far.

use baton_contract::shm::{
    self, ConnectionKind, EndReason, GenerationRow, LedgerTotals, Metric, SegmentReader, mono_ms,
};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::{AdminContext, Answer, query::Query};

/// Answers `/generations`.
pub(super) fn answer(context: &AdminContext, _: &Query) -> Answer {
    match report(&context.reader) {
        Ok(report) => Answer::json(&report),
        Err(error) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

/// The generation table and the ledger as JSON, without asking any worker.
///
/// # Errors
/// When generations are retired faster than a sum takes.
pub fn report(reader: &SegmentReader) -> Result<Value, shm::SegmentError> {
    let now = mono_ms();
    let rows: Vec<_> = reader.generations().iter().map(|row| generation(row, now)).collect();
    Ok(json!({
        "generations": rows,
        "ledger": ledger(&reader.ledger()?),
        "migration": migration(&reader.snapshot()?),
    }))
}

/// What moved between generations by kind, and why connections stayed, since the start.
fn migration(metrics: &[Metric]) -> Value {
    let number = |metric: &Metric| match metric.value {
        shm::Value::Number(number) => Some(number),
        shm::Value::Histogram(_) => None,
    };
    let group = |prefix: &str| -> Map<String, Value> {
        let of_group = metrics.iter().filter_map(|metric| {
            let name = metric.name.name().strip_prefix(prefix)?;
            Some((name.to_owned(), number(metric)?.into()))
        });
        of_group.collect()
    };
    json!({ "moved": group("baton.migration.moved."), "stayed": group("baton.migration.stayed.") })
}

fn generation(row: &GenerationRow, now: u64) -> Value {
    let since = |ms: u64| (ms != 0).then(|| now.saturating_sub(ms));
    let open: Map<_, _> = ConnectionKind::ALL
        .iter()
        .zip(row.open)
        .map(|(kind, n)| (kind.as_str().to_owned(), n.into()))
        .collect();
    json!({
        "generation": row.generation,
        "state": row.state,
        "pid": row.pid,
        "threads": row.threads,
        "age_ms": since(row.registered_ms),
        "heartbeat_age_ms": since(row.heartbeat_ms),
        "config_hash": format!("{:016x}", row.config_hash),
        "drain_remaining_ms":
            (row.drain_deadline_ms != 0).then(|| row.drain_deadline_ms.saturating_sub(now)),
        "connections": { "open": row.ledger.open(), "by_kind": open },
        "ledger": ledger(&row.ledger),
        "last_error": row.last_error,
    })
}

fn ledger(books: &LedgerTotals) -> Value {
    let ended: Map<_, _> = EndReason::ALL
        .map(|reason| (reason.as_str().to_owned(), books.ended_for(reason).into()))
        .into_iter()
        .collect();
    json!({ "opened": books.opened, "open": books.open(), "ended": ended })
}

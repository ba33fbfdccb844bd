//! Metrics that are not kept anywhere but told from the generation table, the clock and the kernel
//! when somebody asks.

use std::{fs, sync::atomic::Ordering::Relaxed};

use baton_contract::{
    generation::State,
    shm::{GenerationRow, Kind, Metric, MetricName, SegmentReader, Value, mono_ms},
};

use super::AdminContext;
use crate::clock;

/// Bytes of a page of `/proc/self/statm`.
const PAGE_BYTES: u64 = 4096;

fn gauge(name: MetricName, value: u64) -> Metric {
    Metric { name, kind: Kind::Gauge, value: Value::Number(value) }
}

/// What the generation table says about each generation.
pub fn of_generations(reader: &SegmentReader) -> Vec<Metric> {
    let now = mono_ms();
    let rows = reader.generations();
    let parents = rows.iter().filter(|row| is_parent(row)).map(|row| row.ledger.open()).sum();
    let total = rows.iter().map(|row| row.ledger.open()).sum();
    let mut metrics = vec![
        gauge(MetricName::plain("server.parent_connections"), parents),
        gauge(MetricName::plain("server.total_connections"), total),
        gauge(MetricName::plain("baton.generations"), rows.len() as u64),
    ];
    for row in &rows {
        let number = row.generation.to_string();
        let tags = [("generation", number.as_str()), ("state", row.state.as_str())];
        let named = |what: &str| {
            let name = format!("baton.generation.{number}.{what}");
            MetricName::tagged(name, format!("baton.generation_{what}"), &tags)
        };
        metrics.push(gauge(named("connections"), row.ledger.open()));
        if row.drain_deadline_ms != 0 {
            let left = row.drain_deadline_ms.saturating_sub(now);
            metrics.push(gauge(named("drain_remaining_ms"), left));
        }
    }
    metrics
}

fn is_parent(row: &GenerationRow) -> bool {
    matches!(row.state, State::HandingOff | State::Draining)
}

/// Envoy's `server.*` gauges of this process.
pub(super) fn of_server(context: &AdminContext) -> Vec<Metric> {
    let state = ServerState::of(context);
    let memory = Memory::now();
    let uptime = clock::now().duration_since(context.started).as_secs();
    let generation = u64::from(context.generation.0);
    [
        ("uptime", uptime),
        ("live", u64::from(state == ServerState::Live)),
        ("state", state as u64),
        ("hot_restart_epoch", generation),
        ("hot_restart_generation", generation + 1),
        ("memory_allocated", memory.data),
        ("memory_heap_size", memory.data),
        ("memory_physical_size", memory.resident),
    ]
    .map(|(name, value)| gauge(MetricName::plain(format!("server.{name}")), value))
    .into()
}

/// Envoy's `ServerInfo.State`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ServerState {
    Live = 0,
    Draining = 1,
    Initializing = 3,
}

impl ServerState {
    /// The state of this generation. Whoever can ask was accepted on the admin listener, so a
    /// generation that is ready serves.
    pub(super) fn of(context: &AdminContext) -> Self {
        if context.health_failed.load(Relaxed) {
            return Self::Draining;
        }
        let rows = context.reader.generations();
        let row = rows.iter().find(|row| row.slot == context.segment.slot());
        match row.map(|row| row.state) {
            Some(State::Ready | State::Serving) => Self::Live,
            Some(State::Starting | State::Warming) => Self::Initializing,
            Some(State::HandingOff | State::Draining | State::Failed | State::Dead) | None => {
                Self::Draining
            }
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// Memory of this process, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Data and stack.
    pub(super) data: u64,
    /// In physical memory.
    pub(super) resident: u64,
}

impl Memory {
    pub(super) fn now() -> Self {
        let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let field = |index: usize| {
            let field = text.split_ascii_whitespace().nth(index);
            field.and_then(|pages| pages.parse().ok()).map_or(0, |pages: u64| pages * PAGE_BYTES)
        };
        Self { data: field(5), resident: field(1) }
    }
}

//! What a segment counted, without its layout: for a supervisor that was upgraded to another one.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::{Acquire, Relaxed},
};

use serde::{Deserialize, Serialize};

use super::{
    Kind, MetricName, SegmentError, SegmentOwner,
    directory::What,
    layout::{SLAB_RESET, cells_of, header},
    ledger,
    reader::totals,
};

/// Names of what the supervisor counts itself and goes on counting.
const OWN: &str = "baton.supervisor.";

/// Counters and histograms over all generations.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Totals {
    metrics: Vec<Total>,
}

/// One metric. Only cells that are not 0, by their number.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Total {
    histogram: bool,
    name: String,
    family: String,
    tags: Vec<(String, String)>,
    /// Number of cells; a program with other buckets leaves the histogram out.
    of: usize,
    cells: BTreeMap<usize, u64>,
}

impl SegmentOwner {
    /// What was counted so far. Connections that are open are left out of the ledger, because their
    /// end will not be counted where this goes.
    ///
    /// # Errors
    /// When generations are retired faster than a sum takes.
    pub fn totals(&self) -> Result<Totals, SegmentError> {
        let segment = &self.shared.segment;
        let mut directory = self.shared.directory();
        directory.scan(segment);
        let values = totals(segment, &directory.entries)?;
        let reset = segment.slab(SLAB_RESET);
        let ended: u64 = directory
            .entries
            .iter()
            .zip(&values)
            .filter(|(entry, _)| (ledger::ENDED..ledger::OPEN).contains(&entry.cell))
            .filter_map(|(_, cells)| cells.first())
            .fold(0, |sum, value| sum.wrapping_add(*value));
        let mut metrics = Vec::new();
        for (entry, mut cells) in directory.entries.iter().zip(values) {
            let counts = matches!(entry.kind, Kind::Counter | Kind::Histogram);
            if !counts || entry.name.name().starts_with(OWN) {
                continue;
            }
            if entry.cell == ledger::OPENED {
                cells = vec![ended];
            } else if entry.kind == Kind::Counter {
                let before = reset.get(entry.cell);
                for value in &mut cells {
                    *value = value.saturating_sub(before);
                }
            }
            metrics.push(Total {
                histogram: entry.kind == Kind::Histogram,
                name: entry.name.name.clone(),
                family: entry.name.family.clone(),
                tags: entry.name.tags.clone(),
                of: cells.len(),
                cells: cells.into_iter().enumerate().filter(|(_, value)| *value != 0).collect(),
            });
        }
        Ok(Totals { metrics })
    }

    /// Begins with what another segment counted. To be called before any worker uses this one.
    ///
    /// # Errors
    /// When there is no memory for it; a part may have been taken over then.
    pub fn begin_with(&mut self, totals: Totals) -> Result<(), SegmentError> {
        let segment = &self.shared.segment;
        let mut directory = self.shared.directory();
        let base = segment.slab(usize::from(segment.word(header::EPOCH).load(Acquire) & 1 == 1));
        for total in totals.metrics {
            let kind = if total.histogram { Kind::Histogram } else { Kind::Counter };
            if total.of != cells_of(kind) || total.cells.is_empty() {
                continue;
            }
            let Total { name, family, tags, cells, .. } = total;
            let name = MetricName { name, family, tags };
            let first = directory.define(segment, What::Metric(kind), &name)?;
            let base = base.populate(first, cells_of(kind))?;
            for (number, value) in cells {
                if let Some(cell) = base.get(number) {
                    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
                }
            }
        }
        Ok(())
    }
}

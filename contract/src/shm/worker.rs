//! A worker's side of the segment.

use std::sync::Arc;

use super::{SegmentError, SlotIndex, ThreadSlab};

/// The segment as one worker process has it.
#[derive(Debug)]
pub struct SegmentWorker {
    slot: SlotIndex,
}

impl SegmentWorker {
    /// Opens the segment for the generation in `slot`.
    ///
    /// # Errors
    /// When there is no such segment, or it cannot be trusted, or the slot is not in use.
    pub fn open(_os_id: &str, slot: SlotIndex) -> Result<Arc<Self>, SegmentError> {
        Ok(Arc::new(Self { slot }))
    }

    /// The row of this generation.
    pub fn slot(&self) -> SlotIndex {
        self.slot
    }

    /// Says that the worker is alive, in ms of [`super::mono_ms`].
    pub fn heartbeat(&self, _mono_ms: u64) {}

    /// The slab of a worker thread, counted from 0. Each may be taken once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn thread(self: &Arc<Self>, _index: u32) -> Result<ThreadSlab, SegmentError> {
        Ok(ThreadSlab::detached())
    }

    /// The slab of the main thread. It may be taken once.
    ///
    /// # Errors
    /// When it was taken before.
    pub fn main_thread(self: &Arc<Self>) -> Result<ThreadSlab, SegmentError> {
        Ok(ThreadSlab::detached())
    }
}

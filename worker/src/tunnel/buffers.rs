//! Large buffers for copying, pooled by the thread and held only while bytes are in them.

use std::cell::RefCell;

/// Size of a large buffer, bytes. 256 KiB copies cost a third less per byte than 64 KiB ones.
pub(super) const LARGE: usize = 256 * 1024;
/// What is left after a write and is not larger than this moves to a buffer of its own size,
/// bytes, so that many slow readers of little do not pin large buffers.
const SMALL: usize = 16 * 1024;
/// Idle large buffers kept by a thread.
const MOST_IDLE: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes on their way: read and not written yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Held {
    /// Holds a copy of these bytes.
    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        Self { data: bytes.to_vec(), start: 0, end: bytes.len() }
    }

    /// A large buffer of the pool with nothing in it.
    pub(super) fn large() -> Self {
        let pooled = POOL.with_borrow_mut(Vec::pop);
        Self { data: pooled.unwrap_or_else(|| vec![0; LARGE]), start: 0, end: 0 }
    }

    /// What is to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.data.get(self.start..self.end).unwrap_or_default()
    }

    /// Room to read into; only for an empty buffer.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.data
    }

    /// Says that `count` bytes were read into [`Self::room`].
    pub(super) fn filled(&mut self, count: usize) {
        self.start = 0;
        self.end = count.min(self.data.len());
    }

    /// Forgets `count` bytes that were written.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }

    /// Whether it has no memory.
    #[cfg(test)]
    pub(super) fn is_unallocated(&self) -> bool {
        self.data.capacity() == 0
    }

    /// Gives a large buffer back if nothing is in it, or if what is left needs only a small one.
    pub(super) fn settle(&mut self) {
        let left = self.bytes().len();
        if self.data.len() == LARGE && left <= SMALL {
            let small = Self::copy_of(self.bytes());
            *self = small;
        } else if left == 0 && self.data.len() < LARGE {
            self.data = Vec::new();
            self.filled(0);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.data.len() == LARGE {
            let data = std::mem::take(&mut self.data);
            // The thread may be gone already; then the memory is simply freed.
            POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < MOST_IDLE {
                    pool.push(data);
                }
            })
            .ok();
        }
    }
}

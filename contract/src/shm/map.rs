//! The mapping: a named shared-memory object as a slice of atomic words.
//!
//! This is the one file of the segment with `unsafe`. The mapping is never unmapped while the
//! process lives, so what is handed out is `'static`, and it is only ever seen as atomics: two
//! processes may touch any word at any time. A peer of the same user could still truncate the
//! object under us; that user can also kill us.
#![expect(unsafe_code, reason = "a mapping shared with other processes")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::PathBuf,
    sync::atomic::AtomicU64,
};

use nix::fcntl::{FallocateFlags, fallocate};
use shared_memory::{Shmem, ShmemConf};

use super::SegmentError;

/// Bytes of a page, the unit in which memory is reserved.
pub(super) const PAGE_BYTES: usize = 4096;
/// Words of a page.
pub(super) const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// Where the operating system shows named shared memory.
pub(super) const DIRECTORY: &str = "/dev/shm";

/// A mapped object.
#[derive(Debug)]
pub(super) struct Mapping {
    words: &'static [AtomicU64],
    /// The same object as a file, to reserve memory in it.
    file: File,
}

/// A word for indexes outside the mapping, which the checks of the layout exclude.
static OUTSIDE: AtomicU64 = AtomicU64::new(0);

impl Mapping {
    /// Creates the object, all zero and without memory behind it yet.
    pub(super) fn create(os_id: &str, bytes: usize) -> Result<Self, SegmentError> {
        let mut shmem = ShmemConf::new()
            .os_id(os_id)
            .size(bytes)
            .create()
            .map_err(|source| SegmentError::Create { os_id: os_id.to_owned(), source })?;
        // The owner of the segment removes the name itself; the crate would unmap as well.
        shmem.set_owner(false);
        Self::new(os_id, shmem)
    }

    /// Opens an existing object, whatever is in it.
    pub(super) fn open(os_id: &str) -> Result<Self, SegmentError> {
        let shmem = ShmemConf::new()
            .os_id(os_id)
            .open()
            .map_err(|source| SegmentError::Open { os_id: os_id.to_owned(), source })?;
        Self::new(os_id, shmem)
    }

    fn new(os_id: &str, shmem: Shmem) -> Result<Self, SegmentError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path_of(os_id))
            .map_err(SegmentError::Reserve)?;
        // Never dropped, so the pages stay mapped as long as the process lives.
        let shmem = Box::leak(Box::new(shmem));
        let length = shmem.len() / size_of::<AtomicU64>();
        #[expect(clippy::cast_ptr_alignment, reason = "checked in the next line")]
        let start = shmem.as_ptr().cast::<AtomicU64>();
        if start.is_null() || !start.is_aligned() {
            return Err(SegmentError::Alien("its mapping is not aligned"));
        }
        // SAFETY: `start` is the first byte of a mapping of `shmem.len()` bytes, readable and
        // writable, aligned (checked) and never unmapped (leaked above). All zero or any other
        // bits are valid `AtomicU64`s, and this process has no other kind of reference into it.
        let words = unsafe { std::slice::from_raw_parts(start, length) };
        Ok(Self { words, file })
    }

    /// All words.
    pub(super) fn words(&self) -> &'static [AtomicU64] {
        self.words
    }

    /// One word. The layout was checked against the length, so the index is inside.
    pub(super) fn word(&self, index: usize) -> &'static AtomicU64 {
        self.words.get(index).unwrap_or(&OUTSIDE)
    }

    /// Puts memory behind some words, so that touching them cannot fail later when the file system
    /// for shared memory is full.
    pub(super) fn reserve(&self, first_word: usize, words: usize) -> Result<(), SegmentError> {
        let offset = i64::try_from(first_word * 8).map_err(io::Error::other);
        let length = i64::try_from(words * 8).map_err(io::Error::other);
        let (offset, length) =
            (offset.map_err(SegmentError::Reserve)?, length.map_err(SegmentError::Reserve)?);
        fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length)
            .map_err(|error| SegmentError::Reserve(error.into()))
    }
}

/// The object as a path.
pub(super) fn path_of(os_id: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(os_id.trim_start_matches('/'))
}

/// Removes the name; who has the object mapped keeps it.
pub(super) fn unlink(os_id: &str) -> io::Result<()> {
    fs::remove_file(path_of(os_id))
}

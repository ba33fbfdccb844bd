//! The mapping: a named shared-memory object, a memory file of the supervisor, or memory of one process,
//! as a slice of atomic words.
//!
//! This is the one file of the segment with `unsafe`. The mapping is never unmapped while the
//! process lives, so what is handed out is `'static`, and it is only ever seen as atomics: two
//! processes may touch any word at any time. A peer of the same user could still truncate the
//! object under us; that user can also kill us.
#![expect(unsafe_code, reason = "a mapping shared with other processes")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    num::NonZeroUsize,
    os::fd::{AsRawFd, BorrowedFd},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use nix::{
    fcntl::{FallocateFlags, FcntlArg, FdFlag, SealFlag, fallocate, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap, mmap_anonymous},
        prctl::get_dumpable,
    },
};
use shared_memory::{Shmem, ShmemConf};

use super::SegmentError;

/// Bytes of a page, the unit in which memory is reserved.
pub(super) const PAGE_BYTES: usize = 4096;
/// Words of a page.
pub(super) const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// Where the operating system shows named shared memory.
pub(super) const DIRECTORY: &str = "/dev/shm";

/// Where the operating system shows the descriptors of processes.
const PROCESSES: &str = "/proc/";

/// What memory files are called in `/proc/PID/maps`.
const MEMORY_FILE: &str = "baton-statistics";

/// A mapped object.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    words: &'static [AtomicU64],
    /// The same object as a file, to reserve memory in it; `None` = memory of this process alone.
    file: Option<Arc<File>>,
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

    /// Memory of this process alone, all zero.
    pub(super) fn private(bytes: usize) -> Result<Self, SegmentError> {
        let length = NonZeroUsize::new(bytes).ok_or(SegmentError::Alien("it is empty"))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Most of it is never touched.
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at a place the kernel chooses, which nothing else refers to.
        let start = unsafe { mmap_anonymous(None, length, access, flags) };
        let start = start.map_err(|error| SegmentError::Reserve(error.into()))?;
        let words = bytes / size_of::<AtomicU64>();
        // SAFETY: the mapping begins with a page, has `bytes` bytes, readable and writable, and is never
        // unmapped. Zeros are valid `AtomicU64`s, and nothing else refers to it.
        let words =
            unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>().as_ptr(), words) };
        Ok(Self { words, file: None })
    }

    /// A memory file of this process, all zero, and the name under which others find it for as long as
    /// this process lives. It needs no room in the file system for shared memory.
    pub(super) fn memory_file(bytes: usize) -> Result<(String, Self), SegmentError> {
        if !get_dumpable().unwrap_or(true) {
            return Err(SegmentError::Alien("no other process may open files of this one"));
        }
        let file = sized_memory_file(bytes)
            .map_err(|source| SegmentError::MemoryFile { os_id: MEMORY_FILE.to_owned(), source })?;
        let os_id = format!("{}{}/fd/{}", PROCESSES, std::process::id(), file.as_raw_fd());
        // Finds out whether there is such a name.
        let mapping = Self::open(&os_id)?;
        // Who reads it opens it by that name, so its descriptor is never closed.
        Box::leak(Box::new(file));
        Ok((os_id, mapping))
    }

    /// All of a file.
    fn of_file(file: File) -> io::Result<Self> {
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let Some(length) = NonZeroUsize::new(bytes) else {
            return Ok(Self { words: &[], file: None });
        };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place the kernel chooses, which nothing else refers to.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &file, 0) }?;
        let words = bytes / size_of::<AtomicU64>();
        // SAFETY: the mapping begins with a page, has `bytes` bytes, readable and writable, and is never
        // unmapped. Any bits are valid `AtomicU64`s, and this process has no other kind of reference.
        let words =
            unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>().as_ptr(), words) };
        Ok(Self { words, file: Some(Arc::new(file)) })
    }

    /// Opens an existing object, whatever is in it.
    pub(super) fn open(os_id: &str) -> Result<Self, SegmentError> {
        if memory_file_of(os_id).is_some() {
            let file = OpenOptions::new().read(true).write(true).open(os_id);
            return file
                .and_then(Self::of_file)
                .map_err(|source| SegmentError::MemoryFile { os_id: os_id.to_owned(), source });
        }
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
        Ok(Self { words, file: Some(Arc::new(file)) })
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
        // Memory of one process is there when it is touched.
        let Some(file) = &self.file else { return Ok(()) };
        let offset = i64::try_from(first_word * 8).map_err(io::Error::other);
        let length = i64::try_from(words * 8).map_err(io::Error::other);
        let (offset, length) =
            (offset.map_err(SegmentError::Reserve)?, length.map_err(SegmentError::Reserve)?);
        fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, length)
            .map_err(|error| SegmentError::Reserve(error.into()))
    }
}

/// A memory file of this length, which nobody can cut off.
fn sized_memory_file(bytes: usize) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(MEMORY_FILE, flags)?);
    file.set_len(u64::try_from(bytes).map_err(io::Error::other)?)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL))?;
    Ok(file)
}

/// Process and descriptor of a memory file that has this name.
pub(super) fn memory_file_of(os_id: &str) -> Option<(u32, i32)> {
    let (pid, number) = os_id.strip_prefix(PROCESSES)?.split_once("/fd/")?;
    Some((pid.parse().ok()?, number.parse().ok()?))
}

/// Whether a memory file of this process stays open when it executes another program.
pub(super) fn keep_over_exec(os_id: &str, keep: bool) -> io::Result<()> {
    let Some((pid, number)) = memory_file_of(os_id) else { return Ok(()) };
    if pid != std::process::id() || number < 0 {
        return Ok(());
    }
    let flags = if keep { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    // SAFETY: only borrowed for this call, which fails when the number is not open.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(file, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

/// The object as a path.
pub(super) fn path_of(os_id: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(os_id.trim_start_matches('/'))
}

/// Removes the name; who has the object mapped keeps it.
pub(super) fn unlink(os_id: &str) -> io::Result<()> {
    fs::remove_file(path_of(os_id))
}

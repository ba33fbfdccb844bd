//! The inotify instance: what it is asked to watch, and its events in our words.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
};

use nix::{
    errno::Errno,
    libc,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use tokio::io::unix::AsyncFd;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// There were too many events: anything may have happened.
    Overflow,
    /// What was watched is gone, and is no longer watched.
    Gone(WatchDescriptor),
    /// The watched file was written, or who may read it changed.
    Content(WatchDescriptor),
    /// What is watched has another name now, or none.
    Moved(WatchDescriptor),
    /// There is another thing with this name in the watched directory, or none any more.
    Entry {
        watch: WatchDescriptor,
        name: OsString,
        /// It was moved there.
        arrived: bool,
    },
}

impl Event {
    fn of(event: InotifyEvent) -> Option<Self> {
        let InotifyEvent { wd: watch, mask, name, .. } = event;
        let any = |flags: AddWatchFlags| mask.intersects(flags);
        if any(AddWatchFlags::IN_Q_OVERFLOW) {
            return Some(Self::Overflow);
        }
        if any(AddWatchFlags::IN_IGNORED) {
            return Some(Self::Gone(watch));
        }
        match name {
            Some(name) => {
                let arrived = any(AddWatchFlags::IN_MOVED_TO);
                Some(Self::Entry { watch, name, arrived })
            }
            None if any(MOVED) => Some(Self::Moved(watch)),
            None if any(CONTENT) => Some(Self::Content(watch)),
            // The end of a file system: what is watched there is gone next.
            None => None,
        }
    }
}

const MOVED: AddWatchFlags = AddWatchFlags::IN_MOVE_SELF.union(AddWatchFlags::IN_DELETE_SELF);
const CONTENT: AddWatchFlags =
    AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_CLOSE_WRITE).union(AddWatchFlags::IN_ATTRIB);

/// What is to be told of a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wanted {
    /// That this file is written, moved or deleted.
    File,
    /// That this directory is moved or deleted.
    Directory,
    /// What comes into this directory, leaves it or is deleted there.
    Entries,
}

impl Wanted {
    fn flags(self) -> AddWatchFlags {
        let own = match self {
            Self::File => MOVED | CONTENT,
            Self::Directory => MOVED | AddWatchFlags::IN_ONLYDIR,
            Self::Entries => {
                AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_MOVE
                    | AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_ONLYDIR
            }
        };
        // The same directory may be wanted for several reasons.
        own | AddWatchFlags::IN_DONT_FOLLOW | AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD)
    }
}

/// An inotify instance that the runtime polls.
#[derive(Debug)]
pub(super) struct Kernel(AsyncFd<Queue>);

#[derive(Debug)]
struct Queue(Inotify);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Kernel {
    /// # Errors
    /// When this user has too many instances, or it cannot be polled.
    pub(super) fn new() -> io::Result<Self> {
        let queue = Queue(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?);
        #[expect(
            deprecated,
            reason = "`register` is unsafe; a queue keeps its descriptor for life, which is all it asks"
        )]
        AsyncFd::new(queue).map(Self)
    }

    /// Watches a place, not what a symbolic link there leads to.
    ///
    /// # Errors
    /// When there is no such place, this user may not read it, or watches too many.
    pub(super) fn watch(&self, place: &Path, wanted: Wanted) -> Result<WatchDescriptor, Errno> {
        self.0.get_ref().0.add_watch(place, wanted.flags())
    }

    /// Watches it no longer.
    pub(super) fn unwatch(&self, watch: WatchDescriptor) {
        if let Err(error) = self.0.get_ref().0.rm_watch(watch) {
            tracing::trace!(%error, "the kernel had ended a watch before");
        }
    }

    /// Waits for events; a page of them at most, so that a storm keeps nobody waiting.
    ///
    /// # Errors
    /// When the queue cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is taken from the queue before it is returned.
    pub(super) async fn events(&self) -> io::Result<Vec<Event>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|queue| Ok(queue.get_ref().0.read_events()?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(events) => return Ok(events?.into_iter().filter_map(Event::of).collect()),
                Err(_would_block) => {}
            }
        }
    }
}

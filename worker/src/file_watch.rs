//! Notices that files may have changed: written in place, replaced by another file, reached over other
//! symbolic links, created, deleted. It reads no file: who does compares what is in it with what was.
//!
//! What is watched for a file is everything its path leads over (`chain`): a link that is replaced, a
//! directory that is moved away, and what is put in its place. Kubernetes changes a mounted `ConfigMap`
//! by a rename of the link `..data` on that way, editors rename another file onto the name, people write
//! in place. After the last event of a file there is a pause (`settle`), so that a file in the middle of
//! being written is rarely read.
//!
//! ```text
//! inotify ──→ whose part of a chain? ──→ set the chain up anew ──→ settle ──→ `changed`
//!    └─ cannot watch all of it: look each second ──────────────────┘
//! ```
//!
//! The kernel does not tell of changes by other machines on a network file system, nor of a file system
//! that is mounted over a directory on the way.

mod chain;
mod kernel;
mod settle;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::inotify::WatchDescriptor};

use self::{
    chain::{Chain, Part},
    kernel::{Event, Kernel},
    settle::Settle,
};
use crate::clock;

/// Between two looks at files of which inotify tells nothing, or not all.
const LOOK: Duration = Duration::from_secs(1);
/// How often a chain that changes while it is set up is begun again before looks take its place.
const ROUNDS_MAX: u32 = 8;

/// A file among those that are watched. Never given twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WatchId(u64);

/// Files that are watched, by one inotify instance.
#[derive(Debug)]
pub struct FileWatch {
    /// Absent when the system gives none: all files are looked at.
    kernel: Option<Kernel>,
    files: BTreeMap<WatchId, Watched>,
    /// Whose chains lead over what the kernel watches.
    users: BTreeMap<Place, BTreeSet<WatchId>>,
    settle: Settle,
    next_id: u64,
    next_look: Instant,
    /// The log has the line that says that files are looked at.
    told: bool,
}

/// What the kernel watches, and what of it matters.
type Place = (WatchDescriptor, Part);

/// One file.
#[derive(Debug)]
struct Watched {
    file: PathBuf,
    directory: Option<PathBuf>,
    /// What the kernel watches for it.
    places: BTreeSet<Place>,
    /// What the last look saw; `None` when the kernel watches all of the chain.
    looks: Option<Looks>,
}

/// What a look sees: of the file, and of the directory that stands for it.
type Looks = [Option<Stamp>; 2];

/// What differs when a file was written or replaced. The time of the last change of the inode is there
/// for tools that set the time of the last writing back.
#[derive(Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Watched {
    fn look(&self) -> Looks {
        [Some(&self.file), self.directory.as_ref()].map(|path| path.and_then(|it| Stamp::of(it)))
    }

    fn chain(&self) -> Chain {
        let mut chain = Chain::of_file(&self.file);
        if let Some(directory) = &self.directory {
            chain.add_directory(directory);
        }
        chain
    }
}

impl FileWatch {
    /// Watches nothing yet. Must run inside a tokio runtime. When the system gives no inotify
    /// instance, the log says so, and files are looked at each second instead.
    #[expect(clippy::new_without_default, reason = "it takes an inotify instance")]
    pub fn new() -> Self {
        match Kernel::new() {
            Ok(kernel) => Self::with(Some(kernel)),
            Err(error) => {
                let mut this = Self::with(None);
                this.tell(&error);
                this
            }
        }
    }

    fn with(kernel: Option<Kernel>) -> Self {
        Self {
            kernel,
            files: BTreeMap::new(),
            users: BTreeMap::new(),
            settle: Settle::default(),
            next_id: 0,
            next_look: clock::now() + LOOK,
            told: false,
        }
    }

    /// Watches a file, which need not exist yet, nor its directory. With a `watched_directory`,
    /// whatever is moved into that directory counts as a change of the file too, as Envoy has it.
    /// Read the file after this, so that no change is missed.
    ///
    /// # Errors
    /// When a path is empty, or is relative and there is no working directory.
    pub fn add(&mut self, file: &Path, watched_directory: Option<&Path>) -> io::Result<WatchId> {
        let file = std::path::absolute(file)?;
        let directory = watched_directory.map(std::path::absolute).transpose()?;
        let id = WatchId(self.next_id);
        self.next_id += 1;
        self.files.insert(id, Watched { file, directory, places: BTreeSet::new(), looks: None });
        self.set_up(id);
        Ok(id)
    }

    /// Watches a file no longer.
    pub fn remove(&mut self, id: WatchId) {
        if let Some(watched) = self.files.remove(&id) {
            self.release(id, watched.places, &BTreeSet::new());
        }
        self.settle.forget(id);
    }

    /// Waits until files may have changed, and says which, in the order in which they were added. The
    /// report comes 100 ms after the last event of a file, and after a second at most while it is
    /// written without a pause. Waits for ever when nothing is watched.
    ///
    /// # Cancel safety
    /// Cancel safe: what is not reported now is reported by the next call.
    pub async fn changed(&mut self) -> Vec<WatchId> {
        loop {
            let due = self.settle.take_due(clock::now());
            if !due.is_empty() {
                return due;
            }
            let wake = self.wake();
            tokio::select! {
                events = events(self.kernel.as_ref()) => match events {
                    Ok(events) => self.take(&events),
                    Err(error) => self.lose_kernel(&error),
                },
                () = until(wake) => self.look(clock::now()),
            }
        }
    }

    /// When there is something to do without an event.
    fn wake(&self) -> Option<Instant> {
        let looks = self.files.values().any(|watched| watched.looks.is_some());
        let look = looks.then_some(self.next_look);
        [look, self.settle.next()].into_iter().flatten().min()
    }

    /// Sees whom the events concern.
    fn take(&mut self, events: &[Event]) {
        let mut touched = BTreeSet::new();
        let mut torn = BTreeSet::new();
        for event in events {
            match event {
                Event::Overflow => torn.extend(self.files.keys().copied()),
                Event::Gone(watch) => torn.extend(self.users_of(*watch)),
                Event::Content(watch) => touched.extend(self.concerned(*watch, Part::Itself)),
                Event::Moved(watch) => torn.extend(self.concerned(*watch, Part::Itself)),
                Event::Entry { watch, name, arrived } => {
                    torn.extend(self.concerned(*watch, Part::Name(name.clone())));
                    if *arrived {
                        torn.extend(self.concerned(*watch, Part::Arrivals));
                    }
                }
            }
        }
        for id in &torn {
            self.set_up(*id);
        }
        let now = clock::now();
        touched.into_iter().chain(torn).for_each(|id| self.settle.touch(id, now));
    }

    fn concerned(&self, watch: WatchDescriptor, part: Part) -> impl Iterator<Item = WatchId> {
        self.users.get(&(watch, part)).into_iter().flatten().copied()
    }

    fn users_of(&self, watch: WatchDescriptor) -> impl Iterator<Item = WatchId> {
        let users = self.users.range((watch, Part::Itself)..);
        let users = users.take_while(move |((other, _), _)| *other == watch);
        users.flat_map(|(_, users)| users).copied()
    }

    /// Looks at the files of which the kernel does not tell everything.
    fn look(&mut self, now: Instant) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        let blind = self.files.iter().filter(|(_, watched)| watched.looks.is_some());
        let blind: Vec<WatchId> = blind.map(|(id, _)| *id).collect();
        for id in blind {
            let before = self.files.get_mut(&id).and_then(|watched| watched.looks.take());
            // What was in the way may be gone.
            self.set_up(id);
            let seen = self.files.get(&id).map(Watched::look);
            if before != seen {
                self.settle.touch(id, now);
            }
        }
    }

    /// Watches everything that the path of a file leads over now.
    fn set_up(&mut self, id: WatchId) {
        let Some(mut watched) = self.files.remove(&id) else { return };
        let mut held = std::mem::take(&mut watched.places);
        let mut complete = Err(Errno::ELOOP);
        let mut places = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let chain = watched.chain();
            held.append(&mut places);
            let watching = self.watch(&chain, &mut places);
            // Only what was there before and after was it that is watched.
            match watching {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                _ if watched.chain() != chain => {}
                done => {
                    complete = done;
                    break;
                }
            }
        }
        let keep: BTreeSet<WatchDescriptor> = places.iter().map(|(watch, _)| *watch).collect();
        self.release(id, held, &keep);
        for place in &places {
            self.users.entry(place.clone()).or_default().insert(id);
        }
        watched.places = places;
        watched.looks = complete.is_err().then(|| watched.look());
        self.files.insert(id, watched);
        if let Err(error) = complete {
            self.tell(&error.into());
        }
    }

    /// Asks the kernel to watch a chain, as much of it as it can. The first reason why not all.
    fn watch(&self, chain: &Chain, places: &mut BTreeSet<Place>) -> Result<(), Errno> {
        let mut result = chain.obstacle.map_or(Ok(()), Err);
        let Some(kernel) = &self.kernel else { return Err(Errno::EMFILE) };
        for link in &chain.links {
            match kernel.watch(&link.place, link.wanted()) {
                Ok(watch) => {
                    places.insert((watch, link.part.clone()));
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Takes a file off what was watched for it. What nobody needs then is watched no longer, unless
    /// it is about to be needed.
    fn release(&mut self, id: WatchId, held: BTreeSet<Place>, keep: &BTreeSet<WatchDescriptor>) {
        let mut watches: BTreeSet<WatchDescriptor> = held.iter().map(|(watch, _)| *watch).collect();
        for place in held {
            if let Some(users) = self.users.get_mut(&place) {
                users.remove(&id);
                if users.is_empty() {
                    self.users.remove(&place);
                }
            }
        }
        watches.retain(|watch| !keep.contains(watch) && self.users_of(*watch).next().is_none());
        if let Some(kernel) = &self.kernel {
            for watch in watches {
                kernel.unwatch(watch);
            }
        }
    }

    /// No event comes any more.
    fn lose_kernel(&mut self, error: &io::Error) {
        self.kernel = None;
        self.users.clear();
        self.tell(error);
        let now = clock::now();
        for (id, watched) in &mut self.files {
            watched.places.clear();
            watched.looks = Some(watched.look());
            self.settle.touch(*id, now);
        }
    }

    /// Says once that files are looked at.
    fn tell(&mut self, error: &io::Error) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        tracing::warn!(
            %error,
            "the system does not tell of every change of the watched files, so they are looked at each \
             second; raise `fs.inotify.max_user_instances` and `fs.inotify.max_user_watches`, or let \
             this user read all directories on the way"
        );
    }
}

/// The next events, one at least. Never, without inotify.
async fn events(kernel: Option<&Kernel>) -> io::Result<Vec<Event>> {
    match kernel {
        Some(kernel) => kernel.events().await,
        None => std::future::pending().await,
    }
}

/// Never, without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

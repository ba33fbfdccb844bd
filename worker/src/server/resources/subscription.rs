//! One file that resources come from: what was accepted of it, and what is wrong with it.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    admin::resources::Problem,
    clock,
    config::{
        bundle::Stored,
        cluster::EndpointConfig,
        diagnostics::Diagnostic,
        kind::{Kind, Resource},
        listener::Listener,
        resource::{self, Context, Document, Entry, FILE_BYTES_MAX, Read, Rejected},
        subscription::FileSource,
    },
    file_watch::WatchId,
};

/// A resource that is used.
#[derive(Clone, Debug)]
pub(in super::super) struct Accepted {
    pub entry: Entry,
    /// `version_info` of the file when it changed last.
    pub version: String,
    /// When it changed last.
    pub updated: SystemTime,
}

/// How often something happened, since the last report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in super::super) struct Counts {
    pub attempt: u64,
    pub success: u64,
    /// The file could not be read at all.
    pub failure: u64,
    /// Something in it was refused.
    pub rejected: u64,
    /// It had no resource.
    pub empty: u64,
    /// Something of it changed.
    pub reload: u64,
    /// Nothing came in time.
    pub timeout: u64,
}

/// A file that resources of one kind come from.
#[derive(Debug)]
pub(in super::super) struct Subscription {
    pub kind: Kind,
    /// The one resource that is wanted, for endpoints and routes.
    pub wanted: Option<Arc<str>>,
    pub source: FileSource,
    pub watch: Option<WatchId>,
    /// By name.
    pub accepted: BTreeMap<Arc<str>, Accepted>,
    /// `version_info` of the file that was accepted last as a whole.
    pub version: String,
    /// Of the file that was read last, accepted as a whole or in part.
    pub seen_version: String,
    pub problems: Vec<Problem>,
    pub counts: Counts,
    /// When it was accepted last as a whole.
    pub updated: Option<SystemTime>,
    seen: Option<Arc<Document>>,
    /// Nothing came yet, and it is waited for.
    waiting: bool,
    /// Until when; `None` = for ever.
    until: Option<Instant>,
}

impl Subscription {
    /// Begins with what another generation accepted.
    pub(super) fn new(kind: Kind, wanted: Option<&str>, source: &FileSource) -> Self {
        let limit = source.initial_fetch_timeout;
        Self {
            kind,
            wanted: wanted.map(Arc::from),
            source: source.clone(),
            watch: None,
            accepted: BTreeMap::new(),
            version: String::new(),
            seen_version: String::new(),
            problems: Vec::new(),
            counts: Counts::default(),
            updated: None,
            seen: None,
            waiting: true,
            until: limit.and_then(|limit: Duration| clock::now().checked_add(limit)),
        }
    }

    /// The one resource that is wanted.
    pub(in super::super) fn only(&self) -> Option<&Accepted> {
        self.accepted.get(self.wanted.as_ref()?)
    }

    /// Whether nothing is waited for any more.
    pub(super) fn is_settled(&self) -> bool {
        !self.waiting
    }

    /// When waiting ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.until.filter(|_| self.waiting)
    }

    /// Waits no longer if it is time; says whether that is news.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        if self.due().is_none_or(|at| at > now) {
            return false;
        }
        self.waiting = false;
        self.counts.timeout += 1;
        let path = self.source.path.display();
        tracing::warn!(%path, kind = self.kind.word(), "resources did not come in time");
        true
    }

    /// What an older generation accepted of this file.
    pub(super) fn inherit(&mut self, stored: &[Stored], context: &Context<'_>) {
        let own: Vec<&Stored> = stored
            .iter()
            .filter(|it| it.kind == self.kind && it.document.path == self.source.path)
            .filter(|it| self.wanted.as_ref().is_none_or(|wanted| **wanted == *it.name))
            .collect();
        let mut documents: Vec<&Arc<Document>> = Vec::new();
        for it in &own {
            if !documents.iter().any(|known| Arc::ptr_eq(known, &it.document)) {
                documents.push(&it.document);
            }
        }
        for document in documents {
            let Ok(read) = resource::read(document, self.kind, context, &|_| None) else {
                continue;
            };
            for entry in read.entries {
                let of_it = |it: &&&Stored| {
                    Arc::ptr_eq(&it.document, document) && it.position == entry.position
                };
                let Some(it) = own.iter().find(of_it) else { continue };
                let (version, updated) = (it.version.clone(), clock::wall());
                self.version.clone_from(&version);
                self.seen_version.clone_from(&version);
                let accepted = Accepted { entry, version, updated };
                self.accepted.insert(Arc::clone(&accepted.entry.name), accepted);
                self.waiting = false;
            }
        }
    }

    /// Reads the file; says whether something of it is to be taken up.
    pub(super) fn look(&mut self, context: &Context<'_>) -> bool {
        let path = self.source.path.clone();
        let bytes = match read_file(&path) {
            Ok(bytes) => bytes,
            // It is waited for, or the last good one stays.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.problems.is_empty() {
                    let kind = self.kind.word();
                    tracing::warn!(path = %path.display(), kind, "a file of resources is not there");
                    self.problem(None, format!("{}: the file is not there", path.display()));
                }
                return false;
            }
            Err(error) => {
                self.counts.attempt += 1;
                self.counts.failure += 1;
                tracing::error!(path = %path.display(), %error, "a file of resources cannot be read");
                self.problems.clear();
                self.problem(None, format!("{}: {error}", path.display()));
                return false;
            }
        };
        self.counts.attempt += 1;
        if self.seen.as_ref().is_some_and(|seen| seen.bytes == bytes) {
            if self.problems.is_empty() {
                self.counts.success += 1;
            }
            return false;
        }
        let document = Arc::new(Document { path, bytes });
        self.seen = Some(Arc::clone(&document));
        self.waiting = false;
        self.problems.clear();
        let known: HashMap<u128, &Accepted> =
            self.accepted.values().map(|it| (it.entry.hash, it)).collect();
        let known = |hash| known.get(&hash).map(|it| it.entry.clone());
        match resource::read(&document, self.kind, context, &known) {
            Ok(read) => self.take(read),
            Err(diagnostics) => {
                self.counts.failure += 1;
                self.tell(None, &diagnostics);
                true
            }
        }
    }

    /// Takes over what is good; of what is not, the last good one stays.
    fn take(&mut self, read: Read) -> bool {
        let Read { version, entries, rejected, warnings } = read;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let is_empty = entries.is_empty() && rejected.is_empty();
        let now = clock::wall();
        let mut next = BTreeMap::new();
        for entry in entries {
            let before = self.accepted.get(&entry.name).filter(|it| it.entry.hash == entry.hash);
            let accepted = match before {
                Some(before) => Accepted { entry, ..before.clone() },
                None => Accepted { entry, version: version.clone(), updated: now },
            };
            next.insert(Arc::clone(&accepted.entry.name), accepted);
        }
        let is_whole = rejected.is_empty() && self.has_wanted(&next, is_empty);
        self.keep_last_good(&rejected, &mut next);
        for Rejected { name, diagnostics, .. } in rejected {
            self.tell(name, &diagnostics);
        }
        let changed = next.len() != self.accepted.len()
            || next
                .iter()
                .zip(&self.accepted)
                .any(|(new, old)| new.0 != old.0 || new.1.entry.hash != old.1.entry.hash);
        self.accepted = next;
        self.counts.empty += u64::from(is_empty);
        self.counts.reload += u64::from(changed);
        self.seen_version.clone_from(&version);
        if is_whole {
            self.counts.success += 1;
            self.version = version;
            self.updated = Some(now);
        } else {
            self.counts.rejected += 1;
        }
        true
    }

    /// A list of one has to have the one that is wanted, unless it is empty.
    fn has_wanted(&mut self, next: &BTreeMap<Arc<str>, Accepted>, is_empty: bool) -> bool {
        let Some(wanted) = self.wanted.clone() else { return true };
        if is_empty || next.contains_key(&wanted) {
            return true;
        }
        let path = self.source.path.display();
        let word = self.kind.word();
        let text = format!("{path}: there is no {word} `{wanted}`");
        tracing::error!("{text}");
        self.problem(Some(wanted.to_string()), text);
        false
    }

    fn keep_last_good(&self, rejected: &[Rejected], next: &mut BTreeMap<Arc<str>, Accepted>) {
        // Who has no name that can be read may be any of those that are missing.
        let is_unknown = rejected.iter().any(|it| it.name.is_none());
        let stays = |name: &Arc<str>| {
            self.wanted.is_some()
                || is_unknown
                || rejected.iter().any(|it| it.name.as_deref() == Some(&**name))
        };
        for (name, accepted) in self.accepted.iter().filter(|(name, _)| stays(name)) {
            next.entry(Arc::clone(name)).or_insert_with(|| accepted.clone());
        }
        if let Some(wanted) = &self.wanted {
            next.retain(|name, _| name == wanted);
        }
    }

    /// Says what is wrong, in the log and to whoever asks.
    pub(super) fn tell(&mut self, name: Option<String>, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            if diagnostic.is_error() {
                tracing::error!("{diagnostic}");
            } else {
                tracing::warn!("{diagnostic}");
            }
        }
        let first = diagnostics.iter().find(|it| it.is_error()).map(ToString::to_string);
        let first = first.unwrap_or_default();
        self.problem(name, first.lines().next().unwrap_or_default().to_owned());
    }

    /// Remembers what is wrong until the file is read again.
    pub(in super::super) fn problem(&mut self, name: Option<String>, text: String) {
        self.problems.push(Problem { name, text, at: clock::wall() });
    }
}

/// The bytes of a file.
///
/// # Errors
/// When it is no file, is too long, or cannot be read.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::other("this is not a regular file"));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read(path)
}

impl Accepted {
    /// The listener it is, if it is one.
    pub(super) fn listener(&self) -> Option<&Arc<Listener>> {
        match &self.entry.resource {
            Resource::Listener(listener) => Some(listener),
            Resource::Cluster(_) | Resource::Endpoints(_) | Resource::Routes(_) => None,
        }
    }

    /// The endpoints it says, if it does.
    pub(super) fn endpoints(&self) -> Option<&[EndpointConfig]> {
        match &self.entry.resource {
            Resource::Endpoints(assignment) => Some(&assignment.endpoints),
            Resource::Cluster(_) | Resource::Listener(_) | Resource::Routes(_) => None,
        }
    }
}

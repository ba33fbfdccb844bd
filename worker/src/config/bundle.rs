//! What a generation serves, as bytes: its configuration with all resources that came from files.
//!
//! Files change while a generation serves, and a mistake in one leaves the last good resource in use. So the
//! files alone do not say what is served; a bundle does. It goes to the next generation, and it is what a
//! moving connection means by its configuration.
//!
//! ```text
//!   "BATONSET" | record { path, bytes of the configuration,
//!                         paths and bytes of the documents,
//!                         resources: record { kind, name, version, document, position }* }
//! ```
//! The layout is that of [`baton_contract::record`]: a reader skips what it does not know.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use baton_contract::record::{Reader, RecordError, Writer};

use super::{
    cluster::{Assignment, Cluster, Discovery},
    diagnostics::{Diagnostic, Severity},
    hcm::{HttpConnectionManager, Routes},
    kind::{Kind, Resource},
    listener::{FilterChain, Listener, NetworkFilter},
    load::{LoadOptions, Loaded, Source, load_file},
    model::Bootstrap,
    resource::{self, Context, Document, Entry},
};

/// What a bundle begins with. No text in YAML or JSON that is a configuration does.
const MAGIC: &[u8] = b"BATONSET";
/// The kind of the record that a bundle is.
const SET: u16 = 1;
/// The kind of the record that a resource is.
const RESOURCE: u16 = 2;
/// The version this program writes, and the newest it reads.
const VERSION: u16 = 1;

/// Fields of the bundle.
mod set {
    pub(super) const PATH: u16 = 1;
    pub(super) const BYTES: u16 = 2;
    pub(super) const DOCUMENT_PATHS: u16 = 3;
    pub(super) const DOCUMENTS: u16 = 4;
    pub(super) const RESOURCES: u16 = 5;
}

/// Fields of a resource.
mod field {
    pub(super) const KIND: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const VERSION: u16 = 3;
    pub(super) const DOCUMENT: u16 = 4;
    pub(super) const POSITION: u16 = 5;
}

/// Why bytes are no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// They do not begin like one.
    #[error("these bytes are no bundle of resources")]
    Alien,
    /// A newer program made it, in a layout of its own.
    #[error("the bundle has version {0}, this program reads up to {VERSION}")]
    Newer(u16),
    /// It is damaged.
    #[error("the bundle of resources is damaged")]
    Record(#[from] RecordError),
}

/// A resource in a bundle.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version of the file it came from, when it did.
    pub version: String,
    /// The file.
    pub document: Arc<Document>,
    /// Its position in the list of `resources` there, from 0.
    pub position: usize,
}

/// A bundle that was read.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The configuration without the resources.
    pub source: Source,
    /// The resources in the order in which they were written.
    pub resources: Vec<Stored>,
}

/// Whether bytes are a bundle and no configuration file.
pub fn is_bundle(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Makes a bundle: a configuration, and each resource with its version. Each document is written once.
pub fn write<'e>(
    source: &Source,
    resources: impl IntoIterator<Item = (&'e Entry, &'e str)>,
) -> Vec<u8> {
    let mut numbers: HashMap<*const Document, u64> = HashMap::new();
    let mut documents: Vec<&Document> = Vec::new();
    let mut records = Vec::new();
    for (entry, version) in resources {
        let number = *numbers.entry(Arc::as_ptr(&entry.document)).or_insert_with(|| {
            documents.push(&entry.document);
            documents.len() as u64 - 1
        });
        let mut record = Writer::new(RESOURCE, VERSION);
        record
            .number(field::KIND, number_of(entry.kind))
            .text(field::NAME, &entry.name)
            .optional()
            .text(field::VERSION, version)
            .critical()
            .number(field::DOCUMENT, number)
            .number(field::POSITION, entry.position as u64);
        records.push(record.finish());
    }
    let paths: Vec<String> = documents.iter().map(|it| it.path.display().to_string()).collect();
    let mut set = Writer::new(SET, VERSION);
    set.text(set::PATH, &source.path.display().to_string())
        .bytes(set::BYTES, &source.bytes)
        .list(set::DOCUMENT_PATHS, paths.iter().map(String::as_bytes))
        .list(set::DOCUMENTS, documents.iter().map(|document| document.bytes.as_slice()))
        .list(set::RESOURCES, records.iter().map(Vec::as_slice));
    [MAGIC, &set.finish()].concat()
}

/// Reads a bundle; what is in its files is not looked at.
///
/// # Errors
/// When the bytes are no bundle that this program reads.
pub fn read(bytes: &[u8]) -> Result<Bundle, BundleError> {
    let bytes = bytes.strip_prefix(MAGIC).ok_or(BundleError::Alien)?;
    let mut set = Reader::new(bytes)?;
    if set.kind != SET {
        return Err(BundleError::Alien);
    }
    if set.version > VERSION {
        return Err(BundleError::Newer(set.version));
    }
    let path = PathBuf::from(set.text(set::PATH)?);
    let source = Source { path, bytes: set.bytes(set::BYTES)?.to_vec() };
    let paths = set.list(set::DOCUMENT_PATHS)?;
    let contents = set.list(set::DOCUMENTS)?;
    let records = set.list(set::RESOURCES)?;
    set.finish()?;
    if paths.len() != contents.len() {
        return Err(RecordError::Malformed(set::DOCUMENT_PATHS).into());
    }
    let document = |(path, bytes): (&&[u8], &&[u8])| {
        let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
        Arc::new(Document { path, bytes: bytes.to_vec() })
    };
    let documents: Vec<Arc<Document>> = paths.iter().zip(&contents).map(document).collect();
    let stored = records.into_iter().map(|record| stored(record, &documents));
    let resources = stored.collect::<Result<_, RecordError>>()?;
    Ok(Bundle { source, resources })
}

fn stored(bytes: &[u8], documents: &[Arc<Document>]) -> Result<Stored, RecordError> {
    let mut record = Reader::new(bytes)?;
    let kind = kind_of(record.number(field::KIND)?).ok_or(RecordError::Malformed(field::KIND))?;
    let name = record.text(field::NAME)?.to_owned();
    let version = record.maybe_bytes(field::VERSION).unwrap_or_default();
    let version = String::from_utf8_lossy(version).into_owned();
    let document = documents.get(record.narrow::<usize>(field::DOCUMENT)?);
    let document = Arc::clone(document.ok_or(RecordError::Malformed(field::DOCUMENT))?);
    let position = record.narrow(field::POSITION)?;
    record.finish()?;
    Ok(Stored { kind, name, version, document, position })
}

fn number_of(kind: Kind) -> u64 {
    match kind {
        Kind::Cluster => 1,
        Kind::ClusterLoadAssignment => 2,
        Kind::Listener => 3,
        Kind::RouteConfiguration => 4,
    }
}

fn kind_of(number: u64) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| number_of(*kind) == number)
}

impl Bundle {
    /// The resources as they were, in the same order, each with its version.
    ///
    /// # Errors
    /// What is wrong with those that are not good any more: another program may be stricter.
    pub fn entries(&self, context: &Context<'_>) -> Result<Vec<(Entry, &str)>, Vec<Diagnostic>> {
        // By document, kind and position.
        let mut found: HashMap<(*const Document, Kind, usize), Entry> = HashMap::new();
        let mut read: Vec<(*const Document, Kind)> = Vec::new();
        let mut problems = Vec::new();
        for stored in &self.resources {
            let key = (Arc::as_ptr(&stored.document), stored.kind);
            if read.contains(&key) {
                continue;
            }
            read.push(key);
            match resource::read(&stored.document, stored.kind, context, &|_| None) {
                Ok(content) => {
                    for entry in content.entries {
                        found.insert((key.0, key.1, entry.position), entry);
                    }
                    problems.extend(content.rejected.into_iter().flat_map(|it| it.diagnostics));
                }
                Err(list) => problems.extend(list),
            }
        }
        let mut entries = Vec::new();
        for stored in &self.resources {
            let key = (Arc::as_ptr(&stored.document), stored.kind, stored.position);
            match found.remove(&key).filter(|entry| *entry.name == *stored.name) {
                Some(entry) => entries.push((entry, stored.version.as_str())),
                None => {
                    let path = stored.document.path.display().to_string();
                    let text = format!("`{}` is not good here", stored.name);
                    problems.insert(0, problem(path, text));
                    return Err(problems);
                }
            }
        }
        Ok(entries)
    }
}

/// A mistake without a line.
fn problem(path: String, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        path,
        line: 1,
        column: 1,
        length: 1,
        message,
        field: String::new(),
        hints: Vec::new(),
        source_line: String::new(),
    }
}

/// Reads a configuration file, as [`super::load::load`] does, or a bundle as one configuration: its
/// clusters and listeners are all there are, those of the file first, with the endpoints and routes of the
/// bundle in their places. What has none there has none.
///
/// # Errors
/// What is wrong with the configuration, or that a resource is not good any more.
pub fn load(source: &Source, options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    if !is_bundle(&source.bytes) {
        return load_file(source, options, &[]);
    }
    let path = source.path.display().to_string();
    let bundle = read(&source.bytes).map_err(|error| vec![problem(path, error.to_string())])?;
    let clusters = bundle.resources.iter().filter(|stored| stored.kind == Kind::Cluster);
    let clusters: Vec<&str> = clusters.map(|stored| stored.name.as_str()).collect();
    let mut loaded = load_file(&bundle.source, options, &clusters)?;
    let context = Context { bootstrap: &loaded.bootstrap, options };
    let entries = bundle.entries(&context)?;
    let whole = Assembly { context, entries: &entries }.bootstrap()?;
    loaded.bootstrap = Arc::new(whole);
    Ok(loaded)
}

/// Puts resources where those who refer to them look for them.
struct Assembly<'a> {
    context: Context<'a>,
    entries: &'a [(Entry, &'a str)],
}

impl Assembly<'_> {
    fn bootstrap(&self) -> Result<Bootstrap, Vec<Diagnostic>> {
        let mut whole = self.context.bootstrap.clone();
        for (entry, _) in self.entries {
            whole.shows_upstream_local |= entry.shows_upstream_local;
            match &entry.resource {
                Resource::Cluster(cluster) => whole.clusters.push(Arc::clone(cluster)),
                Resource::Listener(listener) => whole.listeners.push(Arc::clone(listener)),
                Resource::Endpoints(_) | Resource::Routes(_) => {}
            }
        }
        for cluster in &mut whole.clusters {
            if let Some(assignment) = self.endpoints_of(cluster) {
                Arc::make_mut(cluster).endpoints.clone_from(&assignment.endpoints);
            }
        }
        for listener in &mut whole.listeners {
            self.listener(Arc::make_mut(listener))?;
        }
        Ok(whole)
    }

    fn endpoints_of(&self, cluster: &Cluster) -> Option<&Arc<Assignment>> {
        let Discovery::Eds(eds) = &cluster.discovery else { return None };
        self.entries.iter().find_map(|(entry, _)| match &entry.resource {
            Resource::Endpoints(assignment)
                if entry.document.path == eds.source.path
                    && assignment.name == eds.service_name =>
            {
                Some(assignment)
            }
            Resource::Cluster(_)
            | Resource::Endpoints(_)
            | Resource::Listener(_)
            | Resource::Routes(_) => None,
        })
    }

    fn listener(&self, listener: &mut Listener) -> Result<(), Vec<Diagnostic>> {
        let chains = listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain);
        for chain in chains {
            self.chain(Arc::make_mut(chain))?;
        }
        Ok(())
    }

    fn chain(&self, chain: &mut FilterChain) -> Result<(), Vec<Diagnostic>> {
        for filter in &mut chain.filters {
            if let NetworkFilter::HttpConnectionManager(manager) = filter
                && let Some(routes) = self.routes_of(manager)?
            {
                Arc::make_mut(manager).routes = routes;
            }
        }
        Ok(())
    }

    fn routes_of(
        &self,
        manager: &HttpConnectionManager,
    ) -> Result<Option<Routes>, Vec<Diagnostic>> {
        let Routes::Rds(rds) = &manager.routes else { return Ok(None) };
        let is_meant = |entry: &&Entry| {
            entry.kind == Kind::RouteConfiguration
                && entry.document.path == rds.source.path
                && *entry.name == *rds.name
        };
        let Some(entry) = self.entries.iter().map(|(entry, _)| entry).find(is_meant) else {
            return Ok(None);
        };
        let bound = resource::routes_for(entry, manager, &self.context)?;
        Ok(Some(Routes::Static(bound.routes)))
    }
}

#[cfg(test)]
mod tests;

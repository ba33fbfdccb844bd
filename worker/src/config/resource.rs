//! Files of resources: what `path_config_source` names.
//!
//! Such a file is a `DiscoveryResponse` in YAML or JSON: a list of `resources`, each with its `@type`.
//! Each is judged by itself, with the same checks as if it stood in the configuration: one with a mistake
//! is refused with the line of the mistake, and the others are good. What did not change since the file
//! was read last is neither parsed nor checked again.
//!
//! ```text
//!   bytes ──cut──▶ items ──hash──▶ known: the entry of before
//!     │              └───────────▶ new: parse, decode, check, lower ──▶ entry, or refused
//!     └── not certain how to cut: parse the whole file ──▶ items
//! ```

mod content;
mod cut;
mod dump;
mod judge;

use std::{path::PathBuf, sync::Arc};

pub use self::{
    dump::{Bound, json, routes_for},
    judge::read,
};
pub use super::kind::{Kind, Resource};

use super::{diagnostics::Diagnostic, load::LoadOptions, model::Bootstrap};

/// Largest file of resources, bytes.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A file as it was read.
#[derive(Debug, Eq, PartialEq)]
pub struct Document {
    /// Its path as the configuration names it; shown in messages.
    pub path: PathBuf,
    /// What was in it.
    pub bytes: Vec<u8>,
}

/// A resource that can be used.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its name, by which others refer to it. A listener without one has its address for it.
    pub name: Arc<str>,
    /// Identifies its text. Equal ones mean equal resources; the same resource may have another one when
    /// the file is written in another style.
    pub hash: u128,
    /// Where it came from last.
    pub document: Arc<Document>,
    /// Its position in the list of `resources` there, from 0.
    pub position: usize,
    /// Its content. As long as the text is the same, this is the same `Arc`.
    pub resource: Resource,
    /// A log or a header of it shows our own address towards endpoints, as in
    /// [`Bootstrap::shows_upstream_local`].
    pub shows_upstream_local: bool,
    needs_user: bool,
    /// Where in the document; `None` = it was parsed as a whole.
    piece: Option<cut::Piece>,
}

/// A resource that cannot be used.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Its name, when that could be told: a resource that has been good under this name stays.
    pub name: Option<String>,
    /// Its position in the list of `resources`, from 0.
    pub position: usize,
    /// What is wrong with it; warnings are among them.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a file of resources says.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// `version_info`; empty when there is none.
    pub version: String,
    /// The good ones, in the order of the file, no name twice.
    pub entries: Vec<Entry>,
    /// The others.
    pub rejected: Vec<Rejected>,
    /// What the user should know about the good ones; only about those that were not known before.
    pub warnings: Vec<Diagnostic>,
}

/// What resources are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The configuration that names the file. Its static clusters and listeners cannot be replaced, and
    /// its names of clusters get more.
    pub bootstrap: &'a Bootstrap,
    /// How that was read.
    pub options: &'a LoadOptions,
}

#[cfg(test)]
mod tests;

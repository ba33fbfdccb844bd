//! What the admin interface knows of listeners and of resources that come from files.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use crate::config::{kind::Kind, listener::Listener, resource::Entry};

/// A moment of it.
#[derive(Debug, Default)]
pub struct View {
    /// The listeners there are.
    pub listeners: Vec<Arc<Listener>>,
    /// The files that resources come from.
    pub files: Vec<File>,
}

/// A file of resources.
#[derive(Debug)]
pub struct File {
    /// What it has.
    pub kind: Kind,
    /// Its path.
    pub path: PathBuf,
    /// `version_info` of what was read last and used, at least in part.
    pub version: String,
    /// What is used of it.
    pub resources: Vec<Shown>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// Nothing came yet, and it is waited for.
    pub is_awaited: bool,
}

/// A resource that is used.
#[derive(Debug)]
pub struct Shown {
    /// The resource.
    pub entry: Entry,
    /// `version_info` of the file when it changed last.
    pub version: String,
    /// When it changed last.
    pub updated: SystemTime,
}

/// What is wrong with a resource, or with a file as a whole.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The resource, if it is one and has a name.
    pub name: Option<String>,
    /// The first line of the message: file, line, column and what is wrong.
    pub text: String,
    /// When it was found.
    pub at: SystemTime,
}

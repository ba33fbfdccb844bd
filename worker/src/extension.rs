//! Extensions: each in a file of its own, which holds its names, its fields, how it is configured and
//! what it does. `docs/EXTENSIONS.md` says how to write one.

use crate::config::{extension::Extensions, load::LoadOptions};

pub mod http;

/// All of them.
pub const ALL: Extensions = Extensions { http: http::KNOWN };

/// How a configuration is read when nothing else is wanted.
pub fn load_options() -> LoadOptions {
    LoadOptions { extensions: ALL, ..LoadOptions::default() }
}

//! The way in: a file's bytes become a validated [`Bootstrap`], or a list of what is wrong.

use std::{path::PathBuf, sync::Arc};

use super::{
    diagnostics::{Diagnostic, Severity},
    model::Bootstrap,
};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path as the user gave it; only shown in messages and used to find files named in it.
    pub path: PathBuf,
    /// What the file holds.
    pub bytes: Vec<u8>,
}

/// How a configuration is read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// A field baton does not implement yet is a warning instead of an error.
    pub allow_unimplemented: bool,
    /// Replace `${VAR}` and `${VAR:-default}` by environment variables.
    pub expand_env: bool,
    /// YAML of `--config-yaml`, laid over the file; its values win.
    pub overlay: Option<String>,
}

/// A configuration that can be served.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub bootstrap: Arc<Bootstrap>,
    /// What the user should know all the same.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a configuration.
///
/// # Errors
/// Every mistake that was found, in the order of the file; warnings are among them.
pub fn load(source: &Source, _options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    if std::str::from_utf8(&source.bytes).is_err() {
        return Err(vec![Diagnostic {
            severity: Severity::Error,
            path: source.path.display().to_string(),
            line: 1,
            column: 1,
            length: 1,
            message: "the file is not UTF-8".into(),
            field: String::new(),
            hints: Vec::new(),
            source_line: String::new(),
        }]);
    }
    Ok(Loaded { bootstrap: Arc::new(Bootstrap::default()), warnings: Vec::new() })
}

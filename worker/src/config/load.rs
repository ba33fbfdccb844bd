//! The way in: a file's bytes become a validated [`Bootstrap`], or a list of what is wrong.

use std::{cell::RefCell, path::PathBuf, sync::Arc};

use super::{
    decode::Decoder,
    diagnostics::Diagnostic,
    dump,
    extension::Extensions,
    foreign, lower,
    message::Msg,
    model::Bootstrap,
    overlay,
    schema::Schema,
    source::{At, Path, Report, Span},
    support, yaml,
    yaml::Node,
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
    /// Extensions that the file may name; `extension::ALL` are those there are.
    pub extensions: Extensions,
}

/// A configuration that can be served.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub bootstrap: Arc<Bootstrap>,
    /// What the user should know all the same.
    pub warnings: Vec<Diagnostic>,
}

/// The message a configuration is.
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// What `--config-yaml` is called in messages.
const OVERLAY: &str = "<config-yaml>";

/// Reads and checks a configuration. [`super::bundle::load`] also reads what is handed over.
///
/// # Errors
/// Every mistake that was found, in the order of the file; warnings are among them.
pub fn load(source: &Source, options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    load_file(source, options, &[])
}

/// Reads and checks a file. Clusters of these names come behind those of the file.
pub(super) fn load_file(
    source: &Source,
    options: &LoadOptions,
    more_clusters: &[&str],
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::default();
    let Some(message) = decode(source, options, &mut report) else { return Err(report.finish()) };
    support::check(&message, options, &report);
    let mut bootstrap = {
        let how = (options.allow_unimplemented, options.extensions);
        lower::lower(&message, how, more_clusters, &report)
    };
    bootstrap.dump = Dump(Some(Arc::new((source.clone(), options.clone()))));
    if report.has_errors() {
        return Err(report.finish());
    }
    Ok(Loaded { bootstrap: Arc::new(bootstrap), warnings: report.finish() })
}

/// What `/config_dump` shows, made when it is asked for: it is several times the size of the file,
/// and most processes are never asked.
#[derive(Clone, Debug, Default)]
pub struct Dump(Option<Arc<(Source, LoadOptions)>>);

impl Dump {
    /// The configuration as Envoy's `ConfigDump`, secrets redacted. Reads the file's bytes anew.
    pub fn json(&self) -> serde_json::Value {
        let Some((source, options)) = self.0.as_deref() else { return serde_json::Value::Null };
        let message = decode(source, options, &mut Report::default());
        message.map_or(serde_json::Value::Null, |message| dump::config_dump(&message))
    }
}

/// From bytes to a message of Envoy's; `None` when that is not possible, which was reported.
fn decode(source: &Source, options: &LoadOptions, report: &mut Report) -> Option<Msg> {
    let root = read(source, options, report)?;
    let schema = Schema::new(options.extensions);
    let ty = schema.message(BOOTSTRAP)?;
    let parents = RefCell::default();
    Decoder { schema: &schema, report, parents: &parents }.document(&root, &ty)
}

/// From bytes to one tree.
fn read(source: &Source, options: &LoadOptions, report: &mut Report) -> Option<Node> {
    let name = source.path.display().to_string();
    let mut root = match std::str::from_utf8(&source.bytes) {
        Ok(text) => {
            let index = report.add_source(name, text);
            if foreign::check(text, index, report) {
                return None;
            }
            yaml::parse(text, index, report)?
        }
        Err(error) => {
            not_utf8(name, &source.bytes, error.valid_up_to(), report);
            return None;
        }
    };
    if let Some(text) = &options.overlay {
        let index = report.add_source(OVERLAY.to_owned(), text);
        root = overlay::merge(root, yaml::parse(text, index, report)?);
    }
    if options.expand_env {
        overlay::expand(&mut root, &Path::default(), report);
    }
    Some(root)
}

/// Reports a file that is no text.
pub(super) fn not_utf8(name: String, bytes: &[u8], offset: usize, report: &mut Report) {
    let text = String::from_utf8_lossy(bytes);
    let source = report.add_source(name, &text);
    let before = bytes.get(..offset).unwrap_or_default();
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let span = Span { source, line: number(line), column: number(column), length: 1 };
    let at = At { span, path: Path::default() };
    report
        .error(&at, format!("the file is not UTF-8 at byte {offset}"))
        .hint("save it as UTF-8; is it a configuration at all?");
}

#[cfg(test)]
mod tests;

//! Where resources come from that do not stand in the file.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::{
        message::{Msg, Value},
        source::At,
        subscription::{Dynamic, EdsSource, FileSource, RdsSource},
        yaml::shorten,
    },
    Lower,
};

/// Envoy's default.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether `dynamic_resources` asks for clusters from somewhere, be it implemented or not.
pub(super) fn asks_for_clusters(root: &Msg) -> bool {
    let message = root.peek("dynamic_resources").and_then(|set| set.item.message());
    let is_other = |message: &Msg| {
        let names = message.fields.iter().filter_map(|set| message.field(set)).map(|f| f.name);
        names.into_iter().any(|name| name != "lds_config")
    };
    root.mentions("dynamic_resources")
        && message.is_none_or(|message| !message.broken.is_empty() || is_other(message))
}

impl Lower<'_> {
    /// `dynamic_resources`; a source that is not implemented was reported, and is left out.
    pub(super) fn dynamic(&self, root: &Msg) -> Dynamic {
        let Some(message) = root.message("dynamic_resources") else { return Dynamic::default() };
        let source = |name| message.message(name).and_then(|source| self.file_source(source));
        Dynamic { clusters: source("cds_config"), listeners: source("lds_config") }
    }

    /// `eds_cluster_config` of a cluster of type EDS.
    pub(super) fn eds_source(&self, message: &Msg) -> Option<EdsSource> {
        let config = message.message("eds_cluster_config");
        let Some(source) = config.and_then(|config| config.message("eds_config")) else {
            let is_broken = config.map_or(&message.broken, |config| &config.broken);
            if is_broken.is_empty() {
                let at = config.map_or(&message.at, |config| &config.at);
                self.report.error(at, "a cluster of type EDS needs `eds_config`").hint(
                    "add `eds_cluster_config: { eds_config: { path_config_source: { path: … } } }`",
                );
            }
            return None;
        };
        let source = self.needed_source(source, "endpoints")?;
        let service_name = match config.map_or("", |config| config.text("service_name")) {
            "" => message.text("name"),
            given => given,
        };
        Some(EdsSource { source, service_name: service_name.to_owned() })
    }

    /// `rds` of a connection manager.
    pub(super) fn rds_source(&self, message: &Msg) -> Option<RdsSource> {
        let name = message.text("route_config_name").to_owned();
        if name.is_empty() && message.broken.is_empty() {
            self.report
                .error(&message.at_of("route_config_name"), "`route_config_name` must not be empty")
                .hint("write the `name` of a `RouteConfiguration` in the file");
        }
        let Some(source) = message.message("config_source") else {
            if message.broken.is_empty() {
                self.report
                    .error(&message.at, "`Rds` needs `config_source`")
                    .hint("add `config_source: { path_config_source: { path: … } }`");
            }
            return None;
        };
        Some(RdsSource { name, source: self.needed_source(source, "routes")? })
    }

    /// A source without which there is nothing to serve: it must be a file even when what is not
    /// implemented may be left out.
    fn needed_source(&self, message: &Msg, what: &str) -> Option<FileSource> {
        let source = self.file_source(message);
        let is_file = message.mentions("path") || message.mentions("path_config_source");
        if !is_file && self.allow_unimplemented && message.broken.is_empty() {
            let text = format!("{what} can only come from a file, nothing else is implemented yet");
            self.report.error(&message.at, text).hint("use `path_config_source`");
        }
        source
    }

    /// A `ConfigSource` that is a file. Others are reported as not implemented.
    fn file_source(&self, message: &Msg) -> Option<FileSource> {
        if message.choice("resource_api_version") == Some("V2") {
            self.report
                .error(&message.at_of("resource_api_version"), "there is no version 2 any more")
                .hint("write `resource_api_version: V3`");
        }
        let timeout = self.initial_fetch_timeout(message);
        let inner = message.message("path_config_source");
        let (holder, watched) = match inner {
            Some(inner) => (inner, inner.message("watched_directory")),
            None if message.has("path") => (message, None),
            None => return None,
        };
        let path = self.resource_file(holder.text("path"), &holder.at_of("path"))?;
        let watched = watched.map(|watched| {
            let path = PathBuf::from(watched.text("path"));
            self.watched_directory(&path, &watched.at_of("path"));
            path
        });
        Some(FileSource { path, watched_directory: watched, initial_fetch_timeout: timeout })
    }

    fn initial_fetch_timeout(&self, message: &Msg) -> Option<Duration> {
        let Some(set) = message.get("initial_fetch_timeout") else {
            return Some(INITIAL_FETCH_TIMEOUT);
        };
        if let Value::Duration(value) = set.item.value
            && (value.seconds < 0 || value.nanos < 0)
        {
            self.report
                .error(&set.item.at, "`initial_fetch_timeout` must not be negative")
                .hint("0 waits for ever");
        }
        message.duration("initial_fetch_timeout").filter(|timeout| !timeout.is_zero())
    }

    /// The path of a file that resources come from. It may come into being later, but it must be possible
    /// to wait for that.
    fn resource_file(&self, text: &str, at: &At) -> Option<PathBuf> {
        if text.is_empty() {
            self.report.error(at, "`path` must not be empty");
            return None;
        }
        let mut path = PathBuf::from(text);
        if path.parent().is_none_or(|parent| parent.as_os_str().is_empty()) {
            // So that there is always a directory to look at.
            path = Path::new(".").join(path);
        }
        let shown = shorten(text);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                let text = format!("`{shown}` is a directory");
                self.report.error(at, text).hint("name a file that lists resources");
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(&path);
                if directory.is_dir() {
                    let text = format!("there is no file `{shown}` yet");
                    self.report.warning(at, text).hint("what is in it counts as soon as it comes");
                } else {
                    let text = format!("there is no directory `{}`", directory.display());
                    self.report.error(at, text).hint("make the directory, or name another file");
                }
            }
            Err(error) => {
                self.report.error(at, format!("cannot look at `{shown}`: {error}"));
            }
        }
        Some(path)
    }

    fn watched_directory(&self, path: &Path, at: &At) {
        // The rules report an empty path.
        if !path.is_dir() && !path.as_os_str().is_empty() {
            let text = format!("`{}` is no directory", shorten(&path.display().to_string()));
            self.report.error(at, text).hint("name the directory in which the file is exchanged");
        }
    }
}

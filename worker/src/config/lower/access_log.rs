//! Access logs: sinks, formats and filters.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::{
    super::{
        access_log::{AccessLog, Comparison, JsonNode, LogFilter, LogFormat, Op, Sink},
        message::{Msg, Value},
        source::At,
    },
    Lower, common, matcher,
};

const FILE: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
const STDOUT: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const STDERR: &str = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog";

impl Lower<'_> {
    /// The `access_log` of a message.
    pub(super) fn access_logs(&self, message: &Msg) -> Vec<AccessLog> {
        message.messages("access_log").filter_map(|log| self.access_log(log)).collect()
    }

    /// The log of `admin.access_log_path`.
    pub(super) fn admin_log(&self, path: &str, at: &At) -> Option<AccessLog> {
        if path.is_empty() || path == "/dev/null" {
            return None;
        }
        let format = self.format(crate::format::DEFAULT_HTTP, at)?;
        self.log_path(path, at);
        Some(AccessLog { sink: file(path), format: LogFormat::Text(format), filter: None })
    }

    fn access_log(&self, message: &Msg) -> Option<AccessLog> {
        let Some(config) = message.message("typed_config") else {
            if message.broken.is_empty() {
                let text = format!("access log `{}` needs a `typed_config`", message.text("name"));
                self.report.error(&message.at, text);
            }
            return None;
        };
        let sink = match config.ty.full_name.as_str() {
            FILE => {
                self.log_path(config.text("path"), &config.at_of("path"));
                file(config.text("path"))
            }
            STDOUT => Sink::Stdout,
            STDERR => Sink::Stderr,
            // Reported as not implemented.
            _ => return None,
        };
        let filter = message.message("filter").and_then(|filter| self.filter(filter));
        Some(AccessLog { sink, format: self.log_format(config)?, filter })
    }

    /// Says now what opening the file would say at the start.
    fn log_path(&self, path: &str, at: &At) {
        if let Sink::File(path) = file(path) {
            self.log_file(&path, at);
        }
    }

    fn log_format(&self, config: &Msg) -> Option<LogFormat> {
        let is_file = config.ty.full_name == FILE;
        if is_file && !config.text("format").is_empty() {
            let format = self.format(config.text("format"), &config.at_of("format"))?;
            return Some(LogFormat::Text(format));
        }
        for name in ["json_format", "typed_json_format"] {
            if is_file && config.has(name) {
                return self.json_format(config, name, false);
            }
        }
        let Some(format) = config.message("log_format") else {
            return self.format(crate::format::DEFAULT_HTTP, &config.at).map(LogFormat::Text);
        };
        let omit_empty = format.flag("omit_empty_values").unwrap_or(false);
        if format.has("json_format") {
            return self.json_format(format, "json_format", omit_empty);
        }
        if format.has("text_format") {
            let format = self.format(format.text("text_format"), &format.at_of("text_format"))?;
            return Some(LogFormat::Text(format));
        }
        let source = format.message("text_format_source")?;
        let bytes = self.data(source)?;
        let at = common::chosen(source, "specifier").map_or(&source.at, |(_, set)| &set.item.at);
        let Ok(text) = std::str::from_utf8(&bytes) else {
            self.report.error(at, "the format is not UTF-8");
            return None;
        };
        self.format(text, at).map(LogFormat::Text)
    }

    fn json_format(&self, message: &Msg, name: &str, omit_empty: bool) -> Option<LogFormat> {
        let set = message.get(name)?;
        let Value::Json(json) = &set.item.value else { return None };
        Some(LogFormat::Json { fields: self.json_node(json, &set.item.at)?, omit_empty })
    }

    fn json_node(&self, json: &Json, at: &At) -> Option<JsonNode> {
        match json {
            Json::Object(entries) => {
                let fields = entries.iter().map(|(key, value)| {
                    let at = At { span: at.span, path: at.path.key(key) };
                    Some((key.clone(), self.json_node(value, &at)?))
                });
                Some(JsonNode::Object(fields.collect::<Option<_>>()?))
            }
            Json::Array(items) => {
                let items = items.iter().map(|item| self.json_node(item, at));
                Some(JsonNode::Array(items.collect::<Option<_>>()?))
            }
            Json::String(text) => self.format(text, at).map(JsonNode::Format),
            Json::Null | Json::Bool(_) | Json::Number(_) => Some(JsonNode::Literal(json.clone())),
        }
    }

    fn filter(&self, message: &Msg) -> Option<LogFilter> {
        let (field, set) = common::chosen(message, "filter_specifier")?;
        let inner = set.item.message()?;
        let filters = || inner.messages("filters").filter_map(|m| self.filter(m)).collect();
        Some(match field {
            "status_code_filter" => LogFilter::Status(comparison(inner.message("comparison")?)),
            "duration_filter" => LogFilter::Duration(comparison(inner.message("comparison")?)),
            "not_health_check_filter" => LogFilter::NotHealthCheck,
            "traceable_filter" => LogFilter::Traceable,
            "runtime_filter" => LogFilter::Fraction(
                inner.message("percent_sampled").map_or(0, matcher::parts_per_million),
            ),
            "and_filter" => LogFilter::And(filters()),
            "or_filter" => LogFilter::Or(filters()),
            "header_filter" => {
                LogFilter::Header(Box::new(self.header_matcher(inner.message("header")?)?))
            }
            "response_flag_filter" => {
                let flags = inner.items("flags").iter().map(|item| item.text().to_owned());
                LogFilter::ResponseFlag(flags.collect())
            }
            _ => return None,
        })
    }
}

/// The devices of a container's log are written as the streams they are.
fn file(path: &str) -> Sink {
    match path {
        "/dev/stdout" => Sink::Stdout,
        "/dev/stderr" => Sink::Stderr,
        path => Sink::File(PathBuf::from(path)),
    }
}

fn comparison(message: &Msg) -> Comparison {
    let op = match message.choice("op") {
        Some("GE") => Op::Ge,
        Some("LE") => Op::Le,
        Some("NE") => Op::Ne,
        _ => Op::Eq,
    };
    let value = message.message("value").and_then(|value| value.uint32("default_value"));
    Comparison { op, value: value.unwrap_or(0) }
}

//! Access logs (`envoy.config.accesslog.v3`).

use std::{fmt, path::PathBuf};

use super::matcher::HeaderMatcher;
use crate::format::Format;

/// One access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: Sink,
    /// How a line looks.
    pub format: LogFormat,
    /// Which requests are logged; `None` = all.
    pub filter: Option<LogFilter>,
}

/// The destination of an access log.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Sink {
    /// `FileAccessLog.path`.
    File(PathBuf),
    /// `StdoutAccessLog`.
    Stdout,
    /// `StderrAccessLog`.
    Stderr,
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
        }
    }
}

/// Text or JSON.
#[derive(Clone, Debug)]
pub enum LogFormat {
    /// `text_format_source` or the default format.
    Text(Format),
    /// `json_format`: keys in order; `omit_empty_values` in the flag.
    Json {
        /// The object.
        fields: JsonNode,
        /// Leave out fields whose value is missing.
        omit_empty: bool,
    },
}

/// A node of a JSON format.
#[derive(Clone, Debug)]
pub enum JsonNode {
    /// An object, keys in order.
    Object(Vec<(String, Self)>),
    /// An array.
    Array(Vec<Self>),
    /// A string with operators.
    Format(Format),
    /// A literal number or boolean.
    Literal(serde_json::Value),
}

/// Envoy's `AccessLogFilter`.
#[derive(Clone, Debug)]
pub enum LogFilter {
    /// `status_code_filter`.
    Status(Comparison),
    /// `duration_filter`, milliseconds.
    Duration(Comparison),
    /// `not_health_check_filter`.
    NotHealthCheck,
    /// `traceable_filter`.
    Traceable,
    /// `header_filter`.
    Header(Box<HeaderMatcher>),
    /// `response_flag_filter`: any of these; empty = any flag at all.
    ResponseFlag(Vec<String>),
    /// `runtime_filter`, its default share in parts of a million.
    Fraction(u32),
    /// `and_filter`.
    And(Vec<Self>),
    /// `or_filter`.
    Or(Vec<Self>),
}

/// Envoy's `ComparisonFilter` with the runtime key's default value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Comparison {
    /// `op`.
    pub op: Op,
    /// `value.default_value`.
    pub value: u32,
}

/// The operator of a [`Comparison`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// `EQ`.
    Eq,
    /// `GE`.
    Ge,
    /// `LE`.
    Le,
    /// `NE`.
    Ne,
}

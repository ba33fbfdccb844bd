//! Format strings: text with Envoy's `%...%` command operators, for access logs and headers.

/// One part of a format string.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text between operators; `%%` already turned into `%`.
    Text(Box<str>),
}

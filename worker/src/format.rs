//! Format strings: text with Envoy's `%...%` command operators, for access logs and headers.
//!
//! A string is parsed once, when the configuration is loaded; every mistake is found then.
//! Evaluation writes into a buffer the caller reuses and allocates nothing in the usual case.
//! What a line looks like as JSON is decided by `access_log::json`, not here.

mod error;
mod escape;
mod evaluate;
mod operator;
mod parse;
#[cfg(test)]
mod tests;
mod time;

use std::sync::Arc;

use crate::http::stream_info::LogContext;

pub use error::{FormatError, Mistake};
pub(crate) use evaluate::Outcome;
pub use operator::{Address, AddressPart, Duration, Kind, Operator, PathSource};
pub use parse::parse;
pub use time::{DAYS, MONTHS, TimeFormat, TimeItem};

/// Envoy's format of an HTTP access log line when the configuration gives none.
pub const DEFAULT_HTTP: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
);

/// A parsed format string: `%...%` operators and text between them.
///
/// Cheap to clone. Made by [`parse()`]; what an operator means is decided there.
#[derive(Clone, Debug)]
pub struct Format {
    /// The text as configured, for `/config_dump` and messages.
    pub source: Arc<str>,
    /// Its parts, in order.
    pub parts: Arc<[Part]>,
}

/// One part of a format string.
#[derive(Clone, Debug)]
pub enum Part {
    /// Text between operators; `%%` already turned into `%`.
    Text(Box<str>),
    /// A command operator.
    Operator(Operator),
}

/// What stands in the place of a value that is not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// `-`, the rule of access logs.
    Dash,
    /// Nothing, the rule of headers and of `omit_empty_values`.
    Nothing,
}

impl Format {
    /// Appends the text of a log line. Missing values are `-`; bytes that could forge a second
    /// line or the end of a quoted value, or are not UTF-8, are written as `\xHH`.
    pub fn write(&self, out: &mut Vec<u8>, cx: &LogContext<'_>) {
        for part in self.parts.iter() {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Operator(operator) => {
                    let start = out.len();
                    match operator.evaluate(out, cx) {
                        Outcome::Missing => out.push(b'-'),
                        Outcome::Number => {}
                        Outcome::Text => escape::tail(out, start),
                    }
                }
            }
        }
    }

    /// Appends the value of a header. Missing values are empty and nothing is escaped: header
    /// values were checked when they were parsed.
    pub fn write_value(&self, out: &mut Vec<u8>, cx: &LogContext<'_>) {
        self.write_raw(out, cx, Missing::Nothing);
    }

    /// Appends the text with nothing escaped, for those who escape it themselves.
    pub(crate) fn write_raw(&self, out: &mut Vec<u8>, cx: &LogContext<'_>, missing: Missing) {
        for part in self.parts.iter() {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Operator(operator) => match operator.evaluate(out, cx) {
                    Outcome::Missing if missing == Missing::Dash => out.push(b'-'),
                    Outcome::Missing | Outcome::Number | Outcome::Text => {}
                },
            }
        }
    }

    /// Whether it shows our own address towards the endpoint, or a part of it.
    pub fn shows_upstream_local(&self) -> bool {
        let shows =
            |operator: &Operator| matches!(operator.kind, Kind::Address(Address::UpstreamLocal, _));
        self.parts.iter().any(|part| matches!(part, Part::Operator(operator) if shows(operator)))
    }

    /// The text when the format has no operator at all.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The operator when the format is one operator and nothing else.
    pub fn as_operator(&self) -> Option<&Operator> {
        match &*self.parts {
            [Part::Operator(operator)] => Some(operator),
            _ => None,
        }
    }
}

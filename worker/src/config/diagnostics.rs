//! What is wrong with a configuration, where, and what to do about it.
//!
//! A [`Diagnostic`] is self-contained: it carries its line of the source, so it can be rendered far
//! away from the file. The first line of the text form is `path:line:column: severity: message`,
//! which editors and CI systems parse.

use std::fmt::{self, Write as _};

use baton_contract::words::counted;

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The configuration works, but the user should know something.
    Warning,
    /// The configuration is refused.
    Error,
}

impl Severity {
    /// The word in messages: `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing to say about a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file, as the user named it.
    pub path: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column, counted in characters from 1.
    pub column: u32,
    /// How many characters are meant, at least 1.
    pub length: u32,
    /// What is wrong, in one line.
    pub message: String,
    /// Where it is in the configuration, like `static_resources.listeners[0].address`; may be
    /// empty.
    pub field: String,
    /// What to do about it, one sentence each.
    pub hints: Vec<String>,
    /// The line of the source; empty when there is none.
    pub source_line: String,
}

/// Longest part of a source line that is shown, characters. Some files are one long line.
const SHOWN_LINE: usize = 160;

impl Diagnostic {
    /// True for an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Adds a sentence on what to do.
    pub fn hint(&mut self, text: impl Into<String>) -> &mut Self {
        self.hints.push(text.into());
        self
    }

    /// The machine-readable form: `range` is as in the Language Server Protocol (zero-based, end
    /// exclusive), the rest is plain.
    pub fn to_json(&self) -> serde_json::Value {
        let line = self.line.saturating_sub(1);
        let start = self.column.saturating_sub(1);
        serde_json::json!({
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "severity": self.severity.as_str(),
            "message": self.message,
            "field": self.field,
            "hints": self.hints,
            "range": {
                "start": { "line": line, "character": start },
                "end": { "line": line, "character": start.saturating_add(self.length.max(1)) },
            },
        })
    }

    /// The source line and the marker under it.
    fn write_snippet(&self, out: &mut fmt::Formatter<'_>, gutter: usize) -> fmt::Result {
        let column = usize::try_from(self.column.saturating_sub(1)).unwrap_or(0);
        let start = if column > SHOWN_LINE / 2 { column - SHOWN_LINE / 4 } else { 0 };
        let shown: String = self.source_line.chars().skip(start).take(SHOWN_LINE).collect();
        let mut margin = String::new();
        for c in self.source_line.chars().skip(start).take(column - start) {
            margin.push(if c == '\t' { '\t' } else { ' ' });
        }
        let room = shown.chars().count().saturating_sub(column - start).max(1);
        let length = usize::try_from(self.length.max(1)).unwrap_or(1).min(room);
        let printable: String =
            shown.trim_end().chars().map(|c| if is_shown(c) { c } else { '\u{fffd}' }).collect();
        writeln!(out, "{:gutter$} |", "")?;
        writeln!(out, "{:gutter$} | {printable}", self.line)?;
        writeln!(out, "{:gutter$} | {margin}{}", "", "^".repeat(length))
    }
}

/// Control characters must not reach a terminal.
fn is_shown(c: char) -> bool {
    c == '\t' || !c.is_control()
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, line, column) = (&self.path, self.line, self.column);
        writeln!(out, "{path}:{line}:{column}: {}: {}", self.severity.as_str(), self.message)?;
        let gutter = self.line.to_string().len().max(3);
        if !self.source_line.trim().is_empty() {
            self.write_snippet(out, gutter)?;
        }
        if !self.field.is_empty() {
            writeln!(out, "{:gutter$} = in: {}", "", self.field)?;
        }
        for hint in &self.hints {
            writeln!(out, "{:gutter$} = hint: {hint}", "")?;
        }
        Ok(())
    }
}

/// The text form of a list, with a line that counts them at the end.
pub fn render(list: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in list {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{diagnostic}");
    }
    let errors = list.iter().filter(|d| d.is_error()).count();
    let warnings = list.len() - errors;
    let (e, w) = (counted(errors, "error"), counted(warnings, "warning"));
    let _infallible = match (errors, warnings) {
        (0, 0) => Ok(()),
        (0, _) => writeln!(text, "{w}"),
        (_, 0) => writeln!(text, "{e}"),
        (_, _) => writeln!(text, "{e}, {w}"),
    };
    text
}

/// The machine-readable form of a list.
pub fn to_json(list: &[Diagnostic]) -> serde_json::Value {
    serde_json::Value::Array(list.iter().map(Diagnostic::to_json).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic() -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            path: "envoy.yaml".into(),
            line: 27,
            column: 5,
            length: 14,
            message: "unknown field `connect_timout`".into(),
            field: "static_resources.clusters[0]".into(),
            hints: vec!["did you mean `connect_timeout`?".into()],
            source_line: "    connect_timout: 0.25s".into(),
        }
    }

    #[test]
    fn text_form_starts_with_the_position_and_marks_the_word() {
        let expected = "\
envoy.yaml:27:5: error: unknown field `connect_timout`
    |
 27 |     connect_timout: 0.25s
    |     ^^^^^^^^^^^^^^
    = in: static_resources.clusters[0]
    = hint: did you mean `connect_timeout`?
";
        assert_eq!(diagnostic().to_string(), expected);
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let mut long = diagnostic();
        long.source_line = "x".repeat(5000);
        long.column = 4000;
        let text = long.to_string();
        assert!(text.lines().all(|line| line.chars().count() < 200), "{text}");
        assert!(text.contains('^'));
    }

    #[test]
    fn json_form_has_zero_based_ranges() {
        let json = diagnostic().to_json();
        assert_eq!(json["range"]["start"]["line"], 26);
        assert_eq!(json["range"]["end"]["character"], 18);
        assert_eq!(json["severity"], "error");
    }
}

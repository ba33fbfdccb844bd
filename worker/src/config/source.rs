//! Positions: which file, line and column a value came from, and its path in the configuration.

use std::{
    cell::{OnceCell, RefCell, RefMut},
    fmt,
    rc::Rc,
};

use super::diagnostics::{Diagnostic, Severity};

/// A stretch of characters on one line of one source.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Span {
    /// Index of the source in the [`Report`].
    pub(crate) source: u8,
    /// Line, from 1.
    pub(crate) line: u32,
    /// Column in characters, from 1.
    pub(crate) column: u32,
    /// Length in characters.
    pub(crate) length: u32,
}

/// Where a value is in the configuration, as `a.b[0].c`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path(Option<Rc<Step>>);

#[derive(Debug)]
struct Step {
    parent: Path,
    segment: Segment,
}

#[derive(Debug)]
enum Segment {
    Key(String),
    Index(usize),
}

impl Path {
    /// The path of a field.
    pub(crate) fn key(&self, name: &str) -> Self {
        let segment = Segment::Key(name.to_owned());
        Self(Some(Rc::new(Step { parent: self.clone(), segment })))
    }

    /// The path of a list's element.
    pub(crate) fn index(&self, index: usize) -> Self {
        let segment = Segment::Index(index);
        Self(Some(Rc::new(Step { parent: self.clone(), segment })))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else { return Ok(()) };
        fmt::Display::fmt(&step.parent, out)?;
        match &step.segment {
            Segment::Index(index) => write!(out, "[{index}]"),
            Segment::Key(name) if step.parent.0.is_none() => out.write_str(name),
            Segment::Key(name) if name.contains(['.', '@', ' ']) => write!(out, "[\"{name}\"]"),
            Segment::Key(name) => write!(out, ".{name}"),
        }
    }
}

/// A position in the text and in the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct At {
    /// In the text.
    pub(crate) span: Span,
    /// In the configuration.
    pub(crate) path: Path,
}

impl At {
    /// The same place in the configuration, another one in the text.
    pub(crate) fn with_span(&self, span: Span) -> Self {
        Self { span, path: self.path.clone() }
    }
}

/// Most diagnostics that are kept. More do not help anybody.
const MAX_DIAGNOSTICS: usize = 50;

/// Most diagnostics that are collected before the rest is only counted: a large file that is all
/// wrong must not take long.
const MAX_COLLECTED: usize = 1000;

/// A source.
#[derive(Debug)]
struct Text {
    name: String,
    content: String,
    /// Where each line begins; only made when a line is shown.
    lines: OnceCell<Vec<usize>>,
}

impl Text {
    /// A line without its end, counted from 1; empty when there is none.
    fn line(&self, number: u32) -> &str {
        let starts = self.lines.get_or_init(|| {
            let ends = self.content.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(ends).collect()
        });
        let index = usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let rest =
            starts.get(index).and_then(|start| self.content.get(*start..)).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }
}

/// Collects what is wrong while a configuration is read.
#[derive(Debug, Default)]
pub(crate) struct Report {
    sources: Vec<Text>,
    list: RefCell<Vec<(Span, Diagnostic)>>,
}

impl Report {
    /// Adds a source and returns the index that spans of it carry.
    pub(crate) fn add_source(&mut self, name: String, text: &str) -> u8 {
        self.sources.push(Text { name, content: text.to_owned(), lines: OnceCell::new() });
        u8::try_from(self.sources.len() - 1).unwrap_or(u8::MAX)
    }

    /// Reports an error.
    pub(crate) fn error(&self, at: &At, message: impl Into<String>) -> Added<'_> {
        self.add(Severity::Error, at, message.into())
    }

    /// Reports a warning.
    pub(crate) fn warning(&self, at: &At, message: impl Into<String>) -> Added<'_> {
        self.add(Severity::Warning, at, message.into())
    }

    /// True when an error was reported.
    pub(crate) fn has_errors(&self) -> bool {
        self.list.borrow().iter().any(|(_, d)| d.is_error())
    }

    /// False for an error that would not be among those that are shown: so many stand before it in the
    /// text. What helps with it need not be found out, which may take long.
    pub(crate) fn shows_error(&self, at: &At) -> bool {
        let list = self.list.borrow();
        let before = list.iter().filter(|(span, d)| d.is_error() && *span <= at.span);
        before.count() < MAX_DIAGNOSTICS
    }

    fn add(&self, severity: Severity, at: &At, message: String) -> Added<'_> {
        let is_full = self.list.borrow().len() >= MAX_COLLECTED;
        if is_full && (severity == Severity::Warning || self.has_errors()) {
            return Added { list: &self.list, index: None };
        }
        let source = self.sources.get(usize::from(at.span.source));
        let diagnostic = Diagnostic {
            severity,
            path: source.map(|s| s.name.clone()).unwrap_or_default(),
            line: at.span.line.max(1),
            column: at.span.column.max(1),
            length: at.span.length.max(1),
            message,
            field: at.path.to_string(),
            hints: Vec::new(),
            // Only what is shown gets one.
            source_line: String::new(),
        };
        let mut list = self.list.borrow_mut();
        let twin = list.iter().position(|(_, d)| *d == diagnostic);
        let index = twin.unwrap_or(list.len());
        if twin.is_none() {
            list.push((at.span, diagnostic));
        }
        Added { list: &self.list, index: twin.is_none().then_some(index) }
    }

    /// Everything reported, in the order of the text, cut at a number a person can read.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        self.take()
    }

    /// The same, and begins anew: for a part of the text that is judged by itself.
    pub(crate) fn take(&self) -> Vec<Diagnostic> {
        let mut list = self.set_aside();
        list.sort_by_key(|(span, _)| (*span, 0));
        let errors = list.iter().filter(|(_, d)| d.is_error()).count();
        if errors > MAX_DIAGNOSTICS {
            list.retain(|(_, d)| d.is_error());
            list.truncate(MAX_DIAGNOSTICS);
        }
        for (span, diagnostic) in &mut list {
            let source = self.sources.get(usize::from(span.source));
            let line = source.map_or("", |source| source.line(span.line));
            line.clone_into(&mut diagnostic.source_line);
        }
        let mut list: Vec<Diagnostic> = list.into_iter().map(|(_, d)| d).collect();
        if errors > MAX_DIAGNOSTICS
            && let Some(last) = list.last_mut()
        {
            let more = errors - MAX_DIAGNOSTICS;
            let least = if errors >= MAX_COLLECTED { "at least " } else { "" };
            last.hint(format!("{least}{more} more errors are not shown"));
        }
        list
    }
}

impl Report {
    /// Takes everything out that was reported.
    pub(crate) fn set_aside(&self) -> Vec<(Span, Diagnostic)> {
        self.list.take()
    }

    /// Puts back what was set aside.
    pub(crate) fn put_back(&self, list: impl IntoIterator<Item = (Span, Diagnostic)>) {
        self.list.borrow_mut().extend(list);
    }
}

/// A diagnostic that was just reported; hints can be added to it.
#[derive(Debug)]
pub(crate) struct Added<'a> {
    list: &'a RefCell<Vec<(Span, Diagnostic)>>,
    // `None` when the same diagnostic had been reported before.
    index: Option<usize>,
}

impl Added<'_> {
    /// Adds a sentence on what to do.
    pub(crate) fn hint(self, text: impl Into<String>) -> Self {
        let mut list: RefMut<'_, _> = self.list.borrow_mut();
        if let Some((_, diagnostic)) = self.index.and_then(|index| list.get_mut(index)) {
            diagnostic.hint(text);
        }
        drop(list);
        self
    }

    /// Adds a sentence when there is one.
    pub(crate) fn maybe_hint(self, text: Option<String>) -> Self {
        match text {
            Some(text) => self.hint(text),
            None => self,
        }
    }
}

impl Report {
    /// Looks at what was reported so far.
    #[cfg(test)]
    pub(crate) fn peek(&self) -> std::cell::Ref<'_, Vec<(Span, Diagnostic)>> {
        self.list.borrow()
    }
}

//! YAML text to a tree in which every key and value knows its position.
//!
//! JSON is read by the same code, as it is YAML's flow style. What differs from plain YAML 1.2:
//! `<<` merges mappings, `!ignore` on a key or a value drops the entry (as Envoy does), a key that
//! stands twice and a second document are errors, and what aliases may blow up to is bounded.

mod entries;
mod surrogates;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

pub(crate) use self::entries::Entries;

use super::source::{At, Path, Report, Span};

/// Deepest nesting. Real configurations stay below 40; the tree is walked recursively.
const MAX_DEPTH: usize = 96;

/// Most nodes that aliases may add, so that nine lines cannot become a billion nodes.
const MAX_ALIAS_NODES: usize = 200_000;

/// A value and its position.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The value.
    pub(crate) value: Value,
    /// Where it starts.
    pub(crate) span: Span,
}

/// The value of a [`Node`].
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, numbers and booleans: their type is what the field wants.
    Scalar {
        /// The text without quotes.
        text: String,
        /// Not quoted and not a block of text.
        plain: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the file, no key twice.
    Mapping(Vec<Entry>),
}

/// An entry of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) key_span: Span,
    /// The value.
    pub(crate) value: Node,
}

impl Node {
    /// Number of nodes in this tree.
    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Self::size).sum(),
            Value::Mapping(entries) => entries.iter().map(|e| e.value.size()).sum(),
        }
    }

    /// Number of levels in this tree.
    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Mapping(entries) => entries.iter().map(|e| e.value.depth()).max().unwrap_or(0),
        }
    }

    /// What it is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Scalar { text, .. } => format!("`{}`", shorten(text)),
            Value::Sequence(_) => "a list".into(),
            Value::Mapping(_) => "a mapping".into(),
        }
    }

    /// The entry of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Null | Value::Scalar { .. } | Value::Sequence(_) => None,
        }
    }
}

/// The beginning of a text, on one line, for messages.
pub(crate) fn shorten(text: &str) -> String {
    shorten_to(text, 60)
}

/// The same with at most so many characters.
pub(crate) fn shorten_to(text: &str, most: usize) -> String {
    let mut short: String =
        text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > most {
        short.push('…');
    }
    short
}

/// Where a text begins in its source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    /// The source.
    pub(crate) source: u8,
    /// Lines before the text.
    pub(crate) lines: u32,
    /// Characters before the text on its first line.
    pub(crate) columns: u32,
    /// Levels of nesting around the text.
    pub(crate) depth: usize,
}

/// Reads one document. `None` means that an error was reported that leaves nothing to go on with.
pub(crate) fn parse(text: &str, source: u8, report: &Report) -> Option<Node> {
    parse_part(text, Origin { source, ..Origin::default() }, report)
}

/// Reads a part of a document that is one by itself. What is reported when it is not well-formed has
/// positions in the part.
pub(crate) fn parse_part(text: &str, origin: Origin, report: &Report) -> Option<Node> {
    let source = origin.source;
    let mut builder = Builder::new(origin.depth, report);
    let joined = surrogates::join(text);
    let mut parser = Parser::new_from_str(&joined);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                let span = convert(span, origin);
                if !builder.event(event, span) {
                    return None;
                }
            }
            Err(error) => {
                report_syntax(&error, text, source, report);
                return None;
            }
        }
    }
    let empty = Span { source, line: 1, column: 1, length: 1 };
    Some(builder.root.unwrap_or(Node { value: Value::Null, span: empty }))
}

fn convert(span: saphyr_parser::Span, origin: Origin) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let same_line = span.start.line() == span.end.line();
    let length = span.end.col().saturating_sub(span.start.col());
    let is_first = span.start.line() <= 1;
    Span {
        source: origin.source,
        line: number(span.start.line()).saturating_add(origin.lines),
        column: number(span.start.col() + 1).saturating_add(if is_first {
            origin.columns
        } else {
            0
        }),
        length: if same_line { number(length.max(1)) } else { 1 },
    }
}

fn report_syntax(error: &ScanError, text: &str, source: u8, report: &Report) {
    let lines = text.lines().count().max(1);
    // An error at the end is shown on the last line that has text.
    let line = error.marker().line().clamp(1, lines);
    let tab_of =
        |line: &str| line.chars().take_while(|c| c.is_whitespace()).position(|c| c == '\t');
    // A tab is often noticed at the end of the line before, or on a line after it.
    let has_tab = |line: usize| text.lines().nth(line - 1).is_some_and(|l| tab_of(l).is_some());
    let near = [line, line + 1, line.saturating_sub(1).max(1)];
    let line = near.into_iter().find(|line| has_tab(*line)).unwrap_or(line);
    let content = text.lines().nth(line - 1).unwrap_or("");
    let tab = tab_of(content);
    let column = tab.unwrap_or_else(|| error.marker().col()) + 1;
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let span = Span { source, line: number(line), column: number(column), length: 1 };
    let at = At { span, path: Path::default() };
    if tab.is_some() {
        report
            .error(&at, "a tab is used for indentation")
            .hint("YAML allows only spaces at the start of a line");
        return;
    }
    let info = error.info();
    if info.contains("recursion limit") {
        report.error(&at, format!("nested more than {MAX_DEPTH} levels deep"));
        return;
    }
    let hint = if content.contains("{{") || content.contains("{%") {
        "this looks like a template: it must be rendered first"
    } else if content.trim_start().starts_with('%') || content.contains(": %") {
        "put quotes around a value that starts with `%`"
    } else if star_of(content) {
        "put quotes around a value that starts with `*`: `\"*\"`"
    } else if content.contains('`') || content.contains(": @") {
        "put quotes around a value that starts with a special character"
    } else if text.trim_start().starts_with('{') {
        "check the brackets, commas and quotes here and on the line above"
    } else if info.contains("anchor") {
        "define it with `&name` before it is used"
    } else {
        "check the indentation, and the quotes and brackets, here and on the line above"
    };
    report.error(&at, format!("not valid YAML: {info}")).hint(hint);
}

/// True when a value starts with a `*` without quotes that cannot be meant as an alias.
fn star_of(line: &str) -> bool {
    let after = |(at, _): (usize, &str)| {
        let before = line.get(..at).unwrap_or_default().trim_end();
        let next = line.get(at + 1..).unwrap_or_default().chars().next();
        let starts = before.is_empty() || before.ends_with(['-', ':', '[', ',']);
        starts && next.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
    };
    line.match_indices('*').any(after)
}

/// A container that is being filled.
enum Open {
    Sequence(Vec<Node>),
    Mapping { entries: Entries, merges: Vec<Node>, key: Option<Key> },
}

struct Key {
    text: String,
    span: Span,
    ignored: bool,
}

struct Level {
    open: Open,
    span: Span,
    anchor: usize,
    ignored: bool,
}

struct Builder<'a> {
    report: &'a Report,
    /// Levels around the text.
    depth: usize,
    stack: Vec<Level>,
    anchors: HashMap<usize, Node>,
    alias_nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl<'a> Builder<'a> {
    fn new(depth: usize, report: &'a Report) -> Self {
        Self {
            report,
            depth,
            stack: Vec::new(),
            anchors: HashMap::new(),
            alias_nodes: 0,
            documents: 0,
            root: None,
        }
    }

    fn error(&self, span: Span, message: impl Into<String>) -> super::source::Added<'_> {
        let mut path = Path::default();
        for level in &self.stack {
            match &level.open {
                Open::Sequence(items) => path = path.index(items.len()),
                Open::Mapping { key: Some(key), .. } => path = path.key(&key.text),
                Open::Mapping { key: None, .. } => {}
            }
        }
        self.report.error(&At { span, path }, message)
    }

    /// Takes one event; false ends the reading.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document starts here; a configuration is one document";
                    self.error(span, message).hint("remove the `---`, or put it into its own file");
                    return false;
                }
                true
            }
            Event::Alias(id) => self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_deref();
                let ignored = self.tag(tag, span);
                let plain = style == ScalarStyle::Plain && !is_string_tag(tag);
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null {
                    Value::Null
                } else {
                    Value::Scalar { text: text.into_owned(), plain }
                };
                self.add(Node { value, span }, anchor, ignored)
            }
            Event::SequenceStart(anchor, tag) => {
                let ignored = self.tag(tag.as_deref(), span);
                self.open(Level { open: Open::Sequence(Vec::new()), span, anchor, ignored })
            }
            Event::MappingStart(anchor, tag) => {
                let ignored = self.tag(tag.as_deref(), span);
                let entries = Entries::default();
                let open = Open::Mapping { entries, merges: Vec::new(), key: None };
                self.open(Level { open, span, anchor, ignored })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => true,
        }
    }

    /// True when the tag asks to drop the value.
    fn tag(&self, tag: Option<&Tag>, span: Span) -> bool {
        let Some(tag) = tag else { return false };
        if tag.handle == "!" && tag.suffix == "ignore" {
            return true;
        }
        // `!` alone and the tags of YAML's core schema say nothing new.
        if !tag.is_yaml_core_schema() && !tag.suffix.is_empty() {
            self.error(span, format!("unknown tag `{tag}`")).hint("only `!ignore` is supported");
        }
        false
    }

    fn open(&mut self, level: Level) -> bool {
        if self.depth + self.stack.len() >= MAX_DEPTH {
            self.error(level.span, format!("nested more than {MAX_DEPTH} levels deep"));
            return false;
        }
        let in_key =
            matches!(self.stack.last(), Some(Level { open: Open::Mapping { key: None, .. }, .. }));
        if in_key {
            self.error(level.span, "a key must be text, not a list or a mapping")
                .hint("put quotes around a value that starts with `{` or `[`")
                .hint("a template with `{{ … }}` must be rendered first");
            return false;
        }
        self.stack.push(level);
        true
    }

    fn close(&mut self) -> bool {
        let Some(level) = self.stack.pop() else { return true };
        let value = match level.open {
            Open::Sequence(items) => Value::Sequence(items),
            Open::Mapping { mut entries, merges, .. } => {
                for merge in merges {
                    self.merge(&mut entries, merge);
                }
                Value::Mapping(entries.into_list())
            }
        };
        self.add(Node { value, span: level.span }, level.anchor, level.ignored)
    }

    /// Adds the entries of `<<` that are not there yet.
    fn merge(&self, entries: &mut Entries, from: Node) {
        match from.value {
            Value::Mapping(more) => {
                for entry in more {
                    if entries.find(&entry.key).is_none() {
                        entries.push(entry);
                    }
                }
            }
            Value::Sequence(items) => {
                for item in items {
                    self.merge(entries, item);
                }
            }
            Value::Null => {}
            Value::Scalar { .. } => {
                self.error(from.span, "`<<` needs a mapping, or a list of mappings")
                    .hint("write `<<: *name`, where `&name` marks a mapping");
            }
        }
    }

    fn alias(&mut self, id: usize, span: Span) -> bool {
        let Some(node) = self.anchors.get(&id) else {
            self.error(span, "this alias refers to a value that it is part of");
            return false;
        };
        self.alias_nodes += node.size();
        if self.alias_nodes > MAX_ALIAS_NODES {
            self.error(span, format!("aliases add more than {MAX_ALIAS_NODES} values"));
            return false;
        }
        if self.depth + self.stack.len() + node.depth() > MAX_DEPTH {
            self.error(span, format!("nested more than {MAX_DEPTH} levels deep"));
            return false;
        }
        let node = node.clone();
        self.add(node, 0, false)
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node, anchor: usize, ignored: bool) -> bool {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(level) = self.stack.last_mut() else {
            self.root = Some(node);
            return true;
        };
        match &mut level.open {
            Open::Sequence(items) => {
                if !ignored {
                    items.push(node);
                }
                true
            }
            Open::Mapping { entries, merges, key } => match key.take() {
                None => self.add_key(node, ignored),
                Some(Key { ignored: true, .. }) => true,
                Some(Key { .. }) if ignored => true,
                Some(Key { text, .. }) if text == "<<" => {
                    merges.push(node);
                    true
                }
                Some(Key { text, span, .. }) => {
                    let first = entries.find(&text).map(|entry| entry.key_span);
                    if let Some(first) = first {
                        self.duplicate(&text, span, first);
                    } else {
                        entries.push(Entry { key: text, key_span: span, value: node });
                    }
                    true
                }
            },
        }
    }

    fn add_key(&mut self, node: Node, ignored: bool) -> bool {
        let text = match node.value {
            Value::Scalar { text, .. } => text,
            Value::Null => "null".to_owned(),
            Value::Sequence(_) | Value::Mapping(_) => {
                self.error(node.span, "a key must be text, not a list or a mapping");
                return false;
            }
        };
        if let Some(Level { open: Open::Mapping { key, .. }, .. }) = self.stack.last_mut() {
            *key = Some(Key { text, span: node.span, ignored });
        }
        true
    }

    fn duplicate(&self, key: &str, span: Span, first: Span) {
        let message = format!("`{key}` stands twice in this mapping, first on line {}", first.line);
        self.error(span, message).hint("remove one of the two, or merge them");
    }
}

fn is_string_tag(tag: Option<&Tag>) -> bool {
    tag.is_some_and(|tag| {
        (tag.is_yaml_core_schema() && tag.suffix == "str")
            || (tag.handle == "!" && tag.suffix.is_empty())
    })
}

#[cfg(test)]
mod tests;

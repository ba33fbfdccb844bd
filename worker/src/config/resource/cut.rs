//! Cuts the text of a file into the items of its `resources`, without parsing it.
//!
//! Of a file with ten thousand resources one changes. To parse all of it takes a third of a second; to
//! find where each item begins and ends, and to compare its bytes with what is known, takes a few
//! milliseconds. Only block style and JSON are understood, and only where no item can reach into
//! another one; of everything else [`cut`] makes nothing, and the file is parsed as a whole. It need not
//! be certain that an item is well-formed: a text that ends within quotes or brackets does not parse by
//! itself, and then the file is parsed as a whole, too.

use std::ops::Range;

/// A file, cut.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Cut {
    /// The text without the items. It must prove to be a mapping whose `resources` are empty.
    pub(super) header: String,
    /// The items in the order of the file.
    pub(super) items: Vec<Piece>,
}

/// The text of an item. By itself it is a document: the item, or a list that has only the item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Piece {
    /// Bytes of the file.
    pub(super) range: Range<usize>,
    /// Lines before it.
    pub(super) lines: u32,
    /// Characters before it on its first line.
    pub(super) columns: u32,
    /// Levels of nesting around its text.
    pub(super) depth: usize,
}

/// Cuts a text, if it has a form that is certain.
pub(super) fn cut(text: &str) -> Option<Cut> {
    let lone_return = |at: usize| text.as_bytes().get(at + 1) != Some(&b'\n');
    if text.starts_with('\u{feff}') || memchr::memchr_iter(b'\r', text.as_bytes()).any(lone_return)
    {
        return None;
    }
    if text.trim_start().starts_with('{') { Json::new(text).cut() } else { block(text) }
}

/// Where the reading of a text in block style is.
enum State {
    /// Before `resources:`.
    Before,
    /// Behind it; the indentation of its items, when there was one.
    Within(Option<usize>),
    After,
}

/// Block style: items are lines that begin with `-`, all with one indentation.
fn block(text: &str) -> Option<Cut> {
    let mut state = State::Before;
    let mut items: Vec<Piece> = Vec::new();
    let mut list = 0..0;
    let mut start = 0;
    let mut is_first = true;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let end = start + line.len();
        let (indent, rest) = indentation(line);
        let begin = |items: &mut Vec<Piece>| {
            let lines = u32::try_from(number).unwrap_or(u32::MAX);
            items.push(Piece { range: start..end, lines, columns: 0, depth: 1 });
        };
        if !rest.is_empty() && !rest.starts_with('#') {
            let is_marker = |mark| indent == 0 && rest.starts_with(mark);
            if is_marker("---") && is_first && rest == "---" {
                is_first = false;
                start = end;
                continue;
            }
            if ["---", "...", "%"].into_iter().any(is_marker) || rest.starts_with('\t') {
                return None;
            }
            is_first = false;
            let is_item = rest == "-" || rest.starts_with("- ");
            match state {
                State::Before if indent == 0 && is_resources(rest) => {
                    state = State::Within(None);
                    list = end..text.len();
                }
                State::Before | State::After => {}
                State::Within(None) if is_item => {
                    state = State::Within(Some(indent));
                    begin(&mut items);
                }
                State::Within(Some(known)) if indent == known && is_item => begin(&mut items),
                State::Within(Some(known)) if indent > known => {}
                State::Within(_) if indent == 0 && !is_item => {
                    state = State::After;
                    list.end = start;
                }
                State::Within(_) => return None,
            }
        }
        if let (State::Within(_), Some(item)) = (&state, items.last_mut()) {
            item.range.end = end;
        }
        start = end;
    }
    if matches!(state, State::Before) {
        return None;
    }
    let header = [text.get(..list.start)?, text.get(list.end..)?].concat();
    Some(Cut { header, items })
}

/// The number of blanks before a line's content, and the content.
fn indentation(line: &str) -> (usize, &str) {
    let rest = line.trim_start_matches(' ');
    (line.len() - rest.len(), rest.trim_end_matches([' ', '\n', '\r']))
}

/// `resources:` and perhaps a comment.
fn is_resources(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("resources:") else { return false };
    rest.is_empty() || (rest.starts_with(' ') && rest.trim_start().starts_with('#'))
}

/// JSON as `serde_json` and others write it, not everything that YAML's flow style allows.
struct Json<'a> {
    text: &'a str,
    at: usize,
    /// Lines before.
    lines: u32,
    /// A place on the present line, and the characters before it on that line.
    counted: (usize, usize),
}

impl<'a> Json<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, lines: 0, counted: (0, 0) }
    }

    fn cut(mut self) -> Option<Cut> {
        let mut cut = None;
        self.take(b'{')?;
        if self.peek()? == b'}' {
            return None;
        }
        loop {
            let key = self.string()?;
            self.take(b':')?;
            if key == "\"resources\"" && self.peek()? == b'[' {
                if cut.is_some() {
                    return None;
                }
                cut = Some(self.list()?);
            } else {
                self.value()?;
            }
            match self.peek()? {
                b',' => self.take(b',')?,
                b'}' => break,
                _ => return None,
            }
        }
        self.take(b'}')?;
        if self.peek().is_some() {
            return None;
        }
        let (list, items) = cut?;
        let header = [self.text.get(..list.start)?, self.text.get(list.end..)?].concat();
        Some(Cut { header, items })
    }

    /// The bytes between the brackets, and the objects there.
    fn list(&mut self) -> Option<(Range<usize>, Vec<Piece>)> {
        let mut items = Vec::new();
        self.take(b'[')?;
        let start = self.at;
        if self.peek()? != b']' {
            loop {
                if self.peek()? != b'{' {
                    return None;
                }
                // A file may be one line, so nothing is counted twice.
                let (place, before) = self.counted;
                let before = before + self.text.get(place..self.at)?.chars().count();
                self.counted = (self.at, before);
                let columns = u32::try_from(before).ok()?;
                let (first, lines) = (self.at, self.lines);
                self.value()?;
                items.push(Piece { range: first..self.at, lines, columns, depth: 2 });
                match self.peek()? {
                    b',' => self.take(b',')?,
                    b']' => break,
                    _ => return None,
                }
            }
        }
        let end = self.at;
        self.take(b']')?;
        Some((start..end, items))
    }

    /// Skips one value.
    fn value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                open @ (b'{' | b'[') => {
                    depth += 1;
                    self.take(open)?;
                    // An empty one ends at once.
                    if !matches!(self.peek()?, b'}' | b']') {
                        self.key(open)?;
                        continue;
                    }
                }
                b'"' => {
                    self.string()?;
                }
                _ => self.word()?,
            }
            // Behind a value: what is closed, and whether another one follows.
            loop {
                if depth == 0 {
                    return Some(());
                }
                match self.peek()? {
                    close @ (b'}' | b']') => {
                        depth -= 1;
                        self.take(close)?;
                    }
                    b',' => {
                        self.take(b',')?;
                        self.key_if_any()?;
                        break;
                    }
                    _ => return None,
                }
            }
        }
    }

    /// The key behind the beginning of an object.
    fn key(&mut self, open: u8) -> Option<()> {
        if open == b'{' {
            self.string()?;
            self.take(b':')?;
        }
        Some(())
    }

    /// A key, when a text is followed by a colon. Which bracket is open does not matter: a text that
    /// mixes them up does not parse.
    fn key_if_any(&mut self) -> Option<()> {
        if self.peek()? == b'"' {
            let (at, lines, counted) = (self.at, self.lines, self.counted);
            self.string()?;
            if self.peek()? == b':' {
                return self.take(b':');
            }
            (self.at, self.lines, self.counted) = (at, lines, counted);
        }
        Some(())
    }

    /// A text with its quotes.
    fn string(&mut self) -> Option<&'a str> {
        if self.peek()? != b'"' {
            return None;
        }
        let start = self.at;
        let mut at = start + 1;
        loop {
            let rest = self.text.as_bytes().get(at..)?;
            let next = at + memchr::memchr3(b'"', b'\\', b'\n', rest)?;
            match self.text.as_bytes().get(next)? {
                b'"' => {
                    self.at = next + 1;
                    return self.text.get(start..self.at);
                }
                b'\\' => at = next + 2,
                // JSON has no line breaks there.
                _ => return None,
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        let length = rest.iter().take_while(|b| is_part(b)).count();
        self.at += length;
        (length > 0).then_some(())
    }

    /// The next byte that is not a blank, and goes there.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            match byte {
                b'\n' => {
                    self.lines = self.lines.saturating_add(1);
                    self.counted = (self.at + 1, 0);
                }
                b' ' | b'\r' => {}
                _ => return Some(byte),
            }
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let found = self.peek()? == wanted;
        self.at += usize::from(found);
        found.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Option<Vec<(&str, u32, u32)>> {
        let cut = cut(text)?;
        let items = cut.items.into_iter();
        Some(items.map(|i| (text.get(i.range).unwrap(), i.lines, i.columns)).collect())
    }

    #[test]
    fn block_style_is_cut_at_the_dashes() {
        let text = "version_info: a\nresources: # all\n- a: |\n   - x\n\n  b:\n  - c\n# d\n- e\nnonce: f\n";
        let items = texts(text).unwrap();
        assert_eq!(items[0], ("- a: |\n   - x\n\n  b:\n  - c\n# d\n", 2, 0));
        assert_eq!(items[1], ("- e\n", 8, 0));
        assert_eq!(cut(text).unwrap().header, "version_info: a\nresources: # all\nnonce: f\n");
        let text = "---\nresources:\r\n\r\n  - a\r\n  -\r\n    b: c\r\nversion_info: x";
        let items = texts(text).unwrap();
        assert_eq!(items, [("  - a\r\n", 3, 0), ("  -\r\n    b: c\r\n", 4, 0)]);
        assert_eq!(texts("resources:\nversion_info: a\n").unwrap(), []);
    }

    #[test]
    fn json_is_cut_at_the_braces() {
        let text = "{ \"version_info\": \"1\", \"resources\": [\n  {\"a\": {\"}\": [1, -2e3, {}]}},\n{\"b\\\"\": []}\n], \"x\": [{}]}\n";
        let items = texts(text).unwrap();
        assert_eq!(items[0], ("{\"a\": {\"}\": [1, -2e3, {}]}}", 1, 2));
        assert_eq!(items[1], ("{\"b\\\"\": []}", 2, 0));
        let header = "{ \"version_info\": \"1\", \"resources\": [], \"x\": [{}]}\n";
        assert_eq!(cut(text).unwrap().header, header);
        assert_eq!(texts("{\"resources\": []}").unwrap(), []);
    }

    #[test]
    fn what_is_not_certain_is_not_cut() {
        for text in [
            "",
            "- a\n",
            "resource:\n- a\n",
            "resources: [a]\n",
            "\u{feff}resources:\n- a\n",
            "resources:\n- a\n---\n- b\n",
            "%YAML 1.2\n---\nresources:\n- a\n",
            "resources:\n  - a\n - b\n",
            "resources:\n  - a\n- b\n",
            "resources:\n  a: b\n",
            "resources:\n- a\n\tb\n",
            "resources:\r- a\r",
            "{resources: []}",
            "{\"resources\": [{a: 1}]}",
            "{\"resources\": [{\"a\": 'x'}]}",
            "{\"resources\": [{\"a\": 1} # x\n]}",
            "{\"resources\": [{\"a\": 1},]}",
            "{\"resources\": [1]}",
            "{\"resources\": [{}], \"resources\": [{}]}",
            "{\"resources\": [{}]} x",
            "{\"resources\": [{\"a\": \"x\ny\"}]}",
        ] {
            assert_eq!(cut(text), None, "{text:?}");
        }
    }
}

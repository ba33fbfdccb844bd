//! An ordered list of headers in one byte arena.
//!
//! Names are lower case from the moment they are in the list, so a comparison is a comparison of
//! bytes. Values are raw bytes without CR, LF and NUL. A received head is copied into the arena in
//! one piece and its lines become ranges of it; lines added later follow behind, as they look on the
//! wire, so that what stands together leaves in one piece. The arena is cleared and reused for the
//! next message, so a request in steady state allocates nothing.

/// Headers of one message, in order, duplicates kept.
///
/// Invariant: every entry lies inside the arena.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Span,
    value: Span,
}

impl Entry {
    /// Most names differ in length already.
    #[inline]
    fn is_named(&self, name: &[u8], arena: &[u8]) -> bool {
        self.name.len as usize == name.len() && slice(arena, self.name) == name
    }

    /// Where it stands in the arena as on the wire, line end included; `None` when there is other
    /// white space around the value.
    #[inline]
    fn as_line(&self, arena: &[u8]) -> Option<std::ops::Range<usize>> {
        let start = self.name.start as usize;
        let colon = start + self.name.len as usize;
        let end = self.value.start as usize + self.value.len as usize;
        let fits = colon + 2 == self.value.start as usize
            && arena.get(colon..colon + 2) == Some(b": ")
            && arena.get(end..end + 2) == Some(b"\r\n");
        fits.then_some(start..end + 2)
    }
}

/// Makes spaces of what would end a line.
#[cold]
fn clean(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|b| matches!(b, b'\r' | b'\n' | 0)) {
        *byte = b' ';
    }
}

impl Headers {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// Number of header lines.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no header line.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory held, for accounting.
    pub fn capacity_bytes(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Adds one line at the end. The name is stored in lower case; CR, LF and NUL become spaces,
    /// so that no line can become two.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let entry = self.store(name, value);
        self.entries.push(entry);
    }

    /// Replaces every line of that name by one; adds it when there is none.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.position(name) {
            None => self.append(name, value),
            Some(first) => {
                self.entries[first] = self.store(name, value);
                let arena = &self.arena;
                if self.entries[first + 1..].iter().any(|entry| entry.is_named(name, arena)) {
                    let mut index = 0;
                    self.entries.retain(|entry| {
                        index += 1;
                        index - 1 <= first || !entry.is_named(name, arena)
                    });
                }
            }
        }
    }

    /// Removes every line of that name and says whether there was one. `name` is lower case.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let found = self.contains(name);
        if found {
            let arena = &self.arena;
            self.entries.retain(|entry| !entry.is_named(name, arena));
        }
        found
    }

    /// Keeps the lines for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let arena = &self.arena;
        self.entries.retain(|e| keep(slice(arena, e.name), slice(arena, e.value)));
    }

    /// The first value of that name. `name` is lower case.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let index = self.position(name)?;
        self.entries.get(index).map(|entry| slice(&self.arena, entry.value))
    }

    /// True when there is a line of that name. `name` is lower case.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.position(name).is_some()
    }

    /// Every value of that name, in order. `name` is lower case.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Makes one line of all lines of a list header (RFC 9110 §5.3), where the first one stands.
    /// Empty ones add nothing.
    pub fn join(&mut self, name: &[u8]) {
        let Some(first) = self.position(name) else { return };
        let (arena, rest) = (&self.arena, self.entries.get(first + 1..).unwrap_or_default());
        if !rest.iter().any(|entry| entry.is_named(name, arena)) {
            return;
        }
        let mut list = Vec::new();
        for line in self.get_all(name).filter(|line| !line.is_empty()) {
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(line);
        }
        self.set(name, &list);
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|e| (slice(&self.arena, e.name), slice(&self.arena, e.value)))
    }

    /// Writes `name: value\r\n` for every line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.write_some_to(out, |_| true);
    }

    /// Writes `name: value\r\n` for every line whose name is `wanted`.
    pub(crate) fn write_some_to(&self, out: &mut Vec<u8>, wanted: impl Fn(&[u8]) -> bool) {
        out.reserve(self.arena.len());
        // Lines that stand together in the arena.
        let mut run = 0..0;
        for entry in &self.entries {
            let name = slice(&self.arena, entry.name);
            if !wanted(name) {
                continue;
            }
            let Some(line) = entry.as_line(&self.arena) else {
                out.extend_from_slice(self.arena.get(run).unwrap_or_default());
                run = 0..0;
                write_line(out, name, slice(&self.arena, entry.value));
                continue;
            };
            if run.end == line.start {
                run.end = line.end;
            } else {
                out.extend_from_slice(self.arena.get(run).unwrap_or_default());
                run = line;
            }
        }
        out.extend_from_slice(self.arena.get(run).unwrap_or_default());
    }

    /// Forgets everything and takes a copy of a block of header lines, whose lines are then
    /// added by [`Self::push_loaded`].
    pub(crate) fn load(&mut self, block: &[u8]) {
        self.clear();
        self.arena.extend_from_slice(block);
    }

    /// Makes a name of the loaded block lower case and shows it.
    pub(crate) fn lower_loaded(&mut self, at: usize, len: usize) -> &[u8] {
        let name = self.arena.get_mut(at..at.saturating_add(len)).unwrap_or_default();
        name.make_ascii_lowercase();
        name
    }

    /// Adds a line of the loaded block by `(offset, length)` of its name and value. What does
    /// not lie in the block is left out.
    pub(crate) fn push_loaded(&mut self, name: (usize, usize), value: (usize, usize)) {
        let fits = |(at, len): (usize, usize)| at.saturating_add(len) <= self.arena.len();
        if fits(name) && fits(value) {
            self.entries.push(Entry { name: span(name.0, name.1), value: span(value.0, value.1) });
        }
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| entry.is_named(name, &self.arena))
    }

    fn store(&mut self, name: &[u8], value: &[u8]) -> Entry {
        self.arena.reserve(name.len() + value.len() + 4);
        let at = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(b": ");
        let value_at = self.arena.len();
        self.arena.extend_from_slice(value);
        if let Some(stored) = self.arena.get_mut(at..) {
            if memchr::memchr3(b'\r', b'\n', 0, stored).is_some() {
                clean(stored);
            }
            if name.iter().any(u8::is_ascii_uppercase) {
                stored.get_mut(..name.len()).unwrap_or_default().make_ascii_lowercase();
            }
        }
        self.arena.extend_from_slice(b"\r\n");
        Entry { name: span(at, name.len()), value: span(value_at, value.len()) }
    }
}

/// Writes one header line.
#[inline]
pub(crate) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A head is limited to a few hundred KiB by configuration, far below `u32::MAX`; what does not
/// fit becomes empty instead of pointing elsewhere.
fn span(start: usize, len: usize) -> Span {
    match (u32::try_from(start), u32::try_from(len)) {
        (Ok(start), Ok(len)) => Span { start, len },
        _ => Span::default(),
    }
}

#[inline]
fn slice(arena: &[u8], span: Span) -> &[u8] {
    let start = span.start as usize;
    arena.get(start..start + span.len as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Headers;

    fn text(headers: &Headers) -> String {
        let mut out = Vec::new();
        headers.write_to(&mut out);
        String::from_utf8(out).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn set_replaces_all_lines_of_a_name_and_keeps_the_place_of_the_first() {
        let mut headers = Headers::default();
        for (name, value) in [("A", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
            headers.append(name.as_bytes(), value.as_bytes());
        }
        headers.set(b"a", b"x");
        assert_eq!(text(&headers), "a: x|b: 2|c: 4|");
        assert!(headers.remove(b"b"));
        assert!(!headers.remove(b"b"));
        headers.append(b"A", b"y");
        assert_eq!(headers.get_all(b"a").collect::<Vec<_>>(), [b"x", b"y"]);
        assert!(headers.contains(b"c"));
        headers.clear();
        assert!(headers.is_empty());
    }

    #[test]
    fn the_lines_of_a_list_become_one_in_the_place_of_the_first() {
        for (lines, expected) in [
            (&["1"][..], "l: 1|x: 0|"),
            (&["1", "2", "3"], "l: 1,2,3|x: 0|"),
            (&["", "2"], "l: 2|x: 0|"),
            (&["1", "", "3, 4"], "l: 1,3, 4|x: 0|"),
            (&["", ""], "l: |x: 0|"),
            (&[], "x: 0|"),
        ] {
            let mut headers = Headers::default();
            for line in lines.iter().take(1) {
                headers.append(b"l", line.as_bytes());
            }
            headers.append(b"x", b"0");
            for line in lines.iter().skip(1) {
                headers.append(b"l", line.as_bytes());
            }
            headers.join(b"l");
            assert_eq!(text(&headers), expected);
        }
    }

    #[test]
    fn a_line_never_becomes_two() {
        let mut headers = Headers::default();
        headers.append(b"a\r\nx", b"1\r\nevil: 2\0");
        headers.set(b"b", b"\n");
        assert_eq!(text(&headers), "a  x: 1  evil: 2 |b:  |");
    }

    #[test]
    fn what_leaves_in_one_piece_is_what_leaves_line_by_line() {
        // Lines as they come: one as we write them, others with more or less white space.
        let block = b"host: a\r\nx:1\r\ny: 2\r\nz: \t3 \r\nempty:\r\n\r\n";
        let lines = [((0, 4), (6, 1)), ((9, 1), (11, 1)), ((14, 1), (17, 1)), ((20, 1), (24, 1))];
        // Which lines stay, what is set and what is added, in all combinations.
        for choice in 0_u32..1 << 7 {
            let has = |bit: u32| choice >> bit & 1 == 1;
            let mut headers = Headers::default();
            headers.load(block);
            for (bit, (name, value)) in (0..).zip(lines) {
                if has(bit) {
                    headers.push_loaded(name, value);
                }
            }
            headers.push_loaded((28, 5), (0, 0));
            if has(4) {
                headers.set(b"y", b"new");
            }
            if has(5) {
                headers.append(b"Added", b"4");
            }
            if has(6) {
                headers.remove(b"x");
            }
            let wanted = |name: &[u8]| name != b"host" || has(4);
            let (mut whole, mut single) = (b"before|".to_vec(), b"before|".to_vec());
            headers.write_some_to(&mut whole, wanted);
            for (name, value) in headers.iter().filter(|(name, _)| wanted(name)) {
                super::write_line(&mut single, name, value);
            }
            assert_eq!(whole.escape_ascii().to_string(), single.escape_ascii().to_string());
        }
    }
}

//! An ordered list of headers in one byte arena.
//!
//! Names are lower case from the moment they are in the list, so a comparison is a comparison of
//! bytes. Values are raw bytes. The arena only grows while a message is handled and is cleared and
//! reused for the next one, so a request in steady state allocates nothing.

use std::ops::Range;

/// Headers of one message, in order, duplicates kept.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: Range<u32>,
    value: Range<u32>,
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

    /// Adds one line at the end. The name is stored in lower case.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let name = self.store(name, true);
        let value = self.store(value, false);
        self.entries.push(Entry { name, value });
    }

    /// Replaces every line of that name by one; adds it when there is none.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.position(name) {
            None => self.append(name, value),
            Some(first) => {
                let value = self.store(value, false);
                self.entries[first].value = value;
                let mut index = 0;
                let arena = &self.arena;
                self.entries.retain(|entry| {
                    index += 1;
                    index - 1 <= first || slice(arena, &entry.name) != name
                });
            }
        }
    }

    /// Removes every line of that name and says whether there was one. `name` is lower case.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let before = self.entries.len();
        let arena = &self.arena;
        self.entries.retain(|entry| slice(arena, &entry.name) != name);
        self.entries.len() != before
    }

    /// Keeps the lines for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let arena = &self.arena;
        self.entries.retain(|e| keep(slice(arena, &e.name), slice(arena, &e.value)));
    }

    /// The first value of that name. `name` is lower case.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.position(name).map(|index| slice(&self.arena, &self.entries[index].value))
    }

    /// Every value of that name, in order. `name` is lower case.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter().filter(move |(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|e| (slice(&self.arena, &e.name), slice(&self.arena, &e.value)))
    }

    /// Writes `name: value\r\n` for every line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.entries.iter().position(|entry| slice(&self.arena, &entry.name) == name)
    }

    fn store(&mut self, bytes: &[u8], lower: bool) -> Range<u32> {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        if lower {
            self.arena[start..].make_ascii_lowercase();
        }
        // A head is limited to a few hundred KiB by configuration, far below `u32::MAX`.
        u32::try_from(start).unwrap_or(0)..u32::try_from(self.arena.len()).unwrap_or(0)
    }
}

fn slice<'a>(arena: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    &arena[range.start as usize..range.end as usize]
}

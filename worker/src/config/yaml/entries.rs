//! A mapping while it is filled: no key twice, and quick with tens of thousands of keys.

use std::collections::HashMap;

use super::Entry;

/// Entries of a mapping, no key twice.
#[derive(Default)]
pub(crate) struct Entries {
    list: Vec<Entry>,
    /// Where each key is in the list; only kept when there are many.
    places: HashMap<String, usize>,
}

impl Entries {
    /// So many entries are looked through one by one, which is faster than to keep a map.
    const FEW: usize = 32;

    /// The entry with this key.
    pub(crate) fn find(&mut self, key: &str) -> Option<&mut Entry> {
        let place = if self.list.len() <= Self::FEW {
            self.list.iter().position(|entry| entry.key == key)
        } else {
            self.places.get(key).copied()
        };
        self.list.get_mut(place?)
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self.list.len() == Self::FEW {
            let keys = self.list.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at));
            self.places.extend(keys);
        }
        if self.list.len() >= Self::FEW {
            self.places.insert(entry.key.clone(), self.list.len());
        }
        self.list.push(entry);
    }

    /// All of them, in the order in which they came.
    pub(crate) fn into_list(self) -> Vec<Entry> {
        self.list
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(list: Vec<Entry>) -> Self {
        let mut entries = Self::default();
        for entry in list {
            entries.push(entry);
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Node, Span, Value},
        *,
    };

    #[test]
    fn every_key_is_found_whether_they_are_few_or_many() {
        for count in [1, Entries::FEW, Entries::FEW + 1, 1000] {
            let entry = |at: usize| Entry {
                key: format!("key{at}"),
                key_span: Span { line: u32::try_from(at).unwrap(), ..Span::default() },
                value: Node { value: Value::Null, span: Span::default() },
            };
            let mut entries = Entries::from((0..count).map(entry).collect::<Vec<_>>());
            for at in 0..count {
                let found = entries.find(&format!("key{at}")).map(|entry| entry.key_span.line);
                assert_eq!(found, u32::try_from(at).ok(), "{at} of {count}");
            }
            assert!(entries.find("key").is_none() && entries.find("missing").is_none());
            assert_eq!(entries.into_list().len(), count);
        }
    }
}

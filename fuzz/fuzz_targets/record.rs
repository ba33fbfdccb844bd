//! Records: no panic, fields lie within the record, and what was read is written and read again.

#![no_main]

use baton_contract::record::{Reader, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = Reader::new(input) else { return };
    let mut writer = Writer::new(reader.kind, reader.version);
    let mut found = Vec::new();
    for tag in 0..0x8000 {
        let Some(value) = reader.maybe_bytes(tag) else { continue };
        assert!(value.len() <= input.len());
        // Each of them may fail, none may panic.
        let _ = (reader.maybe(tag), reader.flag(tag), reader.text(tag), reader.narrow::<u16>(tag));
        if let Ok(items) = reader.list(tag) {
            assert!(items.iter().map(|item| item.len() + 4).sum::<usize>() == value.len());
        }
        writer.bytes(tag, value);
        found.push((tag, value));
    }
    // Every field was asked for, so nothing critical is left.
    assert_eq!(reader.finish(), Ok(()));
    let bytes = writer.finish();
    let mut again = Reader::new(&bytes).expect("a record that was just written");
    for (tag, value) in found {
        assert_eq!(again.maybe_bytes(tag), Some(value));
    }
    assert_eq!(again.finish(), Ok(()));
});

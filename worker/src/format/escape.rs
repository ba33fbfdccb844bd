//! Makes bytes from the network safe to print: one value never spans two lines nor ends the quotes it
//! stands in, and a line is always valid UTF-8.

/// Escapes everything from `start` to the end of `out` in place.
pub(super) fn tail(out: &mut Vec<u8>, start: usize) {
    let Some(value) = out.get(start..) else { return };
    // Without an end at the first other byte the compiler looks at many bytes at once.
    let is_plain = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
    if value.iter().fold(true, |plain, byte| plain & is_plain(byte)) {
        return;
    }
    let raw = value.to_vec();
    out.truncate(start);
    for chunk in raw.utf8_chunks() {
        for character in chunk.valid().chars() {
            let ends = matches!(character, '"' | '\\');
            if ends || (character.is_control() && character != '\t') {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    hex(out, byte);
                }
            } else {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for byte in chunk.invalid() {
            hex(out, *byte);
        }
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS[usize::from(nibble & 0xf)];
    out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
}

//! Characters that JSON writes as two escapes.

use std::borrow::Cow;

/// JSON writes a character beyond the first 65,536 as two escapes, which YAML does not know.
pub(super) fn join(text: &str) -> Cow<'_, str> {
    let is_json = text.trim_start().starts_with(['{', '[']);
    if !is_json || !(text.contains("\\ud") || text.contains("\\uD")) {
        return Cow::Borrowed(text);
    }
    let half = |rest: &str| {
        let digits = rest.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let high = half(rest).filter(|n| (0xd800..0xdc00).contains(n));
        let low = rest.get(6..).and_then(half).filter(|n| (0xdc00..0xe000).contains(n));
        let length = if let (Some(high), Some(low)) = (high, low) {
            let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            out.extend([format!("\\U{code:08x}")]);
            12
        } else if c == '\\' {
            // An escaped backslash must not be taken for the start of an escape.
            let length = 1 + rest.chars().nth(1).map_or(0, char::len_utf8);
            out.push_str(rest.get(..length).unwrap_or_default());
            length
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    Cow::Owned(out)
}

//! Log lines as JSON: always one line, always valid, whatever a client sent.

use crate::{
    config::access_log::JsonNode,
    format::{Format, Missing, Outcome},
    http::stream_info::LogContext,
};

/// Appends one JSON value.
pub(super) fn write(out: &mut Vec<u8>, node: &JsonNode, omit_empty: bool, cx: &LogContext<'_>) {
    if !value(out, node, omit_empty, cx) {
        out.extend_from_slice(b"null");
    }
}

/// Appends a value, or nothing and `false` when it is missing and may be left out.
fn value(out: &mut Vec<u8>, node: &JsonNode, omit_empty: bool, cx: &LogContext<'_>) -> bool {
    let before = out.len();
    match node {
        JsonNode::Object(fields) => {
            out.push(b'{');
            for (name, node) in fields {
                let start = out.len();
                string(out, name.as_bytes());
                out.push(b':');
                item(out, start, node, omit_empty, cx);
            }
            close(out, b'}');
            // An object all of whose fields were left out is left out as well.
            if omit_empty && out.len() == before + 2 {
                out.truncate(before);
                return false;
            }
        }
        JsonNode::Array(items) => {
            out.push(b'[');
            for node in items {
                let start = out.len();
                item(out, start, node, omit_empty, cx);
            }
            close(out, b']');
        }
        JsonNode::Format(format) => return text(out, format, omit_empty, cx),
        JsonNode::Literal(literal) => out.extend_from_slice(literal.to_string().as_bytes()),
    }
    true
}

/// Appends a value and a comma; when it is left out, all from `start` on goes with it.
fn item(out: &mut Vec<u8>, start: usize, node: &JsonNode, omit_empty: bool, cx: &LogContext<'_>) {
    if value(out, node, omit_empty, cx) {
        out.push(b',');
    } else if omit_empty {
        out.truncate(start);
    } else {
        out.extend_from_slice(b"null,");
    }
}

/// Puts the bracket in the place of the last comma.
fn close(out: &mut Vec<u8>, bracket: u8) {
    match out.last_mut() {
        Some(last) if *last == b',' => *last = bracket,
        Some(_) | None => out.push(bracket),
    }
}

/// Appends a format: one operator alone keeps its type, everything else is a string.
fn text(out: &mut Vec<u8>, format: &Format, omit_empty: bool, cx: &LogContext<'_>) -> bool {
    let start = out.len();
    if let Some(operator) = format.as_operator() {
        match operator.evaluate(out, cx) {
            Outcome::Missing => return false,
            Outcome::Number => return true,
            Outcome::Text => {}
        }
    } else {
        let missing = if omit_empty { Missing::Nothing } else { Missing::Dash };
        format.write_raw(out, cx, missing);
    }
    quote(out, start);
    true
}

/// Appends a string literal.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.extend_from_slice(bytes);
    quote(out, start);
}

/// Makes everything from `start` on a string literal. Bytes that are not UTF-8 are shown as the
/// Latin-1 characters they would be.
fn quote(out: &mut Vec<u8>, start: usize) {
    let Some(value) = out.get(start..) else { return };
    if value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\')) {
        out.insert(start, b'"');
        out.push(b'"');
        return;
    }
    let raw = value.to_vec();
    out.truncate(start);
    out.push(b'"');
    for chunk in raw.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // Some readers take U+2028 and U+2029 for line ends.
                _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                    escape(out, u32::from(character));
                }
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            escape(out, u32::from(*byte));
        }
    }
    out.push(b'"');
}

/// Appends `\uXXXX`; the code is below 0x10000.
fn escape(out: &mut Vec<u8>, code: u32) {
    out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
}

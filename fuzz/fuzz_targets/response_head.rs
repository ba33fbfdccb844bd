//! Response heads: no panic, one verdict however split, and what leaves is read back as the same
//! response. The first byte says what kind of request it answers.

#![no_main]

use baton_worker::http::h1::response::{Answers, ParsedResponse, ResponseError, parse};
use baton_worker::http::h1::{Limits, encode};
use baton_worker::http::head::ResponseHead;
use libfuzzer_sys::fuzz_target;

fn limits() -> Limits {
    Limits { max_head_bytes: 512, max_headers: 12, ..Limits::default() }
}

/// The verdict on the shortest prefix that has one.
fn byte_by_byte(input: &[u8], answers: Answers) -> Result<Option<ParsedResponse>, ResponseError> {
    let mut head = ResponseHead::default();
    (0..=input.len())
        .map(|end| parse(&input[..end], &limits(), answers, &mut head))
        .find(|verdict| *verdict != Ok(None))
        .unwrap_or(Ok(None))
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, input)) = input.split_first() else { return };
    let answers = match kind % 4 {
        0 => Answers::Plain,
        1 => Answers::Head,
        2 => Answers::Connect,
        _ => Answers::Upgrade,
    };
    let mut head = ResponseHead::default();
    let whole = parse(input, &limits(), answers, &mut head);
    assert_eq!(whole, byte_by_byte(input, answers));
    let Ok(Some(parsed)) = whole else { return };

    let mut wire = Vec::new();
    let connection = match &parsed.upgrade {
        Some(protocol) => encode::Connection::Upgrade(protocol.as_bytes()),
        None => encode::Connection::Default,
    };
    encode::response(&mut wire, &head, parsed.framing, parsed.content_length, connection);
    let room = Limits { max_head_bytes: 4096, max_headers: 64, ..limits() };
    let mut again = ResponseHead::default();
    let second = parse(&wire, &room, answers, &mut again).unwrap().unwrap();
    assert_eq!(second.head_len, wire.len());
    assert_eq!((second.framing, again.status), (parsed.framing, head.status));
    assert_eq!(second.follows, parsed.follows);
});

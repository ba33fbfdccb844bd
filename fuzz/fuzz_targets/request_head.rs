//! Request heads: no panic, one verdict however split, and what leaves is read back as the same
//! request by us and as the same header lines by `httparse`.

#![no_main]

use baton_worker::config::hcm::EscapedSlashes;
use baton_worker::http::h1::{Limits, encode, request};
use baton_worker::http::head::RequestHead;
use baton_worker::http::path::{PathPolicy, normalize};
use libfuzzer_sys::fuzz_target;

/// Request targets and heads small enough for the engine to find their limits.
fn limits() -> Limits {
    Limits { max_head_bytes: 512, max_uri_bytes: 64, max_headers: 12, ..Limits::default() }
}

/// The verdict on the shortest prefix that has one.
fn byte_by_byte(input: &[u8], head: &mut RequestHead) -> Result<Option<usize>, u16> {
    for end in 0..=input.len() {
        match request::parse(&input[..end], &limits(), head) {
            Ok(None) => {}
            Ok(Some(parsed)) => return Ok(Some(parsed.head_len)),
            Err(reject) => return Err(reject.status),
        }
    }
    Ok(None)
}

fuzz_target!(|input: &[u8]| {
    let mut head = RequestHead::default();
    let whole = request::parse(input, &limits(), &mut head);
    let verdict = whole.map(|p| p.map(|p| p.head_len)).map_err(|r| r.status);
    assert_eq!(verdict, byte_by_byte(input, &mut RequestHead::default()));
    let Ok(Some(parsed)) = whole else { return };

    let mut wire = Vec::new();
    encode::request(&mut wire, &head, parsed.framing, encode::Connection::Default);
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut slots);
    assert_eq!(other.parse(&wire), Ok(httparse::Status::Complete(wire.len())));
    let framing = |h: &&httparse::Header<'_>| {
        matches!(h.name, "content-length" | "transfer-encoding")
    };
    assert!(other.headers.iter().filter(framing).count() <= 1);
    assert_eq!(other.headers.iter().filter(|h| h.name == "host").count(), 1);

    // The head that left may be larger than the one that came by what we say explicitly.
    let room = Limits { max_head_bytes: 4096, max_headers: 64, ..limits() };
    let mut again = RequestHead::default();
    let second = request::parse(&wire, &room, &mut again).ok().flatten().map(|p| p.head_len);
    assert_eq!(second, Some(wire.len()));
    assert_eq!((&again.method, &again.path, &again.authority), (&head.method, &head.path, &head.authority));

    let escaped_slashes = EscapedSlashes::UnescapeAndForward;
    let policy = PathPolicy { normalize: true, merge_slashes: true, escaped_slashes };
    if normalize(&mut head.path, &policy).is_ok() {
        let once = head.path.clone();
        assert!(normalize(&mut head.path, &policy).is_ok());
        assert_eq!(once, head.path);
    }
});

//! Properties over random and mutated bytes: same verdict however split, no panic, and what
//! leaves is read back as the same message.

use crate::harness::{read_request, read_response};
use baton_worker::http::h1::body::{Decoder, write_chunk, write_last_chunk};
use baton_worker::http::h1::response::Answers;
use baton_worker::http::h1::{Framing, Limits};
use baton_worker::http::headers::Headers;
use baton_worker::http::path::{PathPolicy, normalize};
use proptest::prelude::*;

/// Pieces that hostile heads are made of.
const PIECES: &[&str] = &[
    "GET ",
    "POST ",
    "CONNECT ",
    "/",
    "/a?b",
    "*",
    "http://h/x",
    "a:80",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/2.0\r\n",
    "Host: a\r\n",
    "Host: b\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: x\r\n",
    "Connection: close\r\n",
    "Connection: x-a, host\r\n",
    "Expect: 100-continue\r\n",
    "X-A: 1\r\n",
    "X:",
    "\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    "\0",
    ":",
    "\r\n\r\n",
    "3\r\nabc\r\n",
    "0\r\n",
    "5;x\r\n",
    "0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 C\r\n\r\n",
    "HTTP/1.1 304 X\r\n",
    "\u{e9}",
];

pub(crate) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => prop::sample::select(PIECES).prop_map(|p| p.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop_oneof![
        2 => prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat()),
        3 => (well_formed(), any::<prop::sample::Index>(), any::<u8>(), 0..3_u8).prop_map(mutate),
        1 => prop::collection::vec(any::<u8>(), 0..80),
    ]
}

/// Changes, removes or inserts one byte.
fn mutate((mut text, at, byte, how): (Vec<u8>, prop::sample::Index, u8, u8)) -> Vec<u8> {
    let at = at.index(text.len());
    match how {
        0 => text[at] = byte,
        1 => {
            text.remove(at);
        }
        _ => text.insert(at, byte),
    }
    text
}

/// A request that must be accepted.
pub(crate) fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let line = ("[a-zA-Z0-9]{1,8}", "[ -~]{0,20}").prop_map(|(n, v)| format!("x-{n}: {v}\r\n"));
    let lines = prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat());
    let body = prop_oneof![
        Just(String::from("\r\n")),
        "[a-z\r\n]{0,9}".prop_map(|b| format!("Content-Length: {}\r\n\r\n{b}", b.len())),
        "[a-z\r\n]{1,9}".prop_map(|b| {
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{b}\r\n0\r\nx-t: 1\r\n\r\n", b.len())
        }),
    ];
    ("(GET|POST|PUT|M-X)", "/[a-z0-9/]{0,12}(\\?[a-z=&%]{0,8})?", lines, body).prop_map(
        |(method, path, lines, body)| {
            format!("{method} {path} HTTP/1.1\r\n{lines}Host: h.example:80\r\n{body}").into_bytes()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_get_one_verdict_however_split(input in hostile(), size in 1..9_usize) {
        let limits = Limits::default();
        let mut whole = read_request([&*input], &limits);
        let mut split = read_request(input.chunks(size), &limits);
        if whole.status != 200 {
            (whole.rest, split.rest) = (Vec::new(), Vec::new());
        }
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn responses_get_one_verdict_however_split(input in hostile(), size in 1..9_usize) {
        let limits = Limits::default();
        let mut input = input;
        if input.first() != Some(&b'H') {
            input.splice(..0, b"HTTP/1.1 200 OK\r\n".iter().copied());
        }
        for answers in [Answers::Plain, Answers::Head, Answers::Upgrade] {
            let whole = read_response([&*input], &limits, answers);
            prop_assert_eq!(&whole, &read_response(input.chunks(size), &limits, answers));
        }
    }

    #[test]
    fn what_leaves_is_read_back_as_the_same_message(input in well_formed()) {
        let limits = Limits::default();
        let first = read_request([&*input], &limits);
        prop_assert_eq!(first.status, 200);
        let mut wire = first.head.replace('|', "\r\n").into_bytes();
        // The generated values may contain the separator that the harness prints.
        prop_assume!(!input.contains(&b'|'));
        if first.head.contains("transfer-encoding") {
            write_chunk(&mut wire, &first.body);
            let mut trailers = Headers::default();
            trailers.append(b"x-t", b"1");
            write_last_chunk(&mut wire, &trailers);
        } else {
            wire.extend_from_slice(&first.body);
        }
        prop_assert_eq!(first, read_request([&*wire], &limits));
    }

    #[test]
    fn bytes_that_others_move_count_like_those_that_are_decoded(length in 1..10_000_usize, moved in prop::collection::vec((any::<bool>(), 1..3000_usize), 1..20)) {
        let mut decoder = Decoder::new(Framing::Length(length as u64));
        let mut left = length;
        for (skip, count) in moved {
            let count = left.min(count);
            if skip {
                decoder.skip(count as u64);
            } else {
                decoder.decode(&vec![0; count]).unwrap();
            }
            left -= count;
            prop_assert_eq!(decoder.remaining(), Some(left as u64));
            prop_assert_eq!(decoder.is_done(), left == 0);
        }
    }

    #[test]
    fn chunks_written_are_chunks_read(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6), size in 1..50_usize) {
        let mut wire = Vec::new();
        for piece in &pieces {
            write_chunk(&mut wire, piece);
        }
        write_last_chunk(&mut wire, &Headers::default());
        let mut decoder = Decoder::new(Framing::Chunked);
        let (mut body, mut pending) = (Vec::new(), Vec::new());
        for piece in wire.chunks(size) {
            pending.extend_from_slice(piece);
            loop {
                let step = decoder.decode(&pending).unwrap();
                body.extend_from_slice(&pending[step.data]);
                pending.drain(..step.consumed);
                if step.consumed == 0 || step.done {
                    break;
                }
            }
        }
        prop_assert!(decoder.is_done() && pending.is_empty());
        prop_assert_eq!(body, pieces.concat());
    }

    #[test]
    fn normalising_twice_is_normalising_once(path in "/([a-c./\\\\]|%2e|%2F|%41|%25|%zz|%5c|%00){0,12}(\\?[./%]{0,4})?", merge: bool) {
        use baton_worker::config::hcm::EscapedSlashes::{Keep, Reject, UnescapeAndForward};
        for escaped_slashes in [Keep, Reject, UnescapeAndForward] {
            let policy = PathPolicy { normalize: true, merge_slashes: merge, escaped_slashes };
            let mut once = path.clone().into_bytes();
            if normalize(&mut once, &policy).is_ok() {
                prop_assert!(once.starts_with(b"/"));
                let part = once.split(|b| *b == b'?').next().unwrap();
                prop_assert!(!part.split(|b| *b == b'/').any(|s| s == b"." || s == b".."));
                let mut twice = once.clone();
                prop_assert!(normalize(&mut twice, &policy).is_ok());
                prop_assert_eq!(once, twice);
            }
        }
    }
}

//! Chunked bodies: no panic, one result however split, and what we write is read back. The first
//! byte is the size of the pieces.

#![no_main]

use baton_worker::http::h1::Framing;
use baton_worker::http::h1::body::{BodyError, Decoder, write_chunk, write_last_chunk};
use libfuzzer_sys::fuzz_target;

/// Body, trailers as text, and whether it ended.
type Read = (Vec<u8>, Vec<u8>, bool);

fn read(input: &[u8], size: usize) -> Result<Read, BodyError> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut body, mut pending) = (Vec::new(), Vec::new());
    for piece in input.chunks(size) {
        pending.extend_from_slice(piece);
        loop {
            let step = decoder.decode(&pending)?;
            assert!(step.data.end <= step.consumed && step.consumed <= pending.len());
            body.extend_from_slice(&pending[step.data]);
            pending.drain(..step.consumed);
            if step.consumed == 0 || step.done {
                break;
            }
        }
    }
    let mut trailers = Vec::new();
    decoder.trailers().write_to(&mut trailers);
    Ok((body, trailers, decoder.is_done()))
}

fuzz_target!(|input: &[u8]| {
    let Some((size, input)) = input.split_first() else { return };
    let whole = read(input, input.len().max(1));
    assert_eq!(whole, read(input, usize::from(*size).max(1)));
    let Ok((body, _, _)) = whole else { return };

    let mut wire = Vec::new();
    body.chunks(usize::from(*size).max(1)).for_each(|piece| write_chunk(&mut wire, piece));
    write_last_chunk(&mut wire, &Default::default());
    assert_eq!(read(&wire, 7), Ok((body, Vec::new(), true)));
});

//! Frames and messages of the handoff channel, both directions, and of the channel between two
//! workers: no panic, and what is understood is said again in a form that means the same.

#![no_main]

use baton_contract::{
    frame::Frame,
    generation::Generation,
    message::{FromWorker, ToWorker},
    peer::Message,
};
use libfuzzer_sys::fuzz_target;

fn meanings(frame: &Frame) {
    if let Ok(message) = FromWorker::from_frame(frame)
        && let Ok(again) = message.to_frame(Generation(1), frame.seq, frame.nfds)
    {
        assert_eq!(FromWorker::from_frame(&again).unwrap(), message);
    }
    if let Ok(message) = ToWorker::from_frame(frame)
        && let Ok(again) = message.to_frame(Generation(1), frame.seq, frame.nfds)
    {
        assert_eq!(ToWorker::from_frame(&again).unwrap(), message);
    }
    if let Ok(message) = Message::from_frame(frame)
        && let Ok(again) = message.to_frame(Generation(1), frame.seq, frame.nfds)
    {
        assert_eq!(Message::from_frame(&again), Ok(message));
    }
}

fuzz_target!(|input: &[u8]| {
    if let Ok(frame) = Frame::decode(input) {
        assert_eq!(frame.encode().unwrap(), input);
        meanings(&frame);
    }
    // No fuzzer finds a checksum: the same bytes as kind and body of a frame that is right.
    let Some((kind, body)) = input.split_first_chunk::<2>() else { return };
    let kind = u16::from_le_bytes(*kind);
    let body = body.to_vec();
    let frame = Frame { version: 1, kind, flags: 0, nfds: 0, seq: 1, generation: 1, body };
    if let Ok(packet) = frame.encode() {
        assert_eq!(Frame::decode(&packet), Ok(frame.clone()));
    }
    meanings(&frame);
});

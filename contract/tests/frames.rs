//! Properties of the frame codec.
#![allow(clippy::expect_used, reason = "a test may fail")]

use baton_contract::{
    frame::{Frame, FrameError, HEADER_LEN, MAX_BODY_LEN, MAX_FDS},
    message::{FromWorker, ToWorker},
};
use proptest::{collection::vec, prelude::*};

prop_compose! {
    fn frames()(
        version in any::<u16>(),
        kind in any::<u16>(),
        flags in any::<u16>(),
        nfds in 0..=u16::try_from(MAX_FDS).unwrap_or(0),
        seq in any::<u64>(),
        generation in any::<u64>(),
        body in vec(any::<u8>(), 0..300),
    ) -> Frame {
        Frame { version, kind, flags, nfds, seq, generation, body }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frame in frames()) {
        let bytes = frame.encode().expect("encode");
        prop_assert_eq!(bytes.len(), HEADER_LEN + frame.body.len());
        prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
    }

    #[test]
    fn every_truncation_and_every_extension_is_an_error(frame in frames()) {
        let mut bytes = frame.encode().expect("encode");
        for end in 0..bytes.len() {
            prop_assert!(Frame::decode(bytes.get(..end).expect("shorter")).is_err());
        }
        bytes.push(0);
        prop_assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed(frame in frames(), at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut bytes = frame.encode().expect("encode");
        let at = at.index(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1_u8 << bit;
        }
        prop_assert!(Frame::decode(&bytes).is_err());
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..400)) {
        let _ignored = Frame::decode(&bytes);
    }

    #[test]
    fn garbage_in_a_body_never_panics(kind in 0_u16..50, body in "[\\[\\]{}\":,0-9a-z ]{0,60}") {
        let frame =
            Frame { version: 1, kind, flags: 0, nfds: 0, seq: 1, generation: 0, body: body.into() };
        drop((FromWorker::from_frame(&frame), ToWorker::from_frame(&frame)));
    }
}

#[test]
fn limits_hold_in_both_directions() {
    let frame = |nfds, len| Frame {
        version: 1,
        kind: 1,
        flags: 0,
        nfds,
        seq: 1,
        generation: 0,
        body: vec![b' '; len],
    };
    assert!(frame(253, MAX_BODY_LEN).encode().is_ok());
    assert_eq!(frame(254, 0).encode(), Err(FrameError::TooManyDescriptors { named: 254 }));
    let got = MAX_BODY_LEN + 1;
    assert_eq!(frame(0, got).encode(), Err(FrameError::TooLong { got }));
}

//! Good messages that something happened to, many times, each the same for the same seed: nobody
//! panics, and what is still understood is said again in a form that means the same.
//!
//! `fuzz/` has the same properties for coverage-guided runs.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

use std::sync::LazyLock;

use baton_contract::{
    frame::Frame,
    generation::Generation,
    message::{FromWorker, ToWorker},
    peer::{Message, Stay},
    record::Reader,
    shm::Ticket,
};
use proptest::prelude::*;

/// A frame of every message: of version 1 from the golden file, and between workers.
static FRAMES: LazyLock<Vec<Frame>> = LazyLock::new(frames);

fn frames() -> Vec<Frame> {
    let golden = include_str!("data/frames-v1.txt");
    let mut frames: Vec<Frame> = golden
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter_map(unhex)
        .filter_map(|packet| Frame::decode(&packet).ok())
        .collect();
    assert!(frames.len() >= 19, "only {} golden frames", frames.len());
    let ticket = Ticket { index: 3, nonce: 99 };
    let peers = [
        Message::Config { hash: 7, path: "envoy.yaml".to_owned() },
        Message::Offer { ticket, record: Some(vec![0; 40]) },
        Message::Accept(vec![ticket; 5]),
        Message::Reject(ticket, Stay::Busy),
        Message::Commit(vec![ticket]),
        Message::Withdraw(vec![ticket; 2]),
    ];
    frames.extend(peers.iter().map(|m| m.to_frame(Generation(2), 5, 0).expect("a frame")));
    frames
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// One thing that happens to bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (index(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (index(), index()).prop_map(|(a, b)| Mutation::Cut(a, b)),
        (index(), index()).prop_map(|(a, b)| Mutation::Repeat(a, b)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let places = bytes.len() + 1;
    let range = |a: &prop::sample::Index, b: &prop::sample::Index| {
        let (a, b) = (a.index(places), b.index(places));
        a.min(b)..a.max(b)
    };
    match mutation {
        Mutation::Flip(at, bits) => {
            let at = at.index(places);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
        }
        Mutation::Insert(at, new) => {
            let at = at.index(places);
            drop(bytes.splice(at..at, new.iter().copied()));
        }
        Mutation::Cut(a, b) => drop(bytes.drain(range(a, b))),
        Mutation::Repeat(a, b) => {
            let part = bytes.get(range(a, b)).unwrap_or_default().to_vec();
            bytes.extend(part);
        }
    }
}

/// What is understood means the same when it is said again.
fn check(frame: &Frame) {
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
    if let Ok(mut reader) = Reader::new(&frame.body) {
        for tag in 0..16 {
            let length = reader.maybe_bytes(tag).map_or(0, <[u8]>::len);
            assert!(length <= frame.body.len());
            let items = reader.list(tag).unwrap_or_default();
            assert!(items.iter().map(|item| item.len()).sum::<usize>() <= length);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// The checksum is made right again, so that the damage reaches what lies behind it.
    #[test]
    fn a_damaged_body_is_refused_or_understood(
        which in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let mut frame = which.get(&FRAMES).clone();
        for mutation in &mutations {
            mutate(&mut frame.body, mutation);
        }
        check(&frame);
    }

    #[test]
    fn a_damaged_packet_is_no_frame_or_the_same_one(
        which in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let good = which.get(&FRAMES).clone();
        let mut packet = good.encode().expect("a frame");
        for mutation in &mutations {
            mutate(&mut packet, mutation);
        }
        if let Ok(frame) = Frame::decode(&packet) {
            prop_assert_eq!(&frame.encode().expect("a frame"), &packet);
            check(&frame);
        }
    }
}

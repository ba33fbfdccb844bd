//! Tests of the channel with real sockets.
use std::{fs::File, os::fd::AsFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::*;

fn frame(nfds: u16) -> Frame {
    Frame { version: 1, kind: 9, flags: 0, nfds, seq: 7, generation: 3, body: b"{}".to_vec() }
}

#[test]
fn a_frame_and_its_descriptors_arrive_close_on_exec() {
    let (left, right) = Channel::pair().expect("pair");
    let file = File::open("/dev/null").expect("open");
    let fds = vec![file.as_fd(); MAX_FDS];
    let sent = frame(u16::try_from(MAX_FDS).expect("fits"));
    left.send(&sent, &fds).expect("send");
    let (received, fds) = right.recv().expect("recv").expect("open");
    assert_eq!(received, sent);
    assert_eq!(fds.len(), MAX_FDS);
    for fd in &fds {
        let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).expect("flags"));
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }
}

#[test]
fn the_number_of_descriptors_must_match_the_frame() {
    let (left, right) = Channel::pair().expect("pair");
    let file = File::open("/dev/null").expect("open");
    let error = left.send(&frame(2), &[file.as_fd()]).expect_err("mismatch");
    assert!(matches!(error, SendError::Descriptors { named: 2, given: 1 }));

    // A peer that lies: three are announced, one is sent.
    let bytes = frame(3).encode().expect("encode");
    left.socket.send_with_fd(&bytes, &[file.as_raw_fd()]).expect("send");
    let error = right.recv().expect_err("mismatch");
    assert!(matches!(error, ReceiveError::Descriptors { named: 3, received: 1 }));
}

#[test]
fn garbage_is_an_error_and_the_next_frame_still_arrives() {
    let (left, right) = Channel::pair().expect("pair");
    left.socket.send(b"garbage").expect("send");
    left.send(&frame(0), &[]).expect("send");
    assert!(matches!(right.recv(), Err(ReceiveError::Frame(_))));
    assert_eq!(right.recv().expect("recv").expect("open").0, frame(0));
    assert!(matches!(right.recv(), Err(ReceiveError::Empty)));
}

#[test]
fn a_gone_peer_is_seen_by_both_directions() {
    let (left, right) = Channel::pair().expect("pair");
    drop(right);
    assert!(matches!(left.recv(), Ok(None)));
    assert!(matches!(left.send(&frame(0), &[]), Err(SendError::Closed)));
}

#[test]
fn an_outbox_keeps_order_over_a_full_channel() {
    let (left, right) = Channel::pair().expect("pair");
    let mut outbox = Outbox::default();
    for seq in 0..900 {
        outbox.push(Frame { seq, ..frame(0) }, Vec::new()).expect("push");
    }
    let mut expected = 0;
    assert_eq!(outbox.flush(&left).expect("flush"), Flushed::Waiting);
    while expected < 900 {
        match right.recv() {
            Ok(Some((frame, _))) => {
                assert_eq!(frame.seq, expected);
                expected += 1;
            }
            Err(ReceiveError::Empty) => {
                outbox.flush(&left).expect("flush");
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(outbox.is_empty());
}

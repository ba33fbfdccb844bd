//! With real sockets on the loopback interface.

use std::{
    future::poll_fn,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

use super::*;
use crate::{buffer::BufferPool, clock, http::h1::Framing};

/// A stream of ours and its peer.
fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Stream::adopt(listener.accept().unwrap().0.into()).unwrap(), peer)
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(std::time::Duration::from_secs(60), test).await.expect("in time");
    });
}

fn body(length: u64) -> Decoder {
    Decoder::new(Framing::Length(length))
}

#[test]
fn bytes_pass_in_order_and_never_more_than_the_body_has() {
    run(async {
        let (source, mut sender) = pair();
        let (sink, mut receiver) = pair();
        let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let length = sent.len() - 7;
        let all = sent.clone();
        let writer = std::thread::spawn(move || {
            sender.write_all(&all).unwrap();
            sender
        });
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; length];
            receiver.read_exact(&mut read).unwrap();
            (read, receiver)
        });
        let mut bulk = Bulk::default();
        let mut left = length;
        while left > 0 {
            let fill = poll_fn(|cx| bulk.poll_fill(cx, &source, left, clock::now()));
            let count = fill.await.unwrap().expect("a pipe");
            assert!((1..=left).contains(&count) && bulk.waiting() == count);
            left -= count;
            while bulk.waiting() > 0 {
                poll_fn(|cx| bulk.poll_drain(cx, &sink)).await.unwrap();
            }
        }
        // The peers stay open until here.
        let (read, _receiver) = reader.join().unwrap();
        let _sender = writer.join().unwrap();
        assert!(read == sent[..length], "other bytes");
        let mut rest = [0; 100];
        poll_fn(|cx| source.poll_read_ready(cx)).await.unwrap();
        assert_eq!(source.try_read(&mut rest).unwrap(), 7, "what follows the body is left alone");
    });
}

#[test]
fn a_pipe_is_for_long_bodies_between_tcp_sockets() {
    run(async {
        let (a, _peer_of_a) = pair();
        let (b, _peer_of_b) = pair();
        let bulk = Bulk::default();
        assert_eq!(bulk.left(&body(WORTHWHILE), (&a, &b)), Some(WORTHWHILE));
        assert_eq!(bulk.left(&body(WORTHWHILE - 1), (&a, &b)), None);
        assert_eq!(bulk.left(&Decoder::new(Framing::Chunked), (&a, &b)), None);
        assert_eq!(bulk.left(&Decoder::new(Framing::UntilClose), (&a, &b)), None);
        let unix = Stream::adopt(UnixStream::pair().unwrap().0.into()).unwrap();
        assert_eq!(bulk.left(&body(WORTHWHILE), (&a, &unix)), None);
        assert_eq!(bulk.left(&body(WORTHWHILE), (&unix, &b)), None);
    });
}

#[test]
fn a_body_that_comes_in_small_pieces_is_copied_in_the_end() {
    run(async {
        let (source, mut sender) = pair();
        let (sink, mut receiver) = pair();
        let mut bulk = Bulk::default();
        for _ in 0..SMALL_MOVES {
            assert!(bulk.left(&body(1 << 20), (&source, &sink)).is_some());
            sender.write_all(b"piece").unwrap();
            let fill = poll_fn(|cx| bulk.poll_fill(cx, &source, 1 << 20, clock::now()));
            assert_eq!(fill.await.unwrap(), Some(5));
            poll_fn(|cx| bulk.poll_drain(cx, &sink)).await.unwrap();
            receiver.read_exact(&mut [0; 5]).unwrap();
        }
        assert_eq!(bulk.left(&body(1 << 20), (&source, &sink)), None);
    });
}

#[test]
fn others_get_their_turn_after_a_mebibyte() {
    run(async {
        let (source, mut sender) = pair();
        let (sink, mut receiver) = pair();
        let writer = std::thread::spawn(move || drop(sender.write_all(&vec![0; 4 << 20])));
        let reader = std::thread::spawn(move || drop(receiver.read_to_end(&mut Vec::new())));
        let now = clock::now();
        let mut bulk = Bulk::default();
        let mut moved = 0;
        while moved < TURN {
            let fill = poll_fn(|cx| bulk.poll_fill(cx, &source, 1 << 20, now)).await;
            moved += fill.unwrap().expect("a pipe");
            while bulk.waiting() > 0 {
                poll_fn(|cx| bulk.poll_drain(cx, &sink)).await.unwrap();
            }
        }
        poll_fn(|cx| {
            assert!(bulk.poll_fill(cx, &source, 1 << 20, now).is_pending());
            Poll::Ready(())
        })
        .await;
        let later = now + std::time::Duration::from_nanos(1);
        assert!(poll_fn(|cx| bulk.poll_fill(cx, &source, 1 << 20, later)).await.is_ok());
        drop((source, sink));
        writer.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn what_waits_in_the_pipe_can_be_put_behind_the_queue() {
    run(async {
        let (source, mut sender) = pair();
        sender.write_all(b"the pipe").unwrap();
        let mut bulk = Bulk::default();
        poll_fn(|cx| bulk.poll_fill(cx, &source, 1 << 20, clock::now())).await.unwrap();
        let mut queue = Outbound::new(&BufferPool::default());
        queue.extend(b"the queue, ");
        bulk.empty_to(&mut queue).unwrap();
        assert_eq!((queue.to_vec(), bulk.waiting()), (b"the queue, the pipe".to_vec(), 0));
    });
}

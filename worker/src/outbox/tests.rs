//! Messages of real sockets, one turn after the other.

use std::{
    collections::VecDeque,
    io::Read as _,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use proptest::prelude::*;
use tokio::task::{LocalSet, yield_now};

use super::*;
use crate::{buffer::BufferPool, transport::Stream};

/// Counts how often it is woken.
#[derive(Default)]
struct Owner(AtomicUsize);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn nobody() -> Waker {
    Arc::new(Owner::default()).into()
}

/// Runs with a sender, as in a worker thread.
fn with_sender<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(run());
        yield_now().await;
        test.await
    })
}

/// A socket of ours and its peer, which does not block.
fn pair() -> (Stream, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    (Stream::adopt(ours.into()).unwrap(), peer)
}

fn message(bytes: &[u8]) -> Outbound {
    let mut out = Outbound::new(&BufferPool::default());
    out.extend(bytes);
    out
}

/// What has arrived.
fn arrived(mut peer: &UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let count = peer.read(&mut bytes).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

/// Writes until the socket takes no more.
fn fill(stream: &Stream) -> usize {
    let mut total = 0;
    while let Ok(count) = send(stream.as_raw_fd(), &[0; 4096], MsgFlags::MSG_DONTWAIT) {
        total += count;
    }
    total
}

#[test]
fn messages_leave_at_the_end_of_the_turn() {
    with_sender(async {
        let sockets: Vec<_> = (0..3).map(|_| pair()).collect();
        for (stream, peer) in &sockets {
            let mut out = message(b"hello");
            let ticket = stream.post(&mut out, &nobody()).unwrap();
            assert!(ticket.is_open() && out.is_empty());
            assert_eq!(arrived(peer), b"", "it was sent at once");
        }
        yield_now().await;
        for (stream, peer) in &sockets {
            assert_eq!(arrived(peer), b"hello");
            assert!(stream.recall().is_none());
        }
    });
}

#[test]
fn without_a_sender_nothing_is_taken() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (stream, _peer) = pair();
        let mut out = message(b"hello");
        assert!(stream.post(&mut out, &nobody()).is_none());
        assert_eq!(out.to_vec(), b"hello");
    });
}

#[test]
fn a_second_message_of_a_socket_and_a_large_one_are_not_taken() {
    with_sender(async {
        let (stream, peer) = pair();
        let mut large = message(&vec![b'x'; LARGEST + 1]);
        assert!(stream.post(&mut large, &nobody()).is_none());
        assert_eq!(large.len(), LARGEST + 1);
        stream.post(&mut message(b"first"), &nobody()).unwrap();
        let mut second = message(b"second");
        assert!(stream.post(&mut second, &nobody()).is_none());
        assert_eq!(second.to_vec(), b"second");
        assert!(stream.recall().is_none(), "the first one went");
        assert_eq!(arrived(&peer), b"first");
        assert!(stream.post(&mut second, &nobody()).is_some());
    });
}

#[test]
fn what_finds_no_room_comes_back_and_its_owner_is_woken() {
    with_sender(async {
        let (stream, peer) = pair();
        let filled = fill(&stream);
        let owner = Arc::new(Owner::default());
        let ticket = stream.post(&mut message(b"late"), &Arc::clone(&owner).into()).unwrap();
        yield_now().await;
        assert_eq!(owner.0.load(Ordering::Relaxed), 1);
        assert!(ticket.is_open());
        let returned = stream.recall().unwrap();
        assert!(returned.error.is_none() && returned.sent == 0);
        assert_eq!(returned.unsent.to_vec(), b"late");
        assert!(!ticket.is_open() && stream.recall().is_none());
        assert_eq!(arrived(&peer).len(), filled.min(1 << 20));
    });
}

#[test]
fn an_error_comes_back_with_the_message() {
    with_sender(async {
        let (stream, peer) = pair();
        drop(peer);
        stream.post(&mut message(b"lost"), &nobody()).unwrap();
        yield_now().await;
        let returned = stream.recall().unwrap();
        assert_eq!(returned.error.unwrap().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(returned.unsent.to_vec(), b"lost");
    });
}

#[test]
fn closing_sends_what_waits_and_forgets_what_came_back() {
    with_sender(async {
        let (stream, mut peer) = pair();
        stream.post(&mut message(b"last words"), &nobody()).unwrap();
        drop(stream);
        peer.set_nonblocking(false).unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"last words");

        let (stream, _peer) = pair();
        fill(&stream);
        let ticket = stream.post(&mut message(b"too late"), &nobody()).unwrap();
        yield_now().await;
        assert!(ticket.is_open());
        drop(stream);
        assert!(!ticket.is_open(), "the next socket of this number would get it");
    });
}

#[test]
fn many_messages_do_not_wait_for_the_end_of_the_turn() {
    with_sender(async {
        let sockets: Vec<_> = (0..MOST).map(|_| pair()).collect();
        for (stream, peer) in &sockets {
            assert_eq!(arrived(peer), b"");
            stream.post(&mut message(b"x"), &nobody()).unwrap();
        }
        for (_, peer) in &sockets {
            assert_eq!(arrived(peer), b"x");
        }
        let large = vec![b'y'; LARGEST];
        for (stream, _) in sockets.iter().take(MOST_BYTES.div_ceil(LARGEST)) {
            stream.post(&mut message(&large), &nobody()).unwrap();
        }
        assert_eq!(arrived(&sockets[0].1), large);
    });
}

/// What a test does with one of its sockets.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// As an owner does: posts, and writes itself what is not taken.
    Send(usize),
    /// The owner looks.
    Look,
    /// The peer reads.
    Read,
    /// The turn ends.
    Turn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![1..100_usize, 1000..LARGEST + 100].prop_map(Step::Send),
        2 => Just(Step::Look),
        1 => Just(Step::Read),
        3 => Just(Step::Turn),
    ]
}

/// An owner of a socket, with the bytes that its peer has to get.
struct Writer {
    stream: Stream,
    peer: UnixStream,
    out: Outbound,
    posted: Ticket,
    expected: VecDeque<u8>,
    next: u8,
}

impl Writer {
    fn new() -> Self {
        let (stream, peer) = pair();
        let out = message(b"");
        Self { stream, peer, out, posted: Ticket::default(), expected: VecDeque::new(), next: 0 }
    }

    fn look(&mut self) {
        if self.posted.is_open()
            && let Some(returned) = self.stream.recall()
        {
            self.out.put_first(returned.unsent);
        }
        if let Some(rest) = send_now(self.stream.as_raw_fd(), self.out.take()) {
            self.out.put_first(rest.unsent);
        }
    }

    fn send(&mut self, count: usize) {
        let bytes: Vec<u8> = (0..count).map(|_| self.number()).collect();
        self.expected.extend(&bytes);
        self.look();
        let was_empty = self.out.is_empty();
        self.out.extend(&bytes);
        if was_empty && let Some(ticket) = self.stream.post(&mut self.out, &nobody()) {
            self.posted = ticket;
        }
    }

    fn number(&mut self) -> u8 {
        self.next = (self.next + 1) % 251;
        self.next
    }

    fn read(&mut self) {
        for byte in arrived(&self.peer) {
            assert_eq!(Some(byte), self.expected.pop_front());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_arrives_once_and_in_order(
        steps in prop::collection::vec((0..4_usize, step()), 1..200)
    ) {
        with_sender(async move {
            let mut writers: Vec<_> = (0..4).map(|_| Writer::new()).collect();
            for (which, step) in steps {
                let writer = &mut writers[which];
                match step {
                    Step::Send(count) => writer.send(count),
                    Step::Look => writer.look(),
                    Step::Read => writer.read(),
                    Step::Turn => yield_now().await,
                }
            }
            for writer in &mut writers {
                while !writer.expected.is_empty() {
                    writer.look();
                    writer.read();
                }
            }
        });
    }
}

//! Queues of bytes, and which memory they use.

use super::*;

#[test]
fn bytes_come_out_in_the_order_they_went_in() {
    let pool = BufferPool::default();
    let mut inbound = Inbound::new(&pool);
    let mut out = Outbound::new(&pool);
    let big: Vec<u8> = (0..50_000u32).map(|n| n.to_le_bytes()[0]).collect();
    inbound.extend(&big);
    out.extend(b"head");
    inbound.transfer(10, &mut out);
    inbound.transfer(big.len() - 10, &mut out);
    out.extend(b"tail");
    let mut expected = b"head".to_vec();
    expected.extend_from_slice(&big);
    expected.extend_from_slice(b"tail");
    assert!(inbound.is_empty());
    assert_eq!(out.len(), expected.len());
    assert_eq!(out.take_all(), expected);
}

#[test]
fn an_emptied_queue_gives_its_buffer_back() {
    let pool = BufferPool::default();
    let mut inbound = Inbound::new(&pool);
    inbound.extend(b"x");
    inbound.consume(1);
    assert_eq!(pool.free.large.borrow().len(), 1);
    assert!(inbound.is_empty());
}

/// Gives some bytes at once, then nothing for now.
struct Trickle(Vec<&'static [u8]>);

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(bytes) = self.0.pop() else { return Poll::Pending };
        into.put_slice(bytes);
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_is_small_and_waits_is_in_a_small_buffer() {
    let pool = BufferPool::default();
    let mut out = Outbound::new(&pool);
    out.extend(b"head");
    assert_eq!(out.first.as_ref().unwrap().memory.len(), SMALL_BYTES);
    out.extend(&[b'x'; 3 * SMALL_BYTES]);
    assert_eq!(out.more[0].memory.len(), BUFFER_BYTES);
    assert_eq!(out.len(), 4 + 3 * SMALL_BYTES);

    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut inbound = Inbound::new(&pool);
    let mut socket = Trickle(vec![b" / HTTP/1.1", b"GET"]);
    assert!(inbound.poll_fill(&mut cx, &mut socket, BUFFER_BYTES).is_ready());
    assert_eq!(inbound.buffer.as_ref().unwrap().memory.len(), BUFFER_BYTES);
    assert!(inbound.poll_fill(&mut cx, &mut socket, BUFFER_BYTES).is_ready());
    assert!(inbound.poll_fill(&mut cx, &mut socket, BUFFER_BYTES).is_pending());
    assert_eq!(inbound.buffer.as_ref().unwrap().memory.len(), SMALL_BYTES);
    assert_eq!(inbound.data(), b"GET / HTTP/1.1");
    inbound.extend(&[b'y'; 2 * SMALL_BYTES]);
    assert_eq!(inbound.data().len(), 14 + 2 * SMALL_BYTES);
    drop((inbound, out));
    assert_eq!(pool.free.small.borrow().len(), 1);
    assert_eq!(pool.free.large.borrow().len(), 2);
}

#[test]
fn what_was_taken_goes_before_what_came_since() {
    let pool = BufferPool::default();
    let mut out = Outbound::new(&pool);
    out.extend(&[b'a'; 5000]);
    let taken = out.take();
    assert!(out.is_empty());
    out.put_first(taken);
    out.extend(b"b");
    let taken = out.take();
    out.extend(b"c");
    out.put_first(taken);
    out.extend(b"d");
    assert_eq!(out.len(), 5003);
    let mut expected = vec![b'a'; 5000];
    expected.extend_from_slice(b"bcd");
    assert_eq!(out.take_all(), expected);
}

//! Large bodies of known length, which go from socket to socket through a pipe of the kernel: no byte
//! of them is copied.
//!
//! ```text
//! one side ──→ buffer ──→ queue ──────→ the other side      the head, and what was read with it
//!    └───────────→ pipe ──────────────→ the other side      the rest, behind the queue
//! ```
//! The pipe is filled only when it is empty, which is the back-pressure, and is held only while there
//! are bytes in it. Before the connection is taken apart they are put into the queue.

use std::{
    io,
    ops::ControlFlow,
    task::{Context, Poll, ready},
    time::Instant,
};

use nix::errno::Errno;

use super::{
    attempt::Link,
    connection::{Connection, Flow, Phase},
    downstream::Downstream,
    exchange::{Exchange, ResponseState},
};
use crate::{
    buffer::Outbound, http::h1::body::Decoder, stats::EndReason, transport::Stream,
    tunnel::splice::Pipe,
};

/// What is left of a body goes through a pipe if it is at least so long, in bytes. What comes in one read is
/// copied in the time that the additional calls take.
const WORTHWHILE: u64 = 64 * 1024;
/// A move of less than this many bytes does not pay for the pipe.
const SMALL_MOVE: usize = 4 * 1024;
/// So many small moves in a row, and the rest of the body is copied.
const SMALL_MOVES: u32 = 8;
/// Bytes a connection moves before other tasks of the thread get their turn.
const TURN: usize = 1024 * 1024;

/// How a body goes through a pipe.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// There are bytes in it.
    pipe: Option<Pipe>,
    /// Not for this body any more.
    refused: bool,
    /// Small moves in a row.
    small: u32,
    /// When the connection's turn began, and bytes moved in it.
    turn: Option<(Instant, usize)>,
}

impl Bulk {
    /// Bytes that wait behind the queue.
    pub(super) fn waiting(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::filled)
    }

    /// Whether the pipe is worth it for what is left of the body, and possible: bytes left.
    fn left(&self, body: &Decoder, (source, sink): (&Stream, &Stream)) -> Option<u64> {
        let left = body.remaining().filter(|left| *left >= WORTHWHILE)?;
        let both_tcp = matches!((source, sink), (Stream::Tcp(_), Stream::Tcp(_)));
        (both_tcp && !self.refused).then_some(left)
    }

    /// Moves up to `most` bytes from the socket into the pipe, which is empty; 0 at the end of the stream.
    /// `None` when the body is to be copied from now on.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &Stream,
        most: usize,
        now: Instant,
    ) -> Poll<io::Result<Option<usize>>> {
        let moved = self.turn.filter(|(began, _)| *began == now).map_or(0, |(_, moved)| moved);
        if moved >= TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(source.poll_read_ready(cx))?;
        let pipe = Pipe::take();
        self.refused = pipe.is_none();
        let Some(mut pipe) = pipe else { return Poll::Ready(Ok(None)) };
        let count = match ready!(pipe.poll_fill_from(cx, source, most)) {
            // These two sockets cannot be spliced; nothing was taken.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                self.refused = true;
                return Poll::Ready(Ok(None));
            }
            result => result?,
        };
        self.small = if count < SMALL_MOVE { self.small + 1 } else { 0 };
        self.refused = self.small >= SMALL_MOVES;
        self.turn = Some((now, moved + count));
        self.pipe = Some(pipe).filter(|pipe| pipe.filled() > 0);
        Poll::Ready(Ok(Some(count)))
    }

    /// Moves what is in the pipe to the socket; bytes.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: &Stream,
    ) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(0)) };
        let count = ready!(pipe.poll_drain_to(cx, sink))?;
        self.pipe.take_if(|pipe| pipe.filled() == 0);
        Poll::Ready(Ok(count))
    }

    /// Puts what waits in the pipe into the queue.
    fn empty_to(&mut self, queue: &mut Outbound) -> io::Result<()> {
        self.pipe.take().map_or(Ok(()), |pipe| pipe.empty_to(|bytes| queue.extend(bytes)))
    }
}

impl Exchange {
    /// How much of the response's body may go through a pipe next; `None` when it is to be copied.
    pub(super) fn response_bulk(&self, down: &Downstream) -> Option<u64> {
        let ResponseState::Streaming { decoder, chunked: false } = &self.response_state else {
            return None;
        };
        let Link::Active(active) = &self.attempt.link else { return None };
        let streams = (&active.connection.stream, &down.socket);
        let may = self.attempt.inbound.is_empty() && !self.passage.paces();
        down.bulk.left(decoder, streams).filter(|_| may)
    }

    /// How much of the request's body may go through a pipe next.
    pub(super) fn request_bulk(&self, client: &Stream) -> Option<u64> {
        let Link::Active(active) = &self.attempt.link else { return None };
        let streams = (client, &active.connection.stream);
        let decoder = self.request_body.as_ref()?;
        let as_it_is = !self.request_chunked && self.upgrade.is_none() && self.retained.is_none();
        self.attempt.bulk.left(decoder, streams).filter(|_| as_it_is)
    }
}

impl Connection {
    /// Writes what waits in the pipe to the client.
    pub(super) fn flush_pipe(&mut self, cx: &mut Context<'_>) -> Flow {
        if self.down.waits_in_pipe() == 0 {
            return self.after_flush(false);
        }
        match self.down.bulk.poll_drain(cx, &self.down.socket) {
            Poll::Pending => ControlFlow::Continue(false),
            Poll::Ready(Ok(count)) => {
                self.phase.moved(self.down.now);
                self.down.hcm.stats.downstream_cx_tx_bytes_total.add(count as u64);
                self.after_flush(true)
            }
            Poll::Ready(Err(_)) => ControlFlow::Break(EndReason::Client),
        }
    }

    /// Puts what waits in pipes into the queues, for another process that has no copy of the pipes. When a
    /// pipe cannot be read, bytes are lost, and neither side may get those that come after them: the
    /// exchange is cut, and the answer is false.
    pub(super) fn empty_pipes(&mut self) -> bool {
        let Phase::Exchange(exchange) = &mut self.phase else { return true };
        let emptied = self.down.bulk.empty_to(&mut self.down.out);
        let emptied = emptied
            .and_then(|()| exchange.attempt.bulk.empty_to(&mut exchange.attempt.out))
            .is_ok();
        if !emptied {
            exchange.cut(&mut self.down, EndReason::Upstream);
        }
        emptied
    }
}

impl Exchange {
    /// What follows a head is mostly here already, and leaves in the same packet.
    pub(super) fn read_more_bulk(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        if let Some(left) = self.response_bulk(down) {
            self.read_bulk(down, cx, left)?;
        }
        ControlFlow::Continue(true)
    }

    /// Moves the next bytes of the response's body, of which `left` are missing, into a pipe.
    pub(super) fn read_bulk(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
        left: u64,
    ) -> Flow {
        let Link::Active(active) = &self.attempt.link else {
            return ControlFlow::Continue(false);
        };
        let most = at_most(left, down.high_watermark);
        let filled = down.bulk.poll_fill(cx, &active.connection.stream, most, down.now);
        match filled {
            Poll::Pending => return ControlFlow::Continue(false),
            Poll::Ready(Ok(None)) => {}
            Poll::Ready(Ok(Some(count))) if count > 0 => {
                self.endpoint_moved(down.now);
                self.info.bytes_sent += count as u64;
                if let Some(target) = &self.target {
                    target.cluster.stats.upstream_cx_rx_bytes_total.add(count as u64);
                }
                if let ResponseState::Streaming { decoder, .. } = &mut self.response_state {
                    decoder.skip(count as u64);
                    if decoder.is_done() {
                        self.response_received(down);
                    }
                }
            }
            Poll::Ready(result) => self.upstream_ended(down, result.err().as_ref()),
        }
        ControlFlow::Continue(true)
    }

    /// Moves the next bytes of the request's body, of which `left` are missing, into a pipe.
    pub(super) fn read_request_bulk(
        &mut self,
        down: &mut Downstream,
        cx: &mut Context<'_>,
        left: u64,
    ) -> Flow {
        let most = at_most(left, self.high_watermark());
        match self.attempt.bulk.poll_fill(cx, &down.socket, most, down.now) {
            Poll::Pending => return ControlFlow::Continue(false),
            Poll::Ready(Ok(None)) => {}
            Poll::Ready(Ok(Some(0))) => down.read_closed = true,
            Poll::Ready(Ok(Some(count))) => {
                self.last_activity = down.now;
                self.info.bytes_received += count as u64;
                down.hcm.stats.downstream_cx_rx_bytes_total.add(count as u64);
                if let Some(decoder) = &mut self.request_body {
                    decoder.skip(count as u64);
                    if decoder.is_done() {
                        self.request_body = None;
                        self.info.request_received = Some(down.now);
                    }
                }
            }
            Poll::Ready(Err(_)) => return ControlFlow::Break(EndReason::Client),
        }
        ControlFlow::Continue(true)
    }
}

impl Downstream {
    /// Nothing waits to be written to the client.
    pub(super) fn nothing_waits(&self) -> bool {
        self.out.is_empty() && self.waits_in_pipe() == 0
    }

    /// Bytes that wait for the client in a pipe.
    pub(super) fn waits_in_pipe(&self) -> usize {
        self.bulk.waiting()
    }
}

/// The smaller of the two.
fn at_most(left: u64, limit: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(limit)
}

#[cfg(test)]
mod tests;

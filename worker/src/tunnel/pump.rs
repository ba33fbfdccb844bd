//! One direction of a tunnel: from a source to a sink, with at most one buffer or one pipe of
//! bytes in between. Nothing is read before all that was read is written, which is the
//! back-pressure.
//!
//! A direction begins by copying. When many large reads came in a row it moves bytes through a
//! pipe, and when the reads become small again it copies: a copy of a few bytes is cheaper. A direction
//! that is kept never has a byte of its own: it moves them through its pipe, and small messages by
//! looking at them where they are, see [`super::pass`].

use std::{
    io,
    ops::ControlFlow,
    task::{Context, Poll, ready},
};

use nix::errno::Errno;

use super::{
    buffers::Held,
    pass::{self, Failed, Passed},
    splice::Pipe,
};
use crate::{
    progress::{self, Stuck},
    transport::Stream,
};

/// Bytes one direction moves before other tasks of the thread get their turn.
const TURN: usize = 1024 * 1024;
/// A read of at least this many bytes belongs to a bulk transfer.
const BULK_READ: usize = 16 * 1024;
/// So many bytes in bulk reads switch to the pipe.
const BULK_START: usize = 256 * 1024;
/// A move of less than this many bytes does not pay for the pipe.
const SMALL_MOVE: usize = 4 * 1024;
/// So many small moves in a row switch back to copying.
const SMALL_MOVES: u32 = 8;

/// Whether bulk may go through pipes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Splice {
    /// Yes, when both ends are TCP and the kernel agrees.
    #[default]
    Auto,
    /// No.
    Never,
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Progress {
    /// Waits for the source or the sink.
    #[default]
    Waiting,
    /// The source ended and everything it sent is written.
    Finished,
    /// The source failed; everything it sent before is written.
    SourceFailed,
    /// The sink failed; what was on its way is lost.
    SinkFailed,
    /// It turned and turned and moved nothing, see [`crate::progress`].
    Stuck,
}

/// State of one direction.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) held: Held,
    /// Holds bytes between calls only when the sink is slower than the source.
    pub(super) pipe: Option<Pipe>,
    pub(super) splice: Splice,
    /// No byte is ever in this process only. The pipe is there as long as the direction.
    pub(super) kept: bool,
    /// Small messages may be passed without the pipe, because who goes on with the tunnel after this
    /// process died knows the lead, see [`super::lead`].
    pub(super) passes: bool,
    /// Bytes of the bulk reads in a row.
    pub(super) run: usize,
    /// Small moves through the pipe in a row.
    pub(super) small: u32,
    /// The source sent its end.
    pub(super) source_ended: bool,
    /// What to report from now on; `Waiting` while it goes on.
    pub(super) outcome: Progress,
    /// Bytes written to the sink.
    pub(super) bytes: u64,
    /// Those of them that went through a pipe.
    pub(super) spliced: u64,
}

impl Direction {
    /// A direction that begins with bytes that were read already.
    pub(super) fn new(read_already: &[u8], splice: Splice) -> Self {
        Self {
            held: Held::copy_of(read_already),
            pipe: None,
            splice,
            kept: false,
            passes: false,
            run: 0,
            small: 0,
            source_ended: false,
            outcome: Progress::Waiting,
            bytes: 0,
            spliced: 0,
        }
    }

    /// What it came to, without doing anything.
    pub(super) fn outcome(&self) -> Progress {
        self.outcome
    }

    /// Bytes read from the source and not yet taken by the sink's kernel.
    pub(super) fn on_the_way(&self) -> usize {
        self.held.bytes().len() + self.pipe.as_ref().map_or(0, Pipe::filled)
    }

    /// Whether it holds neither memory nor a pipe.
    #[cfg(test)]
    pub(super) fn is_empty_handed(&self) -> bool {
        self.pipe.is_none() && self.held.is_unallocated()
    }

    /// Gives up on the sink; what was on its way is lost.
    pub(super) fn abandon(&mut self) {
        self.held = Held::default();
        self.pipe = None;
        if self.outcome == Progress::Waiting {
            self.outcome = Progress::SinkFailed;
        }
    }

    /// Moves what can be moved. `moved` is set when any byte was. The end of the source is
    /// reported, not passed on: that is for the tunnel.
    pub(super) fn poll(
        &mut self,
        source: &mut Stream,
        sink: &mut Stream,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Progress {
        if self.outcome == Progress::Waiting {
            self.outcome = self.advance(source, sink, cx, moved);
            self.held.settle();
            if !self.kept && self.pipe.as_ref().is_some_and(|pipe| pipe.filled() == 0) {
                self.pipe = None;
            }
        }
        self.outcome
    }

    /// Takes no byte into this process from now on. Nothing may be held.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        if self.pipe.is_none() {
            self.pipe = Some(Pipe::own()?);
        }
        self.kept = true;
        Ok(())
    }

    fn advance(
        &mut self,
        source: &mut Stream,
        sink: &mut Stream,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Progress {
        let start = self.bytes;
        let turned = progress::drive(|| {
            match self.flush(sink, cx, moved) {
                Poll::Pending => return ControlFlow::Continue(false),
                Poll::Ready(Err(_)) => return ControlFlow::Break(Progress::SinkFailed),
                Poll::Ready(Ok(())) => {}
            }
            if self.source_ended {
                return ControlFlow::Break(Progress::Finished);
            }
            if self.bytes.saturating_sub(start) >= TURN as u64 {
                cx.waker().wake_by_ref();
                return ControlFlow::Continue(false);
            }
            match self.fill(source, sink, cx) {
                Poll::Pending => return ControlFlow::Continue(false),
                Poll::Ready(Err(Failed::Source)) => {
                    return ControlFlow::Break(Progress::SourceFailed);
                }
                Poll::Ready(Err(Failed::Sink)) => return ControlFlow::Break(Progress::SinkFailed),
                Poll::Ready(Ok(0)) => self.source_ended = true,
                Poll::Ready(Ok(_)) => *moved = true,
            }
            ControlFlow::Continue(true)
        });
        match turned {
            Ok(ControlFlow::Continue(())) => Progress::Waiting,
            Ok(ControlFlow::Break(outcome)) => {
                if outcome == Progress::SinkFailed {
                    self.abandon();
                }
                outcome
            }
            Err(Stuck) => Progress::Stuck,
        }
    }

    /// Writes all that was read.
    fn flush(
        &mut self,
        sink: &mut Stream,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        while !self.held.bytes().is_empty() {
            let count = ready!(sink.poll_write_from(cx, self.held.bytes()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.consume(count);
            self.bytes += count as u64;
            *moved = true;
        }
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(())) };
        while pipe.filled() > 0 {
            let count = ready!(pipe.poll_drain_to(cx, sink))? as u64;
            self.bytes += count;
            self.spliced += count;
            *moved = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, into the pipe or a buffer, or passes once; 0 is the end.
    fn fill(
        &mut self,
        source: &mut Stream,
        sink: &Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Failed>> {
        if self.passes && self.run < BULK_START {
            match ready!(pass::poll(source, sink, cx))? {
                Passed::Bytes(count) => {
                    self.bytes += count as u64;
                    return Poll::Ready(Ok(count));
                }
                Passed::End => return Poll::Ready(Ok(0)),
                Passed::Much => self.run = BULK_START,
            }
        }
        if self.wants_pipe(source, sink) {
            match ready!(self.fill_pipe(source, cx)) {
                Ok(count) => return Poll::Ready(Ok(count)),
                // This pair of descriptors cannot be spliced; nothing was taken from the source.
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                    self.pipe = None;
                    self.splice = Splice::Never;
                    (self.kept, self.passes) = (false, false);
                }
                Err(_) => return Poll::Ready(Err(Failed::Source)),
            }
        }
        let mut buffer = Held::large();
        let read = ready!(source.poll_read_into(cx, buffer.room()));
        let count = read.map_err(|_| Failed::Source)?;
        buffer.filled(count);
        self.held = buffer;
        self.run = if count < BULK_READ { 0 } else { self.run.saturating_add(count) };
        Poll::Ready(Ok(count))
    }

    /// Whether the next read goes into a pipe, which is then there.
    fn wants_pipe(&mut self, source: &Stream, sink: &Stream) -> bool {
        if self.kept {
            return self.pipe.is_some();
        }
        if self.splice == Splice::Never || self.run < BULK_START {
            return false;
        }
        if !matches!((source, sink), (Stream::Tcp(_), Stream::Tcp(_))) {
            self.splice = Splice::Never;
            return false;
        }
        if self.pipe.is_none() {
            self.pipe = Pipe::take();
        }
        self.pipe.is_some()
    }

    fn fill_pipe(&mut self, source: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let count = ready!(pipe.poll_fill_from(cx, source, usize::MAX))?;
        self.small = if count < SMALL_MOVE { self.small + 1 } else { 0 };
        if self.kept {
            pipe.grow(count);
        }
        if self.small >= SMALL_MOVES {
            (self.run, self.small) = (0, 0);
        }
        Poll::Ready(Ok(count))
    }
}

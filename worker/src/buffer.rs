//! Pooled buffers of 80 KiB and of 4 KiB, and the read and write queues built from them.
//!
//! A connection holds a buffer only while there is data in it, so an idle connection costs none. It
//! reads into large buffers; what is small and waits (for the rest of a head, for an upstream to be
//! connected) is in small ones, as thousands of connections may wait at the same time.
//! The pool belongs to one thread. This is not a stream: nothing here touches a socket except
//! through [`Inbound::poll_fill`] and [`Outbound::poll_flush`], which make one system call each.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::progress;

/// Size of a pooled buffer, in bytes: one read of this size amortises the system call. Bodies are
/// often a power of two long, and 64 KiB of them and their head are one read.
pub const BUFFER_BYTES: usize = 80 * 1024;

/// Size of a small buffer, in bytes: a head and a short body.
const SMALL_BYTES: usize = 4 * 1024;

/// Free buffers a thread keeps, at most. 64 of them are 5 MiB.
const FREE_MAX: usize = 64;

/// Free small buffers a thread keeps, at most. 256 of them are 1 MiB.
const SMALL_FREE_MAX: usize = 256;

/// Data below this size is copied behind what waits already, in bytes; larger data moves.
const COPY_MAX: usize = 8 * 1024;

/// Slices handed to one `writev`.
const SLICES_MAX: usize = 16;

/// The free buffers of one thread.
#[derive(Clone, Debug, Default)]
pub struct BufferPool {
    free: Rc<Free>,
}

/// Free buffers by size.
#[derive(Debug, Default)]
struct Free {
    large: RefCell<Vec<Box<[u8]>>>,
    small: RefCell<Vec<Box<[u8]>>>,
}

/// Memory of one buffer.
fn new_memory(bytes: usize) -> Box<[u8]> {
    vec![0; bytes].into_boxed_slice()
}

impl BufferPool {
    fn take(&self) -> Buffer {
        let memory = self.free.large.borrow_mut().pop();
        self.buffer(memory, BUFFER_BYTES)
    }

    /// A small buffer if that holds so many bytes.
    fn take_for(&self, bytes: usize) -> Buffer {
        if bytes > SMALL_BYTES {
            return self.take();
        }
        let memory = self.free.small.borrow_mut().pop();
        self.buffer(memory, SMALL_BYTES)
    }

    fn buffer(&self, memory: Option<Box<[u8]>>, size: usize) -> Buffer {
        let memory = memory.unwrap_or_else(|| new_memory(size));
        Buffer { memory, start: 0, end: 0, pool: self.clone() }
    }

    /// Reads once and gives a buffer away only when something came; most reads find nothing.
    fn poll_filled<S: AsyncRead + Unpin>(
        &self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<io::Result<(Option<Buffer>, usize)>> {
        let mut free = self.free.large.borrow_mut();
        if free.is_empty() {
            free.push(new_memory(BUFFER_BYTES));
        }
        let Some(top) = free.last_mut() else { return Poll::Ready(Ok((None, 0))) };
        let count = ready!(read_into(cx, socket, top))?;
        if count == 0 {
            return Poll::Ready(Ok((None, 0)));
        }
        let memory = free.pop().unwrap_or_default();
        let buffer = Buffer { memory, start: 0, end: count, pool: self.clone() };
        Poll::Ready(Ok((Some(buffer), count)))
    }
}

/// A buffer with data in `start..end`; it goes back to its pool when dropped.
#[derive(Debug)]
struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    pool: BufferPool,
}

impl Buffer {
    fn data(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    fn room(&self) -> usize {
        self.memory.len() - self.end
    }

    fn append(&mut self, bytes: &[u8]) {
        self.memory[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// The same data, in a small buffer if it fits with as much room again.
    fn settled(self) -> Self {
        if self.memory.len() < BUFFER_BYTES || self.data().len() > SMALL_BYTES / 2 {
            return self;
        }
        let mut small = self.pool.take_for(self.data().len());
        small.append(self.data());
        small
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (free, max) = match self.memory.len() {
            BUFFER_BYTES => (&self.pool.free.large, FREE_MAX),
            SMALL_BYTES => (&self.pool.free.small, SMALL_FREE_MAX),
            // It grew.
            _ => return,
        };
        let mut free = free.borrow_mut();
        if free.len() < max {
            free.push(std::mem::take(&mut self.memory));
        }
    }
}

/// What was read from a socket and not yet used.
#[derive(Debug)]
pub struct Inbound {
    pool: BufferPool,
    buffer: Option<Buffer>,
}

impl Inbound {
    /// An empty queue.
    pub fn new(pool: &BufferPool) -> Self {
        Self { pool: pool.clone(), buffer: None }
    }

    /// The unread bytes.
    pub fn data(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], Buffer::data)
    }

    /// True when there is nothing unread.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// Drops the first `count` bytes; the buffer goes back to the pool with the last one.
    pub fn consume(&mut self, count: usize) {
        if let Some(buffer) = &mut self.buffer {
            progress::moved(count);
            buffer.start = (buffer.start + count).min(buffer.end);
            if buffer.start == buffer.end {
                self.buffer = None;
            }
        }
    }

    /// Puts bytes behind the unread ones.
    pub fn extend(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let buffer = self.buffer.get_or_insert_with(|| self.pool.take());
        if buffer.room() < bytes.len() {
            let mut memory = Vec::with_capacity(buffer.data().len() + bytes.len());
            memory.extend_from_slice(buffer.data());
            buffer.end = memory.len();
            buffer.start = 0;
            memory.resize(memory.len() + bytes.len(), 0);
            buffer.memory = memory.into_boxed_slice();
        }
        buffer.append(bytes);
    }

    /// Reads once. `Ok(0)` is the end of the stream.
    ///
    /// `limit` is the most unread bytes to hold; more than [`BUFFER_BYTES`] only grows the buffer when a head
    /// needs it.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let Some(buffer) = &mut self.buffer else {
            let (buffer, count) = ready!(self.pool.poll_filled(cx, socket))?;
            self.buffer = buffer;
            return Poll::Ready(Ok(count));
        };
        if buffer.room() == 0 || buffer.start > BUFFER_BYTES / 2 {
            make_room(buffer, limit);
        }
        let end = buffer.end;
        if end == buffer.memory.len() {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        }
        match read_into(cx, socket, &mut buffer.memory[end..]) {
            Poll::Pending => {
                self.buffer = self.buffer.take().map(Buffer::settled);
                Poll::Pending
            }
            Poll::Ready(result) => {
                let count = result?;
                buffer.end += count;
                Poll::Ready(Ok(count))
            }
        }
    }

    /// Moves the first `count` bytes to `out`, without copying when that is cheaper.
    pub fn transfer(&mut self, count: usize, out: &mut Outbound) {
        let whole = self.data().len() == count;
        if !whole || count <= COPY_MAX {
            out.extend(&self.data()[..count]);
            self.consume(count);
        } else if let Some(buffer) = self.buffer.take() {
            progress::moved(count);
            out.length += count;
            out.push(buffer);
        }
    }

    /// Moves all unread bytes out, for a tunnel that takes over.
    pub fn take_all(&mut self) -> Vec<u8> {
        let bytes = self.data().to_vec();
        self.buffer = None;
        bytes
    }
}

/// Moves the data to the front; doubles the buffer when it is full and `limit` allows.
fn make_room(buffer: &mut Buffer, limit: usize) {
    buffer.memory.copy_within(buffer.start..buffer.end, 0);
    buffer.end -= buffer.start;
    buffer.start = 0;
    if buffer.room() == 0 && buffer.memory.len() < limit {
        let mut memory = std::mem::take(&mut buffer.memory).into_vec();
        memory.resize((memory.len() * 2).min(limit), 0);
        buffer.memory = memory.into_boxed_slice();
    }
}

fn read_into<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    socket: &mut S,
    memory: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut into = ReadBuf::new(memory);
    ready!(Pin::new(socket).poll_read(cx, &mut into))?;
    progress::moved(into.filled().len());
    Poll::Ready(Ok(into.filled().len()))
}

/// What waits to be written to a socket.
#[derive(Debug)]
pub struct Outbound {
    pool: BufferPool,
    /// What goes first. Mostly there is no more, and then the queue needs no memory of its own.
    first: Option<Buffer>,
    more: VecDeque<Buffer>,
    length: usize,
}

impl Outbound {
    /// An empty queue.
    pub fn new(pool: &BufferPool) -> Self {
        Self { pool: pool.clone(), first: None, more: VecDeque::new(), length: 0 }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        (self.first, self.more) = (None, VecDeque::new());
        self.length = 0;
    }

    /// All of it, as a queue of its own.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let empty = Self::new(&self.pool);
        std::mem::replace(self, empty)
    }

    /// Puts what was taken before all that came since.
    pub fn put_first(&mut self, mut taken: Self) {
        for buffer in self.first.take().into_iter().chain(self.more.drain(..)) {
            taken.length += buffer.data().len();
            taken.push(buffer);
        }
        *self = taken;
    }

    /// Puts a buffer with data at the end.
    fn push(&mut self, buffer: Buffer) {
        match &self.first {
            None => self.first = Some(buffer),
            Some(_) => self.more.push_back(buffer),
        }
    }

    fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.first.iter().chain(&self.more)
    }

    /// Copies bytes to the end.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            if let Some(last) = self.more.back_mut().or(self.first.as_mut())
                && last.room() > 0
            {
                let count = last.room().min(bytes.len());
                last.append(&bytes[..count]);
                bytes = &bytes[count..];
            } else {
                self.push(self.pool.take_for(bytes.len()));
            }
        }
    }

    /// A copy of all waiting bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length);
        for buffer in self.buffers() {
            bytes.extend_from_slice(buffer.data());
        }
        bytes
    }

    /// Moves all waiting bytes out, for a tunnel that takes over.
    pub fn take_all(&mut self) -> Vec<u8> {
        let bytes = self.to_vec();
        self.clear();
        bytes
    }

    /// Writes until all is gone or the socket takes no more; the number of bytes written.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<io::Result<usize>> {
        self.poll_flush_by(|bufs| match bufs {
            [only] => Pin::new(&mut *socket).poll_write(cx, only),
            _ => Pin::new(&mut *socket).poll_write_vectored(cx, bufs),
        })
    }

    /// Hands what waits to `write` until all is gone or it takes no more; the number of bytes written.
    ///
    /// # Errors
    /// What `write` says.
    pub fn poll_flush_by(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while let Some(first) = &self.first {
            let written = if self.more.is_empty() {
                write(&[IoSlice::new(first.data())])
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut count = 0;
                for (slice, buffer) in slices.iter_mut().zip(self.buffers()) {
                    *slice = IoSlice::new(buffer.data());
                    count += 1;
                }
                write(&slices[..count])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    progress::moved(count);
                    total += count;
                    self.advance(count);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(total))
    }

    fn advance(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(front) = &mut self.first {
            let step = front.data().len().min(count);
            front.start += step;
            count -= step;
            if front.start < front.end {
                return;
            }
            self.first = self.more.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;

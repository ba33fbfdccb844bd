//! What the connections of a thread have to send, sent in a row at the end of the thread's turn.
//!
//! Sending is most of what a request costs. When each connection reads, thinks and sends before the
//! next one does, the kernel's code for sending and ours take turns in the caches of the processor,
//! and a receiver that has nothing else to do is woken for each packet. All that is ready is read
//! first and sent then.
//!
//! ```text
//! post ──→ waits ── end of the turn, or the owner's next look, or it is closed ──→ in the kernel
//!                                       │
//!                                       └── what the kernel does not take comes back: `recall`
//! ```
//! For its owner a message that was posted is as good as sent, like one that the kernel has: it is
//! sent before the thread waits, so nothing is late. What may happen only after the kernel has a
//! message, such as a mark for another process, must not be done for one that was posted.
//!
//! A socket is known by its descriptor, so whoever closes one that something was posted for has to call
//! `recall` before; `transport::Stream` does. At most one message of a socket waits.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    os::fd::RawFd,
    task::{Poll, Waker},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send, sendmsg},
};

use crate::buffer::Outbound;

/// The largest message that is posted, bytes: more takes longer to copy than to think about.
const LARGEST: usize = 20 * 1024;
/// So many messages are sent without waiting for the end of the turn, so that the first is not late.
const MOST: usize = 64;
/// So many bytes, too: they should still be in the processor's cache.
const MOST_BYTES: usize = 512 * 1024;

thread_local! {
    static OUTBOX: Outbox = const { Outbox::new() };
}

#[derive(Debug)]
struct Outbox {
    waiting: RefCell<Waiting>,
    /// What the kernel did not take, and its owner has not fetched yet.
    returned: RefCell<Vec<(RawFd, Returned)>>,
    /// Number of the batch that is being collected.
    batch: Cell<u64>,
    /// Wakes the task that sends; without one nothing is taken.
    sender: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Waiting {
    /// Of each message, apart because they are searched.
    sockets: Vec<RawFd>,
    messages: Vec<(Outbound, Waker)>,
    bytes: usize,
}

/// What came back of a message.
#[derive(Debug)]
pub struct Returned {
    /// The bytes that were not sent.
    pub unsent: Outbound,
    /// Bytes that were.
    pub sent: usize,
    /// Why no more; `None` = there was no room.
    pub error: Option<io::Error>,
}

/// When something was posted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticket(u64);

impl Ticket {
    /// Whether `recall` may find something. Rarely, and cheaper than looking.
    pub fn is_open(self) -> bool {
        OUTBOX.with(|outbox| outbox.batch.get() == self.0 || !outbox.returned.borrow().is_empty())
    }
}

/// Takes a message to be sent soon and leaves `out` empty; `None` when it has to be sent in another
/// way. `owner` is woken when something comes back.
pub(crate) fn post(socket: RawFd, out: &mut Outbound, owner: &Waker) -> Option<Ticket> {
    if out.len() > LARGEST {
        return None;
    }
    OUTBOX.with(|outbox| outbox.post(socket, out, owner))
}

/// Sends what waits for this socket; returns what the kernel did not take, now or before.
pub(crate) fn recall(socket: RawFd) -> Option<Returned> {
    // After the end of the thread's own things nothing waits.
    OUTBOX.try_with(|outbox| outbox.recall(socket)).ok().flatten()
}

/// Sends what waits whenever the other tasks of this thread had their turn. Does not end.
pub async fn run() {
    poll_fn(|cx| {
        OUTBOX.with(|outbox| {
            outbox.send_all();
            let mut sender = outbox.sender.borrow_mut();
            if !sender.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *sender = Some(cx.waker().clone());
            }
        });
        Poll::<()>::Pending
    })
    .await;
}

impl Outbox {
    const fn new() -> Self {
        Self {
            waiting: RefCell::new(Waiting { sockets: Vec::new(), messages: Vec::new(), bytes: 0 }),
            returned: RefCell::new(Vec::new()),
            // No ticket has it.
            batch: Cell::new(1),
            sender: RefCell::new(None),
        }
    }

    fn post(&self, socket: RawFd, out: &mut Outbound, owner: &Waker) -> Option<Ticket> {
        let sender = self.sender.borrow();
        let sender = sender.as_ref()?;
        let mut waiting = self.waiting.borrow_mut();
        if waiting.sockets.is_empty() {
            // It is the last in the queue of tasks, behind all that are ready now.
            sender.wake_by_ref();
        } else if waiting.sockets.contains(&socket) {
            return None;
        }
        let ticket = Ticket(self.batch.get());
        waiting.sockets.push(socket);
        waiting.bytes += out.len();
        waiting.messages.push((out.take(), owner.clone()));
        if waiting.sockets.len() >= MOST || waiting.bytes >= MOST_BYTES {
            drop(waiting);
            self.send_all();
        }
        Some(ticket)
    }

    fn send_all(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let Waiting { sockets, messages, bytes } = &mut *waiting;
        for (socket, (message, owner)) in sockets.drain(..).zip(messages.drain(..)) {
            if let Some(returned) = send_now(socket, message) {
                self.returned.borrow_mut().push((socket, returned));
                owner.wake();
            }
        }
        *bytes = 0;
        self.batch.set(self.batch.get() + 1);
    }

    fn recall(&self, socket: RawFd) -> Option<Returned> {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(place) = waiting.sockets.iter().position(|waiting| *waiting == socket) {
            waiting.sockets.swap_remove(place);
            let (message, _) = waiting.messages.swap_remove(place);
            waiting.bytes -= message.len();
            return send_now(socket, message);
        }
        let mut returned = self.returned.borrow_mut();
        let place = returned.iter().position(|(of, _)| *of == socket)?;
        Some(returned.swap_remove(place).1)
    }
}

/// Sends a message; `None` when all of it went.
fn send_now(socket: RawFd, mut message: Outbound) -> Option<Returned> {
    let length = message.len();
    let result = message.poll_flush_by(|bufs| {
        loop {
            match attempt(socket, bufs) {
                Err(Errno::EINTR) => {}
                // The owner learns of room for more when it tries itself.
                Err(Errno::EAGAIN) => return Poll::Pending,
                result => return Poll::Ready(Ok(result?)),
            }
        }
    });
    let error = match result {
        Poll::Ready(Err(error)) => Some(error),
        _ if message.is_empty() => return None,
        Poll::Ready(Ok(_)) | Poll::Pending => None,
    };
    Some(Returned { sent: length - message.len(), unsent: message, error })
}

fn attempt(socket: RawFd, bufs: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    match bufs {
        [only] => send(socket, only, flags),
        _ => sendmsg::<()>(socket, bufs, &[], flags, None),
    }
}

#[cfg(test)]
mod tests;

//! Moves small messages from socket to socket without taking them into this process.
//!
//! ```text
//! source ── look at what came ──▶ send it to the sink ──▶ take as many bytes from the source
//! ```
//! Whenever the process dies, each byte is still with the source's kernel, or with the sink's already,
//! or with both. How many are with both, who goes on finds out from what the kernel counts, see
//! [`super::lead`], and takes them from the source before anything else. Three calls; through a pipe
//! there are two, which cost more.

use std::{
    cell::RefCell,
    io,
    os::fd::AsRawFd,
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};
use tokio::io::Interest;

use crate::{progress, sys::fault, transport::Stream};

/// Bytes that are looked at. When there are as many, a pipe is cheaper.
const MOST: usize = 16 * 1024;

thread_local! {
    /// Where a message is while it is looked at.
    static GLASS: RefCell<Vec<u8>> = RefCell::new(vec![0; MOST]);
}

/// What came of looking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Passed {
    /// So many bytes are with the sink and not with the source any more; at least one.
    Bytes(usize),
    /// There is more than should go this way; nothing was moved.
    Much,
    /// The source sent its end.
    End,
}

/// Which side of a direction failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failed {
    /// The one that is read from.
    Source,
    /// The one that is written to.
    Sink,
}

/// One attempt to pass something.
enum Attempt {
    Passed(Passed),
    /// All that was there has gone.
    PassedAll(usize),
    SinkFull,
    SinkFailed,
}

/// Waits until the source has something, and passes it when the sink has room.
pub(super) fn poll(
    source: &Stream,
    sink: &Stream,
    cx: &mut Context<'_>,
) -> Poll<Result<Passed, Failed>> {
    loop {
        ready!(source.poll_read_ready(cx)).map_err(|_| Failed::Source)?;
        let mut attempt = None;
        let tried = source.try_io(Interest::READABLE, || {
            let made = GLASS.with_borrow_mut(|glass| pass(source, sink, glass))?;
            // Saying that nothing is there saves the call that would find nothing.
            let nothing_is_left = matches!(made, Attempt::PassedAll(_));
            attempt = Some(made);
            if nothing_is_left { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match attempt {
            Some(Attempt::Passed(passed)) => return Poll::Ready(Ok(passed)),
            Some(Attempt::PassedAll(count)) => return Poll::Ready(Ok(Passed::Bytes(count))),
            Some(Attempt::SinkFailed) => return Poll::Ready(Err(Failed::Sink)),
            Some(Attempt::SinkFull) => {
                ready!(sink.poll_write_ready(cx)).map_err(|_| Failed::Sink)?;
            }
            None if tried.as_ref().is_err_and(is_passing) => {}
            None => return Poll::Ready(Err(Failed::Source)),
        }
    }
}

/// Fails only when the source does.
fn pass(source: &Stream, sink: &Stream, glass: &mut [u8]) -> io::Result<Attempt> {
    let seen = recv(source.as_raw_fd(), glass, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    if seen == 0 {
        return Ok(Attempt::Passed(Passed::End));
    }
    if seen >= glass.len() {
        return Ok(Attempt::Passed(Passed::Much));
    }
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let send = || Ok(send(sink.as_raw_fd(), &glass[..seen], flags)?);
    let sent = match sink.try_io(Interest::WRITABLE, send) {
        Ok(sent) => sent,
        Err(error) if is_passing(&error) => return Ok(Attempt::SinkFull),
        Err(_) => return Ok(Attempt::SinkFailed),
    };
    fault::point("tunnel.sent");
    take(source, &mut glass[..sent])?;
    progress::moved(sent);
    let passed = Attempt::Passed(Passed::Bytes(sent));
    Ok(if sent == seen { Attempt::PassedAll(sent) } else { passed })
}

/// Takes as many bytes from a socket as there is room. They must be there.
///
/// # Errors
/// When they are not.
pub(super) fn take(source: &impl AsRawFd, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        // Not even copied.
        match recv(source.as_raw_fd(), room, MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(taken) => room = room.split_at_mut(taken).1,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The readiness was stale or a signal came; the next wait sorts it out.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

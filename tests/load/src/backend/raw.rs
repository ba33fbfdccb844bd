//! A connection of the backend that speaks no HTTP: its first byte says what is done with it.

use super::{Next, Shared, is_would_block};
use crate::pattern;
use crate::poll::Interest;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

#[derive(Clone, Copy, Debug)]
enum Mode {
    Unknown,
    /// All bytes come back.
    Echo,
    /// This many bytes were taken.
    Sink(u64),
    /// This many bytes were sent.
    Source(u64),
}

/// The connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    mode: Mode,
}

impl Peer {
    /// A fresh one.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, mode: Mode::Unknown }
    }

    /// Handles an event.
    pub(super) fn ready(&mut self, shared: &mut Shared) -> Next {
        if let Mode::Source(sent) = self.mode {
            return self.send(shared, sent);
        }
        let count = match self.stream.read(&mut shared.buffer) {
            Ok(count) => count,
            Err(error) if is_would_block(&error) => return Ok(Some(Interest::Read)),
            Err(error) => return Err(error),
        };
        let bytes = shared.buffer.get(..count).unwrap_or_default();
        match (self.mode, bytes) {
            (Mode::Sink(taken), []) => self.stream.write_all(&taken.to_be_bytes()).map(|()| None),
            (_, []) => Ok(None),
            (Mode::Unknown, [b'e', ..]) => {
                self.mode = Mode::Echo;
                self.echo(count, shared)
            }
            (Mode::Echo, _) => self.echo(count, shared),
            (Mode::Unknown, [b's', rest @ ..]) => self.sink(0, rest),
            (Mode::Sink(taken), bytes) => self.sink(taken, bytes),
            (Mode::Unknown, [b'g', ..]) => self.send(shared, 0),
            (Mode::Unknown | Mode::Source(_), _) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The generator sends a byte and waits for it, so there is always room.
    fn echo(&mut self, count: usize, shared: &Shared) -> Next {
        let bytes = shared.buffer.get(..count).unwrap_or_default();
        self.stream.write_all(bytes).map(|()| Some(Interest::Read))
    }

    fn sink(&mut self, taken: u64, bytes: &[u8]) -> Next {
        if !pattern::fits(taken, bytes) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.mode = Mode::Sink(taken + bytes.len() as u64);
        Ok(Some(Interest::Read))
    }

    fn send(&mut self, shared: &Shared, mut sent: u64) -> Next {
        match self.stream.write(shared.pattern.from(sent)) {
            Ok(count) => sent += count as u64,
            Err(error) if is_would_block(&error) => {}
            Err(error) => return Err(error),
        }
        self.mode = Mode::Source(sent);
        Ok(Some(Interest::Write))
    }
}

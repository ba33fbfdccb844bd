//! Transfers of as many bytes as possible, both ways, all of them looked at.

use crate::clock::now;
use crate::options::{BulkOptions, Direction};
use crate::outcome::{Failure, Outcome};
use crate::pattern::{self, Pattern};
use crate::poll::{Interest, Poll};
use nix::sys::epoll::EpollTimeout;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A read takes up to this many bytes.
const BUFFER_BYTES: usize = 256 * 1024;
/// After the end, what is on its way up is waited for this long.
const GRACE: Duration = Duration::from_secs(10);

/// One connection.
struct Transfer {
    stream: TcpStream,
    up: bool,
    /// Bytes so far.
    count: u64,
}

/// Runs until the time is over and all bytes have arrived.
pub(crate) fn run(options: &BulkOptions) -> Outcome {
    let mut outcome = Outcome::default();
    let mut poll = Poll::new();
    let mut transfers = Vec::new();
    let begin = now();
    for number in 0..options.connections {
        let up = match options.direction {
            Direction::Up => true,
            Direction::Down => false,
            Direction::Both => number % 2 == 1,
        };
        outcome.connections += 1;
        match Transfer::open(options.target, up, &poll, number) {
            Ok(transfer) => transfers.push(Some(transfer)),
            Err(_) => {
                transfers.push(None);
                outcome.fail(Failure::Connect);
            }
        }
    }
    let pattern = Pattern::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    while begin.elapsed() < options.time() && transfers.iter().any(Option::is_some) {
        let count = poll.wait(EpollTimeout::from(10_u8));
        for index in 0..count {
            let Some(place) = transfers.get_mut(poll.token(index)) else { continue };
            let Some(transfer) = place else { continue };
            if let Err(failure) = transfer.ready(&pattern, &mut buffer) {
                outcome.fail(failure);
                *place = None;
            }
        }
    }
    for transfer in transfers.into_iter().flatten() {
        outcome.bytes += transfer.count;
        outcome.exchanges += 1;
        if let Err(failure) = transfer.finish() {
            outcome.fail(failure);
        }
    }
    outcome.time = begin.elapsed();
    outcome
}

impl Transfer {
    fn open(target: SocketAddr, up: bool, poll: &Poll, token: usize) -> io::Result<Self> {
        let mut stream = TcpStream::connect(target)?;
        stream.write_all(if up { b"s" } else { b"g" })?;
        stream.set_nonblocking(true)?;
        poll.add(&stream, token, if up { Interest::Write } else { Interest::Read })?;
        Ok(Self { stream, up, count: 0 })
    }

    fn ready(&mut self, pattern: &Pattern, buffer: &mut [u8]) -> Result<(), Failure> {
        let moved = if self.up {
            self.stream.write(pattern.from(self.count))
        } else {
            self.stream.read(buffer)
        };
        let count = match moved {
            Ok(0) => return Err(Failure::Cut),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Failure::Cut),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if !self.up && !pattern::fits(self.count, bytes) {
            return Err(Failure::Content);
        }
        self.count += count as u64;
        Ok(())
    }

    /// Ends the transfer; one up is complete when the other side has counted the same bytes.
    fn finish(mut self) -> Result<(), Failure> {
        if !self.up {
            return Ok(());
        }
        let mut answer = [0; 8];
        let ended = self
            .stream
            .shutdown(Shutdown::Write)
            .and_then(|()| self.stream.set_nonblocking(false))
            .and_then(|()| self.stream.set_read_timeout(Some(GRACE)))
            .and_then(|()| self.stream.read_exact(&mut answer));
        match ended {
            Ok(()) if u64::from_be_bytes(answer) == self.count => Ok(()),
            Ok(()) => Err(Failure::Length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Failure::Unanswered),
            Err(_) => Err(Failure::Cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend;
    use crate::options::{Command, Options};
    use clap::Parser as _;

    #[test]
    fn bytes_go_both_ways_without_a_proxy() {
        let target = backend::start_thread().tcp.to_string();
        let line = ["baton-load", "tcp-bulk", "--target", &target, "-d", "0.1", "-c", "2"];
        let Command::TcpBulk(options) = Options::parse_from(line).command else {
            panic!("no transfer")
        };
        // On a busy machine nothing may happen in such a short run.
        let arrived = (0..100).map(|_| run(&options)).any(|outcome| {
            assert_eq!((outcome.errors(), outcome.exchanges), (0, 2), "{}", outcome.json());
            outcome.bytes > 1_000_000
        });
        assert!(arrived, "no run had more than a megabyte");
    }
}

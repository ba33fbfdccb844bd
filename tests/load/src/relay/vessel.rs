//! What carries bytes from one socket to another: a buffer, or a pipe that the kernel moves pages
//! through (`splice(2)`).

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// A read takes up to this many bytes; as much as baton's.
const BUFFER_BYTES: usize = 80 * 1024;
/// A splice takes up to this many bytes, and a pipe holds them; as much as baton's.
const PIPE_BYTES: i32 = 512 * 1024;

/// How bytes are moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// By `recv` and `send`.
    Copy,
    /// By `splice`, in and out.
    Splice,
}

/// Bytes on their way.
#[derive(Debug)]
pub(super) enum Vessel {
    Buffer { bytes: Box<[u8]>, held: Range<usize> },
    Pipe { reader: OwnedFd, writer: OwnedFd, held: usize },
}

impl Vessel {
    fn new(kind: Kind) -> Self {
        if kind == Kind::Copy {
            return Self::Buffer { bytes: vec![0; BUFFER_BYTES].into(), held: 0..0 };
        }
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).expect("a pipe");
        // A user may have only so much room in pipes; then this one stays small.
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)).unwrap_or(0);
        Self::Pipe { reader, writer, held: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Buffer { held, .. } => held.is_empty(),
            Self::Pipe { held, .. } => *held == 0,
        }
    }

    /// Takes what a socket has; nothing is its end. Only for an empty vessel.
    pub(super) fn fill(&mut self, mut from: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Buffer { bytes, held } => {
                let count = from.read(bytes)?;
                *held = 0..count;
                Ok(count)
            }
            Self::Pipe { writer, held, .. } => {
                *held =
                    splice(from, None, writer, None, PIPE_BYTES.unsigned_abs() as usize, flags())?;
                Ok(*held)
            }
        }
    }

    /// Gives a socket as much as it takes; the rest stays.
    pub(super) fn pour(&mut self, mut to: &TcpStream) -> io::Result<()> {
        let poured = match self {
            Self::Buffer { bytes, held } => to.write(bytes.get(held.clone()).unwrap_or_default()),
            Self::Pipe { reader, held, .. } => {
                splice(reader, None, to, None, *held, flags()).map_err(io::Error::from)
            }
        };
        let count = match poured {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            poured => poured?,
        };
        match self {
            Self::Buffer { held, .. } => held.start += count,
            Self::Pipe { held, .. } => *held -= count,
        }
        Ok(())
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

/// The vessel for the next bytes, and empty ones. A connection only keeps one that its other side
/// does not take at once, so a few serve all.
#[derive(Debug)]
pub(super) struct Vessels {
    kind: Kind,
    pub(super) next: Vessel,
    spare: Vec<Vessel>,
}

impl Vessels {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, next: Vessel::new(kind), spare: Vec::new() }
    }

    /// Lends the full one.
    pub(super) fn lend(&mut self) -> Vessel {
        let empty = self.spare.pop().unwrap_or_else(|| Vessel::new(self.kind));
        std::mem::replace(&mut self.next, empty)
    }

    /// Takes one back that is empty again.
    pub(super) fn take_back(&mut self, vessel: Vessel) {
        self.spare.push(vessel);
    }
}

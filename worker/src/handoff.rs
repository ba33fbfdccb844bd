//! The worker's end of the handoff channel: messages in order, never a wait for the supervisor.
//!
//! What cannot be sent at once waits in a bounded queue and leaves when the socket is writable.
//! What the messages do is decided by `server`.

pub mod peer;
pub mod wire;

use std::{io, os::fd::OwnedFd};

use baton_contract::{
    channel::Channel,
    generation::Generation,
    message::{Ack, FromWorker, MessageError, Nack, ToWorker},
};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Pid, geteuid},
};
use socket2::{Domain, SockAddr, Socket, Type};

use self::wire::{Wire, WireError};

/// Why the channel can no longer be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The channel failed.
    #[error("cannot use the handoff channel")]
    Wire(#[from] WireError),
    /// A message cannot be encoded.
    #[error("cannot encode a message to the supervisor")]
    Encode(#[source] MessageError),
}

/// Calls the supervisor that waits for orphans at `path`. It must run as this user, and as process
/// `commander` when that is known.
///
/// # Errors
/// When nobody is there, or somebody else.
pub fn call(path: &str, commander: Option<u32>) -> io::Result<Channel> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    let peer = getsockopt(&socket, PeerCredentials)?;
    let right_user = peer.uid() == geteuid().as_raw() || peer.uid() == 0;
    let right_process = commander.is_none_or(|pid| u32::try_from(peer.pid()) == Ok(pid));
    if !right_user || !right_process {
        let text = format!("process {} of user {} is not our supervisor", peer.pid(), peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Channel::from_fd(socket.into())
}

/// A message of the supervisor.
#[derive(Debug)]
pub struct Received {
    /// What it says.
    pub message: ToWorker,
    /// Its sequence number, named in the answer.
    pub seq: u64,
    /// Descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// The channel to the supervisor.
#[derive(Debug)]
pub struct Link {
    wire: Wire,
    generation: Generation,
    last_seq: u64,
}

impl Link {
    /// Takes over the channel. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be polled.
    pub fn new(channel: Channel, generation: Generation) -> Result<Self, LinkError> {
        Ok(Self { wire: Wire::new(channel)?, generation, last_seq: 0 })
    }

    /// Sends a message, or keeps it until the socket takes it.
    ///
    /// # Errors
    /// When the supervisor is gone or has not read for a long time.
    pub fn send(&mut self, message: impl Into<FromWorker>) -> Result<(), LinkError> {
        self.send_with(message, Vec::new())
    }

    /// Sends a message with descriptors, or keeps it until the socket takes it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_with(
        &mut self,
        message: impl Into<FromWorker>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), LinkError> {
        self.last_seq += 1;
        let count = u16::try_from(fds.len()).unwrap_or(u16::MAX);
        let frame = message.into().to_frame(self.generation, self.last_seq, count);
        Ok(self.wire.send(frame.map_err(LinkError::Encode)?, fds)?)
    }

    /// The process at the other end, which need not be the parent of this one.
    ///
    /// # Errors
    /// When the socket does not tell.
    pub fn supervisor(&self) -> nix::Result<Pid> {
        let peer = getsockopt(self.wire.channel(), PeerCredentials)?;
        Ok(Pid::from_raw(peer.pid()))
    }

    /// Whether nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.wire.is_idle()
    }

    /// Says that a message was carried out.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn ack(&mut self, of: u64) -> Result<(), LinkError> {
        self.send(Ack { of })
    }

    /// Says that a message was not carried out.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn nack(&mut self, of: u64, text: impl Into<String>) -> Result<(), LinkError> {
        self.send(Nack { of, text: text.into() })
    }

    /// The next message; `None` when the supervisor is gone. Malformed ones are refused and left
    /// out. Sends what waits meanwhile.
    ///
    /// # Errors
    /// When the socket fails.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is taken from the socket before it is returned.
    pub async fn recv(&mut self) -> Result<Option<Received>, LinkError> {
        loop {
            let Some((frame, fds)) = self.wire.recv().await? else { return Ok(None) };
            match ToWorker::from_frame(&frame) {
                Ok(message) => return Ok(Some(Received { message, seq: frame.seq, fds })),
                Err(error) => self.nack(frame.seq, error.to_string())?,
            }
        }
    }

    /// Waits until everything was handed to the socket.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn drain(&mut self) -> Result<(), LinkError> {
        Ok(self.wire.drain().await?)
    }
}

#[cfg(test)]
mod tests {
    use baton_contract::message::{Take, Warm};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(20), test).await.expect("in time");
        });
    }

    fn pair() -> (Channel, Link) {
        let (supervisor, worker) = Channel::pair().unwrap();
        (supervisor, Link::new(worker, Generation(3)).unwrap())
    }

    #[test]
    fn messages_pass_both_ways_and_the_end_is_seen() {
        run(async {
            let (supervisor, mut link) = pair();
            link.send(Warm { text: "x".to_owned() }).unwrap();
            let (frame, _) = supervisor.recv().unwrap().unwrap();
            assert_eq!((frame.seq, frame.generation), (1, 3));
            let take = ToWorker::from(Take {}).to_frame(Generation(3), 9, 0).unwrap();
            supervisor.send(&take, &[]).unwrap();
            let received = link.recv().await.unwrap().unwrap();
            assert_eq!((received.seq, received.message), (9, ToWorker::Take(Take {})));
            drop(supervisor);
            assert!(link.recv().await.unwrap().is_none());
        });
    }

    #[test]
    fn an_unknown_message_is_refused_and_the_next_one_read() {
        run(async {
            let (supervisor, mut link) = pair();
            let mut strange = ToWorker::from(Take {}).to_frame(Generation(3), 5, 0).unwrap();
            strange.kind = 999;
            supervisor.send(&strange, &[]).unwrap();
            let take = ToWorker::from(Take {}).to_frame(Generation(3), 6, 0).unwrap();
            supervisor.send(&take, &[]).unwrap();
            assert_eq!(link.recv().await.unwrap().unwrap().seq, 6);
            let (frame, _) = supervisor.recv().unwrap().unwrap();
            let Ok(FromWorker::Nack(nack)) = FromWorker::from_frame(&frame) else {
                panic!("a NACK")
            };
            assert_eq!(nack.of, 5);
        });
    }

    #[test]
    fn a_supervisor_that_does_not_read_blocks_nobody() {
        run(async {
            let (supervisor, mut link) = pair();
            for _ in 0..500 {
                link.send(Warm { text: "x".repeat(4000) }).unwrap();
            }
            let reader = async {
                let mut seen = 0;
                while seen < 500 {
                    match supervisor.recv() {
                        Ok(Some(_)) => seen += 1,
                        _ => tokio::task::yield_now().await,
                    }
                }
            };
            let (result, ()) = tokio::join!(link.drain(), reader);
            result.unwrap();
        });
    }
}

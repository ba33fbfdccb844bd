//! A client connection that trusts nothing: it counts every byte and names every way to fail.

use crate::moves::{Moves, Watched};
use crate::owners::Pair;
use crate::tally::Workload;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for one read, one write or one connect. Far above any pause of a healthy proxy, and above
/// the 15 s for which baton hopes that a hung worker goes on: connections that outlive it are silent as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// How an exchange failed.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The connection ended before one byte of the response came.
    Closed(String),
    /// The connection ended inside the response.
    Partial(String),
    /// An answer, but not the upstream's.
    Status(u16),
    /// A byte was wrong.
    Wrong(String),
}

impl Fail {
    /// What to tell the reader.
    pub(crate) fn seen(&self) -> String {
        match self {
            Self::Closed(why) => format!("no response: {why}"),
            Self::Partial(why) => format!("ended inside: {why}"),
            Self::Status(status) => format!("status {status}"),
            Self::Wrong(what) => what.clone(),
        }
    }
}

/// How a response's body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The part of a response head that matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// Status code.
    pub(crate) status: u16,
    /// The server announced that it will close.
    pub(crate) close: bool,
    framing: Framing,
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Responses received in full.
    pub(crate) answered: u32,
    watched: Option<Watched>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = timeout(PATIENCE, TcpStream::connect(address))
            .await
            .map_err(|_| "connect: no answer".to_owned())?
            .map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("nodelay: {error}"))?;
        Ok(Self { stream, buffer: Vec::new(), answered: 0, watched: None })
    }

    /// The proxy's address and our own.
    pub(crate) fn pair(&self) -> Option<Pair> {
        Some((self.stream.peer_addr().ok()?, self.stream.local_addr().ok()?))
    }

    /// Lets `moves` see who holds the other end from now on.
    pub(crate) fn watch(&mut self, moves: &Arc<Moves>, workload: Workload) {
        self.watched = self.pair().map(|pair| moves.watch(workload, pair));
    }

    /// An exchange is worth nothing when it did not end on the connection it began on.
    pub(crate) fn kept_its_address(&self, result: Result<(), Fail>) -> Result<(), Fail> {
        let Some(watched) = &self.watched else { return result };
        // After a cut the kernel may not know the address any more.
        match (result, self.stream.local_addr()) {
            (Ok(()), Ok(now)) if now != watched.client() => {
                Err(Fail::Wrong(format!("the address changed to {now}")))
            }
            (result, _) => result,
        }
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        match timeout(PATIENCE, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Fail::Closed(format!("write: {error}"))),
            Err(_) => Err(Fail::Closed("write: blocked".to_owned())),
        }
    }

    /// Closes our side.
    pub(crate) async fn finish_sending(&mut self) -> Result<(), Fail> {
        self.stream.shutdown().await.map_err(|error| Fail::Closed(format!("shutdown: {error}")))
    }

    /// Makes the close of this connection a reset.
    pub(crate) fn reset(self) {
        let linger = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        drop(linger);
    }

    /// Waits up to `time` while idle; true when the other side closed meanwhile.
    pub(crate) async fn closes_within(&mut self, time: Duration) -> bool {
        let mut byte = [0; 1];
        match timeout(time, self.stream.read(&mut byte)).await {
            Err(_) => false,
            Ok(Ok(0) | Err(_)) => true,
            Ok(Ok(_)) => {
                self.buffer.extend_from_slice(&byte);
                false
            }
        }
    }

    /// True when bytes came that no request asked for.
    pub(crate) fn has_unasked_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Reads more into the buffer; the number of new bytes, 0 at the end.
    async fn fill(&mut self) -> Result<usize, String> {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => Err(format!("read: {error}")),
            Err(_) => Err("read: silence".to_owned()),
        }
    }

    /// Exactly `count` bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Fail> {
        while self.buffer.len() < count {
            match self.fill().await {
                Ok(0) => return Err(Fail::Partial("closed".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(Fail::Partial(error)),
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// All bytes until the other side closes, each piece passed to `each`.
    pub(crate) async fn rest(&mut self, mut each: impl FnMut(&[u8]) -> bool) -> Result<(), Fail> {
        loop {
            if !each(&self.buffer) {
                return Err(Fail::Wrong("a byte differs".to_owned()));
            }
            self.buffer.clear();
            match self.fill().await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(Fail::Partial(error)),
            }
        }
    }

    /// The next response head, interim ones skipped.
    pub(crate) async fn head(&mut self) -> Result<Head, Fail> {
        loop {
            let end = loop {
                if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                    break at + 4;
                }
                let before = self.buffer.len();
                match self.fill().await {
                    Ok(0) if before == 0 => return Err(Fail::Closed("closed".to_owned())),
                    Ok(0) => return Err(Fail::Partial("closed in the head".to_owned())),
                    Ok(_) => {}
                    Err(error) if before == 0 => return Err(Fail::Closed(error)),
                    Err(error) => return Err(Fail::Partial(error)),
                }
            };
            let head: Vec<u8> = self.buffer.drain(..end).collect();
            let head = parse_head(&head)?;
            if head.status == 101 || head.status >= 200 {
                return Ok(head);
            }
        }
    }

    /// The body that belongs to `head`, each piece passed to `each`, which says whether it is right.
    pub(crate) async fn body(
        &mut self,
        head: &Head,
        mut each: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Fail> {
        match head.framing {
            Framing::Length(length) => self.piecewise(length, &mut each).await?,
            Framing::UntilClose => self.rest(&mut each).await?,
            Framing::Chunked => loop {
                let size = self.line().await?;
                let size = u64::from_str_radix(size.trim(), 16)
                    .map_err(|_| Fail::Wrong(format!("chunk size `{size}`")))?;
                self.piecewise(size, &mut each).await?;
                let end = self.line().await?;
                if !end.is_empty() {
                    return Err(Fail::Wrong(format!("chunk ends with `{end}`")));
                }
                if size == 0 {
                    break;
                }
            },
        }
        self.answered += 1;
        Ok(())
    }

    async fn piecewise(
        &mut self,
        mut left: u64,
        each: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Fail> {
        while left > 0 {
            if self.buffer.is_empty() {
                match self.fill().await {
                    Ok(0) => return Err(Fail::Partial(format!("{left} bytes missing"))),
                    Ok(_) => {}
                    Err(error) => return Err(Fail::Partial(format!("{left} missing, {error}"))),
                }
            }
            let count = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece: Vec<u8> = self.buffer.drain(..count).collect();
            if !each(&piece) {
                return Err(Fail::Wrong("a byte of the body differs".to_owned()));
            }
            left -= count as u64;
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String, Fail> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            match self.fill().await {
                Ok(0) => return Err(Fail::Partial("closed in a chunk".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(Fail::Partial(error)),
            }
        }
    }
}

/// Where `needle` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(bytes: &[u8]) -> Result<Head, Fail> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| Fail::Wrong(format!("status line `{first}`")))?;
    let mut head = Head { status, close: false, framing: Framing::UntilClose };
    if status == 204 || status == 304 || status == 101 {
        head.framing = Framing::Length(0);
    }
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("connection") {
            head.close |= value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("content-length") {
            head.framing = Framing::Length(
                value.parse().map_err(|_| Fail::Wrong(format!("content-length `{value}`")))?,
            );
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        }
    }
    Ok(head)
}

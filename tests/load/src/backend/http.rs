//! A connection of the backend that speaks HTTP/1, or WebSocket after an upgrade.

use super::{Next, Shared, is_would_block};
use crate::head::{self, Head};
use crate::poll::Interest;
use memchr::memmem;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;

/// The answer to the key that [`crate::exchange`] sends (RFC 6455 §1.3).
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
/// Largest answer, in bytes.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a WebSocket frame before its payload: two and a mask.
const FRAME_HEAD: usize = 6;

/// Head and body of an answer.
pub(super) fn answer(body: &[u8]) -> Rc<[u8]> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: baton-load\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
         content-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

/// The connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    /// A head or a frame that came in pieces.
    partial: Vec<u8>,
    /// Bytes of the body in progress: all, and those still to come.
    body: usize,
    body_left: usize,
    /// What is being sent, and how much of it is.
    answer: Option<(Rc<[u8]>, usize)>,
    close: bool,
    upgraded: bool,
}

impl Peer {
    /// A fresh one.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            partial: Vec::new(),
            body: 0,
            body_left: 0,
            answer: None,
            close: false,
            upgraded: false,
        }
    }

    /// Handles an event.
    pub(super) fn ready(&mut self, shared: &mut Shared) -> Next {
        if self.answer.is_some() {
            return self.send();
        }
        let mut buffer = std::mem::take(&mut shared.buffer);
        let next = self.read(shared, &mut buffer);
        shared.buffer = buffer;
        next
    }

    fn read(&mut self, shared: &mut Shared, buffer: &mut [u8]) -> Next {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => count,
            Err(error) if is_would_block(&error) => return Ok(Some(Interest::Read)),
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if self.upgraded {
            return self.echo(bytes);
        }
        if self.body_left > 0 {
            return self.take_body(shared, bytes.len());
        }
        if self.partial.is_empty() {
            return self.take(shared, bytes);
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(bytes);
        self.take(shared, &joined)
    }

    /// Takes bytes that begin with a head. Proxies wait for an answer before the next request.
    fn take(&mut self, shared: &mut Shared, bytes: &[u8]) -> Next {
        let Some(head) = head::scan(bytes).map_err(|_| io::ErrorKind::InvalidData)? else {
            self.partial = bytes.to_vec();
            return Ok(Some(Interest::Read));
        };
        if head.encoded {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.close = head.close;
        if head.upgrade {
            self.upgraded = true;
            return self.begin(UPGRADED.into());
        }
        if let Some(length) = head.length.filter(|length| *length > 0) {
            self.body = length;
            self.body_left = length;
            return self.take_body(shared, bytes.len() - head.size);
        }
        match page_size(bytes, head) {
            Some(size) => self.begin(shared.page(size)),
            None => self.begin(NOT_FOUND.into()),
        }
    }

    fn take_body(&mut self, shared: &mut Shared, count: usize) -> Next {
        self.body_left = self.body_left.checked_sub(count).ok_or(io::ErrorKind::InvalidData)?;
        if self.body_left > 0 {
            return Ok(Some(Interest::Read));
        }
        self.begin(shared.count(self.body))
    }

    /// Sends messages back without their masks.
    fn echo(&mut self, bytes: &[u8]) -> Next {
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            &joined
        };
        let mut reply = Vec::with_capacity(rest.len());
        while let Some((frame, after)) = split_frame(rest)? {
            unmask(frame, &mut reply);
            rest = after;
        }
        self.partial.extend_from_slice(rest);
        if reply.is_empty() {
            return Ok(Some(Interest::Read));
        }
        self.begin(reply.into())
    }

    fn begin(&mut self, answer: Rc<[u8]>) -> Next {
        self.answer = Some((answer, 0));
        self.send()
    }

    fn send(&mut self) -> Next {
        let Some((answer, sent)) = &mut self.answer else { return Ok(Some(Interest::Read)) };
        match self.stream.write(answer.get(*sent..).unwrap_or_default()) {
            Ok(count) => *sent += count,
            Err(error) if is_would_block(&error) => {}
            Err(error) => return Err(error),
        }
        if *sent < answer.len() {
            return Ok(Some(Interest::Write));
        }
        self.answer = None;
        Ok((!self.close).then_some(Interest::Read))
    }
}

/// The N of a path with `/bytes/N`.
fn page_size(bytes: &[u8], head: Head) -> Option<usize> {
    let line = bytes.get(..head.first)?;
    let at = memmem::find(line, b"/bytes/")? + b"/bytes/".len();
    let digits = line.get(at..)?.split(|byte| !byte.is_ascii_digit()).next()?;
    head::number(digits).filter(|size| *size <= PAGE_BYTES_MAX)
}

/// The first frame of these bytes and what follows it; `None` when it is not complete.
fn split_frame(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some(second) = bytes.get(1) else { return Ok(None) };
    let length = usize::from(second & 0x7f);
    if second & 0x80 == 0 || length > crate::exchange::MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes.split_at_checked(FRAME_HEAD + length))
}

/// The frame as a server sends it.
fn unmask(frame: &[u8], reply: &mut Vec<u8>) {
    let Some((head, payload)) = frame.split_at_checked(FRAME_HEAD) else { return };
    let Some((start, mask)) = head.split_at_checked(2) else { return };
    reply.extend(start.iter().zip([0xff, 0x7f]).map(|(byte, keep)| byte & keep));
    reply.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Exchange;

    #[test]
    fn the_size_is_that_of_the_path() {
        let check = |text: &str, expected: Option<usize>| {
            let text = format!("GET {text} HTTP/1.1\r\n\r\n");
            let head = head::scan(text.as_bytes()).expect("a head").expect("a whole head");
            assert_eq!(page_size(text.as_bytes(), head), expected, "{text}");
        };
        check("/bytes/1024", Some(1024));
        check("/r0001/bytes/0?x=1", Some(0));
        check("/bytes/", None);
        check("/", None);
        check("/bytes/99999999999", None);
    }

    #[test]
    fn a_frame_comes_back_as_the_generator_expects_it() {
        let exchange = Exchange::websocket("/", 100);
        let twice = exchange.request(0).repeat(2);
        assert_eq!(split_frame(&twice[..105]).expect("no mistake"), None);
        let (first, rest) = split_frame(&twice).expect("no mistake").expect("a frame");
        assert_eq!(first, rest);
        let mut reply = Vec::new();
        unmask(first, &mut reply);
        let Exchange::Bytes { answer, .. } = exchange else { panic!("no bytes") };
        assert_eq!(reply, answer);
        assert!(split_frame(b"\x82\x05hello").is_err(), "a client must mask");
    }
}

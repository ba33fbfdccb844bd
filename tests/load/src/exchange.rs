//! What is sent and what must come back: requests ready to be written, and the check of answers.

use crate::head::{self, Head};
use crate::outcome::Failure;

/// The key and the answer of RFC 6455 §1.3; proxies pass them on as they are.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The mask of every message. One is enough: nothing here is untrusted.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Longest WebSocket message, in bytes: the length fits the short form of a frame.
pub(crate) const MESSAGE_BYTES_MAX: usize = 125;

/// A request and what its answer must be.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Head and body.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the body that must come back, if that is known.
    pub(crate) length: Option<usize>,
}

/// The kind of exchange on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Exchange {
    /// HTTP/1.1; the requests take turns.
    Http(Vec<Request>),
    /// Bytes that are answered by certain bytes, after an upgrade if there is one.
    Bytes {
        /// The HTTP request that must be answered by 101 first.
        upgrade: Option<Vec<u8>>,
        /// What is sent.
        request: Vec<u8>,
        /// What must come back.
        answer: Vec<u8>,
    },
}

impl Exchange {
    /// WebSocket messages of a size that come back.
    pub(crate) fn websocket(path: &str, size: usize) -> Self {
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {WEBSOCKET_KEY}\r\n\r\n"
        );
        let size = size.min(MESSAGE_BYTES_MAX);
        let payload = vec![b'w'; size];
        let length = u8::try_from(size).unwrap_or(0);
        // A final binary frame; masked from the client, plain from the server.
        let mut request = vec![0x82, 0x80 | length];
        request.extend_from_slice(&MASK);
        request.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        let mut answer = vec![0x82, length];
        answer.extend_from_slice(&payload);
        Self::Bytes { upgrade: Some(upgrade.into_bytes()), request, answer }
    }

    /// One byte that comes back.
    pub(crate) fn echo() -> Self {
        Self::Bytes { upgrade: None, request: b"e".to_vec(), answer: b"e".to_vec() }
    }

    /// The bytes of request `number`.
    pub(crate) fn request(&self, number: usize) -> &[u8] {
        match self {
            Self::Http(requests) => choose(requests, number).map_or(&[], |request| &request.bytes),
            Self::Bytes { request, .. } => request,
        }
    }

    /// What opens a connection before the first request.
    pub(crate) fn upgrade(&self) -> Option<&[u8]> {
        match self {
            Self::Http(_) => None,
            Self::Bytes { upgrade, .. } => upgrade.as_deref(),
        }
    }
}

fn choose(requests: &[Request], number: usize) -> Option<&Request> {
    requests.get(number.checked_rem(requests.len())?)
}

/// What the bytes so far make of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// There is more to come.
    More,
    /// It is complete; the connection can be used again.
    Done,
    /// It is complete and was the last one of this connection.
    DoneLast,
    /// It is wrong.
    Failed(Failure),
}

/// An answer that is being received.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// A head that came in pieces.
    partial: Vec<u8>,
    /// The head, once complete.
    head: Option<Head>,
    /// Bytes after the head so far, or bytes that were as expected.
    received: usize,
}

impl Receiver {
    /// Makes ready for the next answer.
    pub(crate) fn reset(&mut self) {
        self.partial.clear();
        self.head = None;
        self.received = 0;
    }

    /// Takes bytes of the answer to request `number`.
    pub(crate) fn take(&mut self, exchange: &Exchange, number: usize, bytes: &[u8]) -> Progress {
        match exchange {
            Exchange::Http(requests) => {
                let length = choose(requests, number).and_then(|request| request.length);
                self.take_http(bytes, 200, length)
            }
            Exchange::Bytes { answer, .. } => self.take_bytes(bytes, answer),
        }
    }

    /// Takes bytes of the answer to an upgrade.
    pub(crate) fn take_upgrade(&mut self, bytes: &[u8]) -> Progress {
        self.take_http(bytes, 101, Some(0))
    }

    fn take_bytes(&mut self, bytes: &[u8], answer: &[u8]) -> Progress {
        let end = self.received + bytes.len();
        if answer.get(self.received..end) != Some(bytes) {
            return Progress::Failed(Failure::Content);
        }
        self.received = end;
        if end == answer.len() { Progress::Done } else { Progress::More }
    }

    fn take_http(&mut self, bytes: &[u8], status: u16, length: Option<usize>) -> Progress {
        if self.head.is_some() {
            self.received += bytes.len();
            return self.judge();
        }
        let joined;
        let whole = if self.partial.is_empty() {
            bytes
        } else {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            &joined
        };
        let mut head = match head::scan(whole) {
            Ok(Some(head)) => head,
            Ok(None) => {
                self.partial = whole.to_vec();
                return Progress::More;
            }
            Err(head::Malformed) => return Progress::Failed(Failure::Status),
        };
        if head::status(whole) != Some(status) {
            return Progress::Failed(Failure::Status);
        }
        if status == 101 {
            head.length = Some(0);
        }
        let wrong = length.is_some() && head.length != length;
        if head.encoded || head.length.is_none() || wrong {
            return Progress::Failed(Failure::Length);
        }
        self.received = whole.len() - head.size;
        self.head = Some(head);
        self.judge()
    }

    fn judge(&self) -> Progress {
        let Some(head) = self.head else { return Progress::More };
        match self.received.cmp(&head.length.unwrap_or(0)) {
            std::cmp::Ordering::Less => Progress::More,
            std::cmp::Ordering::Equal if head.close => Progress::DoneLast,
            std::cmp::Ordering::Equal => Progress::Done,
            std::cmp::Ordering::Greater => Progress::Failed(Failure::Length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(length: Option<usize>) -> Exchange {
        Exchange::Http(vec![Request { bytes: b"GET".to_vec(), length }])
    }

    fn feed(exchange: &Exchange, pieces: &[&[u8]]) -> Progress {
        let mut receiver = Receiver::default();
        let mut last = Progress::More;
        for piece in pieces {
            assert_eq!(last, Progress::More, "ended before {piece:?}");
            last = receiver.take(exchange, 0, piece);
        }
        last
    }

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for first in 1..answer.len() {
            for second in first + 1..answer.len() {
                let pieces = [&answer[..first], &answer[first..second], &answer[second..]];
                assert_eq!(feed(&http(Some(5)), &pieces), Progress::Done, "{first} {second}");
            }
        }
    }

    #[test]
    fn a_wrong_answer_is_a_failure_of_its_kind() {
        let check = |text: &str, length: Option<usize>, expected: Progress| {
            assert_eq!(feed(&http(length), &[text.as_bytes()]), expected, "{text}");
        };
        let failed = Progress::Failed;
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None, Progress::Done);
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Some(3), failed(Failure::Length));
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokk", None, failed(Failure::Length));
        check("HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nok", None, failed(Failure::Status));
        check("HTTP/1.1 200 OK\r\n\r\n", None, failed(Failure::Length));
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: x\r\n\r\n", None, failed(Failure::Length));
        let last = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        check(last, Some(0), Progress::DoneLast);
    }

    #[test]
    fn a_message_comes_back_without_its_mask() {
        let exchange = Exchange::websocket("/ws", 5);
        assert_eq!(exchange.request(0).len(), 2 + 4 + 5);
        assert_eq!(feed(&exchange, &[b"\x82\x05ww", b"www"]), Progress::Done);
        let failed = Progress::Failed(Failure::Content);
        assert_eq!(feed(&exchange, &[b"\x82\x05ww", b"wwx"]), failed);
        assert_eq!(feed(&exchange, &[b"\x82\x05wwwwww"]), failed);
        let mut receiver = Receiver::default();
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";
        assert_eq!(receiver.take_upgrade(answer), Progress::Done);
    }

    #[test]
    fn requests_take_turns() {
        let request = |bytes: &[u8]| Request { bytes: bytes.to_vec(), length: None };
        let exchange = Exchange::Http(vec![request(b"a"), request(b"b")]);
        let sent: Vec<&[u8]> = (0..4).map(|number| exchange.request(number)).collect();
        assert_eq!(sent, [b"a", b"b", b"a", b"b"]);
        assert_eq!(Exchange::Http(Vec::new()).request(3), b"");
    }
}

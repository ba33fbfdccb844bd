//! Feeds bytes to the codec as a connection would, in pieces of any size.

use baton_worker::config::hcm::EscapedSlashes;
use baton_worker::http::h1::body::{BodyError, Decoder};
use baton_worker::http::h1::response::{Answers, Follows, ParsedResponse};
use baton_worker::http::h1::{Limits, encode, request, response, worth_parsing};
use baton_worker::http::head::{RequestHead, ResponseHead};
use baton_worker::http::headers::Headers;
use baton_worker::http::path::{self, PathPolicy};

/// What the tests assume when the configuration is silent.
pub(crate) const PATHS: PathPolicy =
    PathPolicy { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Reject };

/// What became of one message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// 200: accepted whole. 0: more bytes needed. Otherwise the answer, 502 for bad responses.
    pub(crate) status: u16,
    /// The head as it would leave.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// The trailers as they would leave.
    pub(crate) trailers: String,
    /// Whether the connection could go on.
    pub(crate) reusable: bool,
    /// Bytes that belong to the next message.
    pub(crate) rest: Vec<u8>,
}

fn text(headers: &Headers) -> String {
    let mut out = Vec::new();
    headers.write_to(&mut out);
    String::from_utf8_lossy(&out).replace("\r\n", "|")
}

/// A connection that receives one message.
struct Reader<'a> {
    limits: &'a Limits,
    buffer: Vec<u8>,
    seen: usize,
    decoder: Option<Decoder>,
    outcome: Outcome,
}

impl<'a> Reader<'a> {
    fn new(limits: &'a Limits) -> Self {
        let outcome = Outcome::default();
        Self { limits, buffer: Vec::new(), seen: 0, decoder: None, outcome }
    }

    /// Feeds a piece; true when there is a verdict. `head` reads the head.
    fn feed(&mut self, piece: &[u8], head: &mut HeadReader<'_>) -> bool {
        if self.outcome.status != 0 {
            self.outcome.rest.extend_from_slice(piece);
            return true;
        }
        self.buffer.extend_from_slice(piece);
        if self.decoder.is_none() {
            if self.seen > 0 && !worth_parsing(&self.buffer, self.seen, self.limits) {
                return false;
            }
            self.seen = self.buffer.len();
            match head(&self.buffer, self.limits, &mut self.outcome) {
                Ok(Some((len, decoder))) => {
                    self.buffer.drain(..len);
                    self.decoder = Some(decoder);
                }
                Ok(None) => return false,
                Err(status) => return self.refuse(status),
            }
        }
        self.read_body()
    }

    /// Parses once more, as a connection does before it gives up waiting: an error inside a line
    /// may not have been worth a look before the line's end.
    fn look_again(&mut self, head: &mut HeadReader<'_>) {
        if self.outcome.status == 0 {
            self.seen = 0;
            self.feed(&[], head);
        }
    }

    fn refuse(&mut self, status: u16) -> bool {
        self.outcome = Outcome { status, ..Outcome::default() };
        true
    }

    fn read_body(&mut self) -> bool {
        let Some(decoder) = &mut self.decoder else { return false };
        loop {
            match decoder.decode(&self.buffer) {
                Err(_) => return self.refuse(400),
                Ok(step) => {
                    self.outcome.body.extend_from_slice(&self.buffer[step.data.clone()]);
                    self.buffer.drain(..step.consumed);
                    if step.done {
                        self.outcome.trailers = text(decoder.trailers());
                        self.outcome.status = 200;
                        self.outcome.rest = std::mem::take(&mut self.buffer);
                        return true;
                    }
                    if step.consumed == 0 || self.buffer.is_empty() {
                        return false;
                    }
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), BodyError> {
        let Some(decoder) = &mut self.decoder else { return Err(BodyError::Truncated) };
        decoder.end_of_input().map(|()| self.outcome.status = 200)
    }
}

type HeadReader<'h> =
    dyn FnMut(&[u8], &Limits, &mut Outcome) -> Result<Option<(usize, Decoder)>, u16> + 'h;

/// Reads one request fed in these pieces.
pub(crate) fn read_request<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    limits: &Limits,
) -> Outcome {
    let mut head = RequestHead::default();
    let mut reader = Reader::new(limits);
    let mut read_head = |input: &[u8], limits: &Limits, outcome: &mut Outcome| {
        let Some(parsed) = request::parse(input, limits, &mut head).map_err(|r| r.status)? else {
            return Ok(None);
        };
        path::normalize(&mut head.path, &PATHS).map_err(|_| 400_u16)?;
        let mut out = Vec::new();
        encode::request(&mut out, &head, parsed.framing, encode::Connection::Default);
        outcome.head = String::from_utf8_lossy(&out).replace("\r\n", "|");
        outcome.reusable = parsed.keep_alive;
        Ok(Some((parsed.head_len, Decoder::new(parsed.framing))))
    };
    for piece in pieces {
        reader.feed(piece, &mut read_head);
    }
    reader.look_again(&mut read_head);
    reader.outcome
}

/// Reads one final response fed in these pieces; the input ends after them.
pub(crate) fn read_response<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
    limits: &Limits,
    answers: Answers,
) -> Outcome {
    let mut head = ResponseHead::default();
    let mut reader = Reader::new(limits);
    let mut read_head = |input: &[u8], limits: &Limits, outcome: &mut Outcome| {
        let mut skipped = 0;
        let parsed: ParsedResponse = loop {
            let input = &input[skipped..];
            match response::parse(input, limits, answers, &mut head).map_err(|_| 502_u16)? {
                None => return Ok(None),
                Some(parsed) if parsed.follows == Follows::AnotherHead => {
                    skipped += parsed.head_len;
                }
                Some(parsed) => break parsed,
            }
        };
        let mut out = Vec::new();
        let length = parsed.content_length;
        encode::response(&mut out, &head, parsed.framing, length, encode::Connection::Default);
        outcome.head = String::from_utf8_lossy(&out).replace("\r\n", "|");
        outcome.reusable = parsed.keep_alive;
        Ok(Some((skipped + parsed.head_len, Decoder::new(parsed.framing))))
    };
    for piece in pieces {
        reader.feed(piece, &mut read_head);
    }
    reader.look_again(&mut read_head);
    if reader.outcome.status == 0 && reader.end().is_err() {
        return Outcome { status: 502, ..Outcome::default() };
    }
    match reader.outcome.status {
        200 => reader.outcome,
        _ => Outcome { status: 502, ..Outcome::default() },
    }
}

/// Runs `read` on the input in one piece, byte by byte and cut at every position, and demands one
/// outcome. Returns it.
pub(crate) fn same_however_split(
    name: &str,
    input: &[u8],
    read: impl Fn(&mut dyn Iterator<Item = &[u8]>) -> Outcome,
) -> Outcome {
    // After an answer the rest is not looked at, so it is not compared.
    let verdict = |outcome: Outcome| Outcome {
        rest: if outcome.status == 200 { outcome.rest } else { Vec::new() },
        ..outcome
    };
    let whole = verdict(read(&mut std::iter::once(input)));
    let bytes = verdict(read(&mut input.chunks(1)));
    assert_eq!(whole, bytes, "{name}: byte by byte");
    // Large inputs are cut at some positions only.
    for at in (0..=input.len()).step_by(input.len() / 2048 * 64 + 1) {
        let (left, right) = input.split_at(at);
        let cut = verdict(read(&mut [left, right].into_iter()));
        assert_eq!(whole, cut, "{name}: cut at {at}");
    }
    whole
}

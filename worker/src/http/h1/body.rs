//! Bodies: where they end and which bytes of the input belong to them.
//!
//! The decoder is plain data. It copies nothing: each step names the range of the input that is
//! body. Chunk extensions are dropped, trailers are collected.
//!
//! ```text
//! chunked:  Size ─ digits, CR ─> SizeLf ─> Data(n) ─> DataCr ─> DataLf ─> Size …
//!             ├ blank ─> SizeBlank ─ CR ─> SizeLf          size 0: SizeLf ─> Trailers ─> Done
//!             └ ';' ─> Extension ─ CR ─> SizeLf            (SizeBlank ─ ';' ─> Extension)
//! ```

use std::ops::Range;

use super::Framing;
use super::fields::is_token;
use crate::http::headers::Headers;

/// Most bytes of chunk extensions in one body. Nobody needs them; floods of them are an attack.
pub const MAX_EXTENSION_BYTES: usize = 4 * 1024;

/// Most bytes of trailers, line ends included.
pub const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Most trailer lines.
pub const MAX_TRAILERS: usize = 100;

/// Most hexadecimal digits of a chunk size, leading zeros among them. The value must fit in 64 bits.
pub const MAX_SIZE_DIGITS: u8 = u8::MAX;

/// Most blanks behind a chunk size. Some who write the size before they know it fill its place up with them, in every
/// chunk, so they do not add up over a body.
pub const MAX_SIZE_BLANKS: u16 = 4 * 1024;

/// Why a body cannot be read further. A request with such a body is answered with 400; the
/// connection ends in any case.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BodyError {
    /// A chunk size is not 1 to [`MAX_SIZE_DIGITS`] hexadecimal digits, does not fit in 64 bits, or has more than
    /// [`MAX_SIZE_BLANKS`] behind it.
    #[error("a chunk size is malformed")]
    ChunkSize,
    /// CR LF is missing where it must be.
    #[error("a chunk is not terminated by CR LF")]
    ChunkEnd,
    /// A control character in a chunk extension.
    #[error("a chunk extension is malformed")]
    Extension,
    /// More than [`MAX_EXTENSION_BYTES`] of chunk extensions.
    #[error("the chunk extensions are too large")]
    ExtensionsTooLarge,
    /// A trailer line is malformed.
    #[error("a trailer is malformed")]
    Trailer,
    /// More than [`MAX_TRAILER_BYTES`] or [`MAX_TRAILERS`].
    #[error("the trailers are too large")]
    TrailersTooLarge,
    /// The connection ended before the body did.
    #[error("the connection ended inside a body")]
    Truncated,
}

impl BodyError {
    /// `%RESPONSE_CODE_DETAILS%` when a request is answered because of it.
    pub fn details(self) -> &'static str {
        match self {
            Self::ChunkSize | Self::ChunkEnd | Self::Extension => "http1.codec_error",
            Self::ExtensionsTooLarge => "http1.chunk_extensions_too_large",
            Self::Trailer => "http1.invalid_trailers",
            Self::TrailersTooLarge => "http1.trailers_too_large",
            Self::Truncated => "http1.body_truncated",
        }
    }
}

/// What one call to [`Decoder::decode`] found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Step {
    /// Bytes of the input that are dealt with; `data` lies inside of them.
    pub consumed: usize,
    /// Bytes of the input that are body. May be empty.
    pub data: Range<usize>,
    /// True when the body is over. What follows in the input is not part of it.
    pub done: bool,
}

/// Where in the body the reader stands. Plain data; see the head of this file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// So many bytes to come, at least one.
    Length(u64),
    /// Until the connection ends.
    UntilClose,
    /// In the digits of a chunk size.
    Size {
        /// The digits so far.
        size: u64,
        /// How many they are.
        digits: u8,
    },
    /// In the blanks behind a chunk size; no digit may follow.
    SizeBlank {
        /// Size of the chunk.
        size: u64,
        /// The blanks so far.
        blanks: u16,
    },
    /// In a chunk extension; the size is known.
    Extension {
        /// Size of the chunk.
        size: u64,
    },
    /// Before the LF of a size line.
    SizeLf {
        /// Size of the chunk.
        size: u64,
    },
    /// In the data of a chunk: so many bytes to come, at least one.
    Data(u64),
    /// Before the CR that ends a chunk.
    DataCr,
    /// Before the LF that ends a chunk.
    DataLf,
    /// At the beginning of a trailer line or of the last empty line.
    Trailers,
    /// Over.
    Done,
}

/// Reads one body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of chunk extensions so far.
    extension_bytes: usize,
    /// Bytes of trailer lines so far.
    trailer_bytes: usize,
    trailers: Headers,
}

impl Decoder {
    /// A decoder for a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self::resume(state, (0, 0), Headers::default())
    }

    /// A decoder that goes on where another one stood: its [`Self::state`], [`Self::counted`] and
    /// [`Self::trailers`].
    pub fn resume(
        state: State,
        (extension_bytes, trailer_bytes): (usize, usize),
        trailers: Headers,
    ) -> Self {
        Self { state, extension_bytes, trailer_bytes, trailers }
    }

    /// Bytes of chunk extensions and of trailer lines so far, which have limits.
    pub fn counted(&self) -> (usize, usize) {
        (self.extension_bytes, self.trailer_bytes)
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// True when the body is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes known to be missing, `None` when the framing does not tell.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            State::UntilClose
            | State::Size { .. }
            | State::SizeBlank { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data(_)
            | State::DataCr
            | State::DataLf
            | State::Trailers => None,
        }
    }

    /// Leaves out bytes of a body of known length that nobody else looked at; not more than
    /// [`Self::remaining`] says.
    pub fn skip(&mut self, count: u64) {
        if let State::Length(left) = self.state {
            let left = left.saturating_sub(count);
            self.state = if left == 0 { State::Done } else { State::Length(left) };
        }
    }

    /// The trailers read so far; complete when the body is over.
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    /// Takes the trailers out.
    pub fn take_trailers(&mut self) -> Headers {
        std::mem::take(&mut self.trailers)
    }

    /// Reads on in `input`, up to the end of the first piece of body found.
    ///
    /// Call it again with the rest of the input while it consumes something and is not done.
    /// A trailer line is only consumed whole, so the caller must keep what was not consumed.
    ///
    /// # Errors
    /// When the chunked encoding is broken or exceeds a limit. The decoder must not be used
    /// afterwards.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        match self.state {
            State::Done => Ok(Step { done: true, ..Step::default() }),
            State::UntilClose => {
                Ok(Step { consumed: input.len(), data: 0..input.len(), done: false })
            }
            State::Length(left) => {
                let (taken, left) = split(left, input.len());
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Ok(Step { consumed: taken, data: 0..taken, done: left == 0 })
            }
            State::Size { .. }
            | State::SizeBlank { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data(_)
            | State::DataCr
            | State::DataLf
            | State::Trailers => self.decode_chunked(input),
        }
    }

    /// Tells the decoder that the connection ended.
    ///
    /// # Errors
    /// When the body was not over.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_)
            | State::Size { .. }
            | State::SizeBlank { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data(_)
            | State::DataCr
            | State::DataLf
            | State::Trailers => Err(BodyError::Truncated),
        }
    }

    fn decode_chunked(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let (mut at, mut data) = (0, 0..0);
        match self.read_chunks(input, &mut at, &mut data) {
            // What is good is used first; the bytes behind it are wrong at the next call, too.
            Err(error) if data.is_empty() => Err(error),
            Ok(()) | Err(_) => Ok(Step { consumed: at, data, done: self.is_done() }),
        }
    }

    fn read_chunks(
        &mut self,
        input: &[u8],
        at: &mut usize,
        data: &mut Range<usize>,
    ) -> Result<(), BodyError> {
        while let Some(&byte) = input.get(*at) {
            match self.state {
                State::SizeBlank { size, blanks } => self.state = after_blank(size, blanks, byte)?,
                State::Size { size, digits } => self.state = after_digit(size, digits, byte)?,
                State::Extension { size } => self.state = self.after_extension(size, byte)?,
                State::SizeLf { size } => {
                    self.state = match (byte, size) {
                        (b'\n', 0) => State::Trailers,
                        (b'\n', size) => State::Data(size),
                        _ => return Err(BodyError::ChunkEnd),
                    };
                }
                State::Data(left) => {
                    // One piece per step, but never without the line end behind it if it is there.
                    if data.start < data.end {
                        break;
                    }
                    let (taken, left) = split(left, input.len() - *at);
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    *data = *at..*at + taken;
                    *at += taken;
                    continue;
                }
                State::DataCr if byte == b'\r' => self.state = State::DataLf,
                State::DataLf if byte == b'\n' => self.state = State::Size { size: 0, digits: 0 },
                State::DataCr | State::DataLf => return Err(BodyError::ChunkEnd),
                State::Trailers => {
                    let rest = input.get(*at..).unwrap_or_default();
                    let Some(len) = self.trailer_line(rest)? else { break };
                    *at += len;
                    continue;
                }
                State::Done | State::Length(_) | State::UntilClose => break,
            }
            *at += 1;
        }
        Ok(())
    }

    fn count_extension(&mut self) -> Result<(), BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(BodyError::ExtensionsTooLarge);
        }
        Ok(())
    }

    fn after_extension(&mut self, size: u64, byte: u8) -> Result<State, BodyError> {
        match byte {
            b'\r' => return Ok(State::SizeLf { size }),
            b'\t' | b' '..=b'~' | 0x80.. => {}
            _ => return Err(BodyError::Extension),
        }
        self.count_extension()?;
        Ok(State::Extension { size })
    }

    /// Reads one trailer line and returns its length, or `None` when it is not complete.
    fn trailer_line(&mut self, input: &[u8]) -> Result<Option<usize>, BodyError> {
        let allowed = MAX_TRAILER_BYTES - self.trailer_bytes;
        let end = memchr::memchr(b'\n', input);
        if end.unwrap_or(input.len()) >= allowed {
            return Err(BodyError::TrailersTooLarge);
        }
        let Some(end) = end else { return Ok(None) };
        let line = input.get(..end).unwrap_or_default();
        let Some((b'\r', line)) = line.split_last() else { return Err(BodyError::Trailer) };
        self.trailer_bytes += end + 1;
        if line.is_empty() {
            self.state = State::Done;
            return Ok(Some(end + 1));
        }
        let (name, value) = trailer(line).ok_or(BodyError::Trailer)?;
        if self.trailers.len() >= MAX_TRAILERS {
            return Err(BodyError::TrailersTooLarge);
        }
        let name = name.to_ascii_lowercase();
        if !FORBIDDEN_TRAILERS.contains(&&*name) {
            self.trailers.append(&name, value);
        }
        Ok(Some(end + 1))
    }
}

/// How many of `available` bytes belong to a piece that still wants `left`, and what it wants
/// afterwards.
fn split(left: u64, available: usize) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(available);
    (taken, left - taken as u64)
}

/// What follows a size that is over: an extension or the end of the line (RFC 9112 §7.1.1).
fn end_of_size(size: u64, byte: u8) -> Option<State> {
    match byte {
        b';' => Some(State::Extension { size }),
        b'\r' => Some(State::SizeLf { size }),
        _ => None,
    }
}

fn after_blank(size: u64, blanks: u16, byte: u8) -> Result<State, BodyError> {
    match byte {
        b' ' | b'\t' if blanks < MAX_SIZE_BLANKS => {
            Ok(State::SizeBlank { size, blanks: blanks + 1 })
        }
        _ => end_of_size(size, byte).ok_or(BodyError::ChunkSize),
    }
}

fn after_digit(size: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
    let value = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b' ' | b'\t' if digits > 0 => return Ok(State::SizeBlank { size, blanks: 1 }),
        _ if digits > 0 => return end_of_size(size, byte).ok_or(BodyError::ChunkSize),
        _ => return Err(BodyError::ChunkSize),
    };
    if digits == MAX_SIZE_DIGITS || size >> (u64::BITS - 4) != 0 {
        return Err(BodyError::ChunkSize);
    }
    Ok(State::Size { size: size << 4 | u64::from(value), digits: digits + 1 })
}

/// Fields that must not come in trailers: who read the head has already acted without them
/// (RFC 9110 §6.5.1). They are left out.
const FORBIDDEN_TRAILERS: &[&[u8]] = &[
    b"authorization",
    b"cache-control",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"keep-alive",
    b"location",
    b"max-forwards",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"range",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"www-authenticate",
    b"x-forwarded-for",
    b"x-forwarded-proto",
];

/// Splits `name: value`.
fn trailer(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..)?.trim_ascii();
    let fits = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
    (!name.is_empty() && name.iter().all(|b| is_token(*b)) && value.iter().all(fits))
        .then_some((name, value))
}

/// Longest chunk header, in bytes: 16 digits and CR LF.
pub const MAX_CHUNK_HEADER: usize = 18;

/// What ends the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes the size line of a chunk of `len` bytes. Nothing is written for an empty one, because
/// it would be the last.
pub fn write_chunk_header(out: &mut Vec<u8>, len: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if len == 0 {
        return;
    }
    let mut shift = usize::BITS - (len.leading_zeros() & !3);
    while shift > 0 {
        shift -= 4;
        let digit = len >> shift & 0xf;
        out.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes data as one chunk; nothing for no data.
pub fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + MAX_CHUNK_HEADER + CHUNK_END.len());
    write_chunk_header(out, data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(CHUNK_END);
}

/// Writes the last chunk and the trailers, without those that must not be there.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Headers) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.iter() {
        if !FORBIDDEN_TRAILERS.contains(&name) {
            crate::http::headers::write_line(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

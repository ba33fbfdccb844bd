//! The header lines that the codec itself understands: framing, connection options, Host, Expect.
//!
//! Requests and responses share it. Hop-by-hop lines are taken out here, while the lines are read
//! for the first and only time. `content-length` stays in the list for matchers and logs; the
//! encoder never copies it.

use crate::config::hcm::UnderscoresAction;
use crate::http::headers::Headers;

/// Why header lines cannot be accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FieldError {
    /// `content-length` twice, even with the same value.
    DuplicateLength,
    /// `content-length` is not a plain number that fits 64 bits.
    InvalidLength,
    /// `transfer-encoding` in two lines.
    DuplicateCoding,
    /// `host` twice.
    DuplicateHost,
    /// `upgrade` twice in a response.
    Duplicate,
    /// `connection` names a header that must not be taken away.
    Nomination,
    /// An underscore in a name, and the configuration refuses them.
    Underscore,
}

impl FieldError {
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(super) fn details(self) -> &'static str {
        match self {
            Self::DuplicateLength | Self::InvalidLength => "http1.invalid_content_length",
            Self::DuplicateCoding => "http1.invalid_transfer_encoding",
            Self::DuplicateHost => "http1.duplicate_host",
            Self::Duplicate => "http1.duplicate_header",
            Self::Nomination => "http1.connection_header_rejected",
            Self::Underscore => "http1.unexpected_underscore",
        }
    }
}

/// What `transfer-encoding` says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Coding {
    /// Nothing.
    #[default]
    None,
    /// Exactly `chunked`.
    Chunked,
    /// Something we do not implement.
    Unsupported,
    /// Empty, or `chunked` more than once.
    Invalid,
}

/// Whether the head is a request's or a response's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    /// A request.
    Request,
    /// A response.
    Response,
}

/// What the special header lines of a head said.
#[expect(clippy::struct_excessive_bools, reason = "each is a word that was or was not there")]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'b> {
    /// `content-length`.
    pub(super) content_length: Option<u64>,
    /// `transfer-encoding`.
    pub(super) coding: Coding,
    /// `connection: close`.
    pub(super) close: bool,
    /// `connection: keep-alive`.
    pub(super) keep_alive: bool,
    /// `connection: upgrade`.
    pub(super) upgrade_named: bool,
    /// `connection` names other headers.
    nominated: bool,
    /// `te` contains `trailers`.
    te_trailers: bool,
    /// Value of `upgrade`; of several lines in a request the one that counts.
    pub(super) upgrade: Option<&'b [u8]>,
    /// Value of `host`, in requests.
    pub(super) host: Option<&'b [u8]>,
    /// Value of `expect`, in requests; of several lines one that is not `100-continue` if there is
    /// one.
    pub(super) expect: Option<&'b [u8]>,
}

impl<'b> Fields<'b> {
    /// Fills `headers` from the lines of a head and returns what the special ones said. `head`
    /// are the bytes the lines point into.
    pub(super) fn read(
        side: Side,
        head: &'b [u8],
        lines: &[httparse::Header<'b>],
        underscores: UnderscoresAction,
        headers: &mut Headers,
    ) -> Result<Self, FieldError> {
        let mut fields = Self::default();
        let Some(first) = lines.first() else {
            headers.clear();
            return Ok(fields);
        };
        let base = first.name.as_ptr().addr();
        let block = base.saturating_sub(head.as_ptr().addr());
        headers.load(head.get(block..).unwrap_or_default());
        for line in lines {
            let at = line.name.as_ptr().addr().saturating_sub(base);
            let name = headers.lower_loaded(at, line.name.len());
            let keep = fields.take(side, name, line.value)?
                && (underscores == UnderscoresAction::Allow || allowed(name, underscores)?);
            if keep {
                // An empty value may point anywhere.
                let value = match line.value {
                    [] => (0, 0),
                    value => (value.as_ptr().addr().saturating_sub(base), value.len()),
                };
                headers.push_loaded((at, line.name.len()), value);
            }
        }
        if fields.nominated {
            remove_nominated(lines, headers)?;
        }
        if fields.te_trailers {
            headers.append(b"te", b"trailers");
        }
        Ok(fields)
    }

    /// Looks at one line and says whether it stays in the list.
    #[inline]
    fn take(&mut self, side: Side, name: &[u8], value: &'b [u8]) -> Result<bool, FieldError> {
        // Most lines are none of ours, and their length says so.
        if !matches!(name.len(), 2 | 4 | 6 | 7 | 10 | 14 | 16 | 17) {
            return Ok(true);
        }
        match name {
            b"content-length" => {
                if self.content_length.is_some() {
                    return Err(FieldError::DuplicateLength);
                }
                self.content_length = Some(number(value).ok_or(FieldError::InvalidLength)?);
                Ok(true)
            }
            b"transfer-encoding" => {
                if self.coding != Coding::None {
                    return Err(FieldError::DuplicateCoding);
                }
                self.coding = coding(value);
                Ok(false)
            }
            b"connection" => {
                tokens(value).for_each(|token| self.option(token));
                Ok(false)
            }
            b"te" => {
                self.te_trailers |= tokens(value).any(|t| t.eq_ignore_ascii_case(b"trailers"));
                Ok(false)
            }
            b"keep-alive" | b"proxy-connection" => Ok(false),
            b"upgrade" if side == Side::Response => {
                once(&mut self.upgrade, value, FieldError::Duplicate)
            }
            // Several lines are one list, of which the first offer that can be taken counts.
            b"upgrade" => {
                if self.upgrade.is_none_or(|offers| offer(offers).is_none()) {
                    self.upgrade = Some(value);
                }
                Ok(false)
            }
            b"host" if side == Side::Request => {
                once(&mut self.host, value, FieldError::DuplicateHost)
            }
            b"expect" if side == Side::Request => {
                if self.expect.is_none_or(is_continue) {
                    self.expect = Some(value);
                }
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Notes one option of a `connection` line.
    fn option(&mut self, token: &[u8]) {
        if token.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if token.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if token.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade_named = true;
        } else if !token.eq_ignore_ascii_case(b"te") {
            self.nominated = true;
        }
    }
}

fn once<'b>(
    slot: &mut Option<&'b [u8]>,
    value: &'b [u8],
    error: FieldError,
) -> Result<bool, FieldError> {
    match slot.replace(value) {
        Some(_) => Err(error),
        None => Ok(false),
    }
}

/// The first protocol of a list of offers that is not `h2c`.
pub(super) fn offer(list: &[u8]) -> Option<&[u8]> {
    tokens(list).find(|token| !token.eq_ignore_ascii_case(b"h2c"))
}

/// Whether an `expect` line asks for `100 Continue` and nothing else.
pub(super) fn is_continue(line: &[u8]) -> bool {
    let mut expectations = tokens(line).peekable();
    expectations.peek().is_some()
        && expectations.all(|token| token.eq_ignore_ascii_case(b"100-continue"))
}

fn allowed(name: &[u8], action: UnderscoresAction) -> Result<bool, FieldError> {
    let has = memchr::memchr(b'_', name).is_some();
    match action {
        UnderscoresAction::RejectRequest if has => Err(FieldError::Underscore),
        UnderscoresAction::DropHeader => Ok(!has),
        UnderscoresAction::Allow | UnderscoresAction::RejectRequest => Ok(true),
    }
}

/// Headers that a sender cannot take away from the next hop by naming them in `connection`:
/// without them the message would mean something else or come from somebody else.
const NOT_HOP_BY_HOP: &[&[u8]] = &[
    b"authorization",
    b"content-length",
    b"cookie",
    b"forwarded",
    b"host",
    b"transfer-encoding",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

/// Removes what the `connection` lines name (RFC 9110 §7.6.1).
#[cold]
fn remove_nominated(
    lines: &[httparse::Header<'_>],
    headers: &mut Headers,
) -> Result<(), FieldError> {
    let is_connection = |l: &&httparse::Header<'_>| l.name.eq_ignore_ascii_case("connection");
    for token in lines.iter().filter(is_connection).flat_map(|line| tokens(line.value)) {
        let token = token.to_ascii_lowercase();
        if NOT_HOP_BY_HOP.contains(&&*token) {
            return Err(FieldError::Nomination);
        }
        headers.remove(&token);
    }
    Ok(())
}

/// The elements of a comma separated list, without white space around them, without empty ones.
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// A decimal number as RFC 9110 §8.6 wants it: digits and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b & 0x0f))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn coding(value: &[u8]) -> Coding {
    let chunked = |t: &[u8]| t.eq_ignore_ascii_case(b"chunked");
    if chunked(value) {
        return Coding::Chunked;
    }
    let repeated = tokens(value).filter(|t| chunked(t)).count() > 1;
    // A list that is nothing but one `chunked` and commas is not worth a guess either.
    let other = tokens(value).any(|t| !chunked(t));
    if other && !repeated { Coding::Unsupported } else { Coding::Invalid }
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
#[inline]
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// True when every line of a parsed head ended with CR LF.
///
/// The tokenizer accepts a bare LF as line end and refuses every CR that no LF follows, so it is
/// enough to count the CRs: one for each header line, one for the first line, one for the empty
/// one.
pub(super) fn has_strict_line_ends(head: &[u8], header_lines: usize) -> bool {
    memchr::memchr_iter(b'\r', head).count() == header_lines + 2
}

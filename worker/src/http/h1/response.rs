//! Response heads: from bytes to [`ResponseHead`] and a verdict about framing and reuse.
//!
//! An upstream is trusted no more than a client: what is refused in requests is refused here.

use std::mem::MaybeUninit;

use super::fields::{Coding, Fields, Side, has_strict_line_ends};
use super::{Framing, Limits, UpgradeToken};
use crate::http::head::{ResponseHead, Version};

/// What kind of request a response answers; it decides whether there is a body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Answers {
    /// An ordinary request.
    #[default]
    Plain,
    /// HEAD: never a body.
    Head,
    /// CONNECT: after a 2xx the connection is a tunnel.
    Connect,
    /// A request that offered an upgrade: after a 101 the connection is a tunnel.
    Upgrade,
}

/// What comes after the head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Follows {
    /// The body, framed as [`ParsedResponse::framing`] says.
    Body,
    /// Another response head: this one was a 1xx.
    AnotherHead,
    /// The bytes of another protocol.
    Tunnel,
}

/// What a complete response head says beside its content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ParsedResponse {
    /// Bytes of the head in the input.
    pub head_len: usize,
    /// How long the body is: `None` for 1xx, 204, 304 and answers to HEAD.
    pub framing: Framing,
    /// Value of `content-length` where it is information only (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the upstream connection can carry another request after this response.
    pub keep_alive: bool,
    /// What comes next on the connection.
    pub follows: Follows,
    /// The protocol switched to, in a 101.
    pub upgrade: Option<UpgradeToken>,
}

/// Why a response cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResponseError {
    /// Not HTTP/1, or syntax that another reader could read differently.
    #[error("the response head is malformed")]
    Malformed,
    /// A line ended without CR.
    #[error("a line of the response head ends with a bare line feed")]
    BareLineFeed,
    /// More header lines than allowed.
    #[error("the response has too many headers")]
    TooManyHeaders,
    /// The head is larger than allowed.
    #[error("the response head is too large")]
    HeadTooLarge,
    /// The version is not 1.0 or 1.1.
    #[error("the response has an unsupported version")]
    Version,
    /// The status is not 100 to 999.
    #[error("the response status is out of range")]
    Status,
    /// Contradictory, repeated or malformed `content-length` or `transfer-encoding`.
    #[error("the response framing is ambiguous")]
    Framing,
    /// A transfer coding other than chunked.
    #[error("the response has an unsupported transfer encoding")]
    TransferEncoding,
    /// A header that may come once came twice, or `connection` names an essential one.
    #[error("the response headers contradict each other")]
    Headers,
    /// A 101 that nobody asked for.
    #[error("the upstream switches protocols unasked")]
    UnexpectedUpgrade,
}

impl ResponseError {
    /// `%RESPONSE_CODE_DETAILS%` of the 502 that follows.
    pub fn details(self) -> &'static str {
        match self {
            Self::Malformed | Self::BareLineFeed | Self::Version | Self::Status | Self::Headers => {
                "upstream_reset_before_response_started{protocol_error}"
            }
            Self::TooManyHeaders => "upstream_reset_before_response_started{too_many_headers}",
            Self::HeadTooLarge => "upstream_reset_before_response_started{headers_too_large}",
            Self::Framing => "upstream_reset_before_response_started{invalid_framing}",
            Self::TransferEncoding => {
                "upstream_reset_before_response_started{invalid_transfer_encoding}"
            }
            Self::UnexpectedUpgrade => "upstream_reset_before_response_started{unexpected_upgrade}",
        }
    }
}

/// Header lines parsed without allocating.
const INLINE_HEADERS: usize = 128;

/// Reads a response head from the start of `input` into `head`.
///
/// Only the size limits of `limits` apply. `None` means that more bytes are needed. `head` is only
/// meaningful when a response is returned.
///
/// # Errors
/// When the response is malformed, ambiguous or too large; the connection must not be reused.
pub fn parse(
    input: &[u8],
    limits: &Limits,
    answers: Answers,
    head: &mut ResponseHead,
) -> Result<Option<ParsedResponse>, ResponseError> {
    // The tokenizer would skip empty lines; in front of a response they are stray bytes.
    if matches!(input.first(), Some(b'\r' | b'\n')) {
        return Err(ResponseError::Malformed);
    }
    let window = input.get(..limits.max_head_bytes).unwrap_or(input);
    let parsed = if limits.max_headers <= INLINE_HEADERS {
        let mut slots = [const { MaybeUninit::uninit() }; INLINE_HEADERS];
        let slots = slots.get_mut(..limits.max_headers).unwrap_or_default();
        parse_window(window, slots, answers, head)
    } else {
        let mut slots = vec![MaybeUninit::uninit(); limits.max_headers];
        parse_window(window, &mut slots, answers, head)
    };
    match parsed {
        Ok(None) if window.len() >= limits.max_head_bytes => Err(ResponseError::HeadTooLarge),
        parsed => parsed,
    }
}

fn parse_window<'b>(
    window: &'b [u8],
    slots: &mut [MaybeUninit<httparse::Header<'b>>],
    answers: Answers,
    head: &mut ResponseHead,
) -> Result<Option<ParsedResponse>, ResponseError> {
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        window,
        slots,
    );
    match status {
        Ok(httparse::Status::Complete(head_len)) => {
            let bytes = window.get(..head_len).unwrap_or_default();
            finish(bytes, &response, answers, head).map(Some)
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(ResponseError::TooManyHeaders),
        Err(httparse::Error::Version) => Err(ResponseError::Version),
        Err(httparse::Error::Status) => Err(ResponseError::Status),
        Err(
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Token,
        ) => Err(ResponseError::Malformed),
    }
}

fn finish(
    bytes: &[u8],
    response: &httparse::Response<'_, '_>,
    answers: Answers,
    head: &mut ResponseHead,
) -> Result<ParsedResponse, ResponseError> {
    use crate::config::hcm::UnderscoresAction::Allow;

    if !has_strict_line_ends(bytes, response.headers.len()) {
        return Err(ResponseError::BareLineFeed);
    }
    head.status = response.code.unwrap_or_default();
    if !(100..=999).contains(&head.status) {
        return Err(ResponseError::Status);
    }
    let old = response.version == Some(0);
    head.version = if old { Version::Http10 } else { Version::Http11 };
    let fields = Fields::read(Side::Response, bytes, response.headers, Allow, &mut head.headers)
        .map_err(field_error)?;
    check_framing(&fields, head)?;
    let follows = follows(head.status, answers)?;
    let framing = framing(&fields, head.status, answers);
    // A body where none may be could be followed by anything: no reuse.
    let stray = head.status == 204
        && (fields.coding != Coding::None || fields.content_length.is_some_and(|n| n > 0));
    Ok(ParsedResponse {
        head_len: bytes.len(),
        framing,
        content_length: fields.content_length.filter(|_| head.status >= 200 && head.status != 204),
        keep_alive: !fields.close
            && (!old || fields.keep_alive)
            && framing != Framing::UntilClose
            && follows != Follows::Tunnel
            && !stray,
        follows,
        // A 101 is about nothing else, so `connection` need not name it.
        upgrade: fields.upgrade.filter(|_| head.status == 101).and_then(UpgradeToken::new),
    })
}

fn field_error(error: super::fields::FieldError) -> ResponseError {
    use super::fields::FieldError as E;
    match error {
        E::DuplicateLength | E::InvalidLength | E::DuplicateCoding => ResponseError::Framing,
        E::DuplicateHost | E::Duplicate | E::Nomination | E::Underscore => ResponseError::Headers,
    }
}

/// Refuses framing that two readers could understand differently, whatever the status.
fn check_framing(fields: &Fields<'_>, head: &ResponseHead) -> Result<(), ResponseError> {
    match fields.coding {
        Coding::Invalid => Err(ResponseError::Framing),
        Coding::Unsupported => Err(ResponseError::TransferEncoding),
        Coding::Chunked
            if fields.content_length.is_some()
                || head.version == Version::Http10
                || head.status < 200 =>
        {
            Err(ResponseError::Framing)
        }
        Coding::None | Coding::Chunked => Ok(()),
    }
}

fn follows(status: u16, answers: Answers) -> Result<Follows, ResponseError> {
    match (status, answers) {
        (101, Answers::Upgrade) | (200..=299, Answers::Connect) => Ok(Follows::Tunnel),
        (101, _) => Err(ResponseError::UnexpectedUpgrade),
        (100..=199, _) => Ok(Follows::AnotherHead),
        _ => Ok(Follows::Body),
    }
}

/// RFC 9112 §6.3.
fn framing(fields: &Fields<'_>, status: u16, answers: Answers) -> Framing {
    match (status, answers) {
        (100..=199 | 204 | 304, _) | (_, Answers::Head) | (200..=299, Answers::Connect) => {
            Framing::None
        }
        _ => match (fields.coding, fields.content_length) {
            (Coding::Chunked, _) => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length),
            (_, None) => Framing::UntilClose,
        },
    }
}

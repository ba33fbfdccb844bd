//! The parts of an exchange as fields of a record, and back.
//!
//! Only plain values: heads, counters, where the decoders stand, ages of points in time. What they
//! mean to a connection is `super::migrate`'s business.

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime},
};

use baton_contract::record::{Reader, RecordError, Writer};

use crate::{
    http::{
        h1::{
            Framing,
            body::{Decoder, State},
        },
        head::{RequestHead, ResponseHead, Version},
        headers::Headers,
        stream_info::{ResponseFlags, StreamInfo},
    },
    migrate::{earlier, maybe_address, micros},
};

/// Tags of one stream's information, relative to its first one.
mod info_tag {
    pub(super) const REMOTE: u16 = 0;
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const WALL: u16 = 2;
    pub(super) const AGE: u16 = 3;
    pub(super) const RECEIVED: u16 = 4;
    pub(super) const FIRST_SENT: u16 = 5;
    pub(super) const FIRST_RECEIVED: u16 = 6;
    pub(super) const LAST_RECEIVED: u16 = 7;
    pub(super) const STATUS: u16 = 8;
    pub(super) const DETAILS: u16 = 9;
    pub(super) const FLAGS: u16 = 10;
    pub(super) const BYTES_RECEIVED: u16 = 11;
    pub(super) const BYTES_SENT: u16 = 12;
    pub(super) const ROUTE_NAME: u16 = 13;
    pub(super) const VIRTUAL_HOST: u16 = 14;
    pub(super) const HEALTH_CHECK: u16 = 15;
}

/// Writes headers as one list: name, value, name, value.
pub(super) fn write_headers(writer: &mut Writer, tag: u16, headers: &Headers) {
    writer.list(tag, headers.iter().flat_map(|(name, value)| [name, value]));
}

/// Reads headers.
pub(super) fn read_headers(
    reader: &mut Reader<'_>,
    tag: u16,
    headers: &mut Headers,
) -> Result<(), RecordError> {
    let items = reader.list(tag)?;
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(RecordError::Malformed(tag));
    }
    for [name, value] in pairs {
        headers.append(name, value);
    }
    Ok(())
}

const fn version_number(version: Version) -> u64 {
    match version {
        Version::Http10 => 10,
        Version::Http11 => 11,
        Version::Http2 => 20,
    }
}

fn version(number: u64, tag: u16) -> Result<Version, RecordError> {
    match number {
        10 => Ok(Version::Http10),
        11 => Ok(Version::Http11),
        20 => Ok(Version::Http2),
        _ => Err(RecordError::Malformed(tag)),
    }
}

/// Writes a request head into six fields from `tag` on.
pub(super) fn write_request(writer: &mut Writer, tag: u16, head: &RequestHead) {
    writer
        .bytes(tag, &head.method)
        .bytes(tag + 1, &head.path)
        .bytes(tag + 2, &head.authority)
        .number(tag + 3, version_number(head.version));
    write_headers(writer, tag + 4, &head.headers);
    if let Some(asked_for) = &head.asked_for {
        writer.optional().bytes(tag + 5, asked_for).critical();
    }
}

/// Reads a request head.
pub(super) fn read_request(
    reader: &mut Reader<'_>,
    tag: u16,
    head: &mut RequestHead,
) -> Result<(), RecordError> {
    head.method.extend_from_slice(reader.bytes(tag)?);
    head.path.extend_from_slice(reader.bytes(tag + 1)?);
    head.authority.extend_from_slice(reader.bytes(tag + 2)?);
    head.version = version(reader.number(tag + 3)?, tag + 3)?;
    head.asked_for = reader.maybe_bytes(tag + 5).map(<[u8]>::to_vec);
    read_headers(reader, tag + 4, &mut head.headers)
}

/// Writes a response head into three fields from `tag` on.
pub(super) fn write_response(writer: &mut Writer, tag: u16, head: &ResponseHead) {
    writer.number(tag, u64::from(head.status)).number(tag + 1, version_number(head.version));
    write_headers(writer, tag + 2, &head.headers);
}

/// Reads a response head.
pub(super) fn read_response(
    reader: &mut Reader<'_>,
    tag: u16,
    head: &mut ResponseHead,
) -> Result<(), RecordError> {
    head.status = reader.narrow(tag)?;
    head.version = version(reader.number(tag + 1)?, tag + 1)?;
    read_headers(reader, tag + 2, &mut head.headers)
}

/// A framing as two numbers.
pub(super) const fn framing_numbers(framing: Framing) -> (u64, u64) {
    match framing {
        Framing::None => (0, 0),
        Framing::Length(length) => (1, length),
        Framing::Chunked => (2, 0),
        Framing::UntilClose => (3, 0),
    }
}

/// The framing of two numbers.
pub(super) fn framing(code: u64, length: u64, tag: u16) -> Result<Framing, RecordError> {
    match code {
        0 => Ok(Framing::None),
        1 => Ok(Framing::Length(length)),
        2 => Ok(Framing::Chunked),
        3 => Ok(Framing::UntilClose),
        _ => Err(RecordError::Malformed(tag)),
    }
}

/// Writes where a decoder stands into two fields from `tag` on.
pub(super) fn write_decoder(writer: &mut Writer, tag: u16, decoder: &Decoder) {
    let (code, a, b) = match decoder.state() {
        State::Length(left) => (0, left, 0),
        State::UntilClose => (1, 0, 0),
        State::Size { size, digits } => (2, size, u16::from(digits)),
        State::Extension { size } => (3, size, 0),
        State::SizeLf { size } => (4, size, 0),
        State::Data(left) => (5, left, 0),
        State::DataCr => (6, 0, 0),
        State::DataLf => (7, 0, 0),
        State::Trailers => (8, 0, 0),
        State::Done => (9, 0, 0),
        State::SizeBlank { size, blanks } => (10, size, blanks),
    };
    let (extensions, trailers) = decoder.counted();
    let numbers: [u64; 5] = [code, a, u64::from(b), extensions as u64, trailers as u64];
    writer.bytes(tag, &numbers.map(u64::to_le_bytes).concat());
    write_headers(writer, tag + 1, decoder.trailers());
}

/// Reads a decoder; `None` when there is none.
pub(super) fn read_decoder(
    reader: &mut Reader<'_>,
    tag: u16,
) -> Result<Option<Decoder>, RecordError> {
    let Some(bytes) = reader.maybe_bytes(tag) else { return Ok(None) };
    let malformed = RecordError::Malformed(tag);
    let (numbers, rest) = bytes.as_chunks::<8>();
    let ([code, a, b, extensions, trailer_bytes], []) = (numbers, rest) else {
        return Err(malformed);
    };
    let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let (a, b) = (number(a), u16::try_from(number(b)).map_err(|_| malformed)?);
    let state = match (number(code), a) {
        (0, 1..) => State::Length(a),
        (1, _) => State::UntilClose,
        (2, size) => State::Size { size, digits: u8::try_from(b).map_err(|_| malformed)? },
        (3, size) => State::Extension { size },
        (4, size) => State::SizeLf { size },
        (5, 1..) => State::Data(a),
        (6, _) => State::DataCr,
        (7, _) => State::DataLf,
        (8, _) => State::Trailers,
        (9, _) => State::Done,
        (10, size) => State::SizeBlank { size, blanks: b },
        _ => return Err(malformed),
    };
    let size = |bytes: &[u8; 8]| usize::try_from(number(bytes)).map_err(|_| malformed);
    let counted = (size(extensions)?, size(trailer_bytes)?);
    let mut trailers = Headers::default();
    read_headers(reader, tag + 1, &mut trailers)?;
    Ok(Some(Decoder::resume(state, counted, trailers)))
}

/// Writes a duration that may be missing.
pub(super) fn write_duration(writer: &mut Writer, tag: u16, duration: Option<Duration>) {
    writer.maybe(tag, duration.map(micros));
}

/// Reads a duration that may be missing.
pub(super) fn read_duration(
    reader: &mut Reader<'_>,
    tag: u16,
) -> Result<Option<Duration>, RecordError> {
    Ok(reader.maybe(tag)?.map(Duration::from_micros))
}

/// Writes a point in time that may be missing, as its age.
pub(super) fn write_age(writer: &mut Writer, tag: u16, now: Instant, at: Option<Instant>) {
    write_duration(writer, tag, at.map(|at| now.saturating_duration_since(at)));
}

/// Reads a point in time that may be missing.
pub(super) fn read_age(
    reader: &mut Reader<'_>,
    tag: u16,
    now: Instant,
) -> Result<Option<Instant>, RecordError> {
    Ok(reader.maybe(tag)?.map(|age| earlier(now, age)))
}

/// Writes what is known of the stream, in sixteen fields from `tag` on.
pub(super) fn write_info(writer: &mut Writer, tag: u16, info: &StreamInfo, now: Instant) {
    let wall = info.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if let Some(remote) = info.remote {
        writer.text(tag + info_tag::REMOTE, &remote.to_string());
    }
    writer.maybe(tag + info_tag::PROTOCOL, info.protocol.map(version_number));
    writer.number(tag + info_tag::WALL, micros(wall));
    write_age(writer, tag + info_tag::AGE, now, Some(info.started));
    write_age(writer, tag + info_tag::RECEIVED, now, info.request_received);
    write_age(writer, tag + info_tag::FIRST_SENT, now, info.upstream_first_sent);
    write_age(writer, tag + info_tag::FIRST_RECEIVED, now, info.upstream_first_received);
    write_age(writer, tag + info_tag::LAST_RECEIVED, now, info.upstream_last_received);
    writer
        .number(tag + info_tag::STATUS, u64::from(info.status))
        .text(tag + info_tag::DETAILS, &info.details)
        .number(tag + info_tag::FLAGS, u64::from(info.flags.bits()))
        .number(tag + info_tag::BYTES_RECEIVED, info.bytes_received)
        .number(tag + info_tag::BYTES_SENT, info.bytes_sent)
        .text(tag + info_tag::ROUTE_NAME, &info.route_name)
        .text(tag + info_tag::VIRTUAL_HOST, &info.virtual_host)
        .number(tag + info_tag::HEALTH_CHECK, u64::from(info.health_check));
}

/// Reads what is known of the stream into `info`, which has its connection already.
pub(super) fn read_info(
    reader: &mut Reader<'_>,
    tag: u16,
    info: &mut StreamInfo,
    now: Instant,
) -> Result<(), RecordError> {
    info.remote = maybe_address(reader, tag + info_tag::REMOTE)?;
    let protocol = tag + info_tag::PROTOCOL;
    info.protocol = reader.maybe(protocol)?.map(|n| version(n, protocol)).transpose()?;
    let wall = Duration::from_micros(reader.number(tag + info_tag::WALL)?);
    info.started_at = SystemTime::UNIX_EPOCH.checked_add(wall).unwrap_or(info.started_at);
    let age = tag + info_tag::AGE;
    info.started = read_age(reader, age, now)?.ok_or(RecordError::Missing(age))?;
    info.request_received = read_age(reader, tag + info_tag::RECEIVED, now)?;
    info.upstream_first_sent = read_age(reader, tag + info_tag::FIRST_SENT, now)?;
    info.upstream_first_received = read_age(reader, tag + info_tag::FIRST_RECEIVED, now)?;
    info.upstream_last_received = read_age(reader, tag + info_tag::LAST_RECEIVED, now)?;
    info.status = reader.narrow(tag + info_tag::STATUS)?;
    info.details = Cow::Owned(reader.text(tag + info_tag::DETAILS)?.to_owned());
    info.flags = ResponseFlags::from_bits(reader.narrow(tag + info_tag::FLAGS)?);
    info.bytes_received = reader.number(tag + info_tag::BYTES_RECEIVED)?;
    info.bytes_sent = reader.number(tag + info_tag::BYTES_SENT)?;
    info.route_name = reader.text(tag + info_tag::ROUTE_NAME)?.into();
    info.virtual_host = reader.text(tag + info_tag::VIRTUAL_HOST)?.into();
    info.health_check = reader.flag(tag + info_tag::HEALTH_CHECK)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_decoder_counted_on_a_size_line_goes_along() {
        for line in ["0".repeat(255), format!("5{}", " ".repeat(4096)), "5 ;a=b".to_owned()] {
            let mut decoder = Decoder::new(Framing::Chunked);
            decoder.decode(line.as_bytes()).unwrap();
            let mut writer = Writer::new(1, 1);
            write_decoder(&mut writer, 1, &decoder);
            let record = writer.finish();
            let mut reader = Reader::new(&record).unwrap();
            let read = read_decoder(&mut reader, 1).unwrap().unwrap();
            assert_eq!((read.state(), read.counted()), (decoder.state(), decoder.counted()));
        }
    }
}

//! The tries of an exchange on their way to another process.

use std::time::Instant;

use baton_contract::record::{Reader, RecordError, Writer};

use super::{
    super::{exchange::Exchange, record, retained::Retained},
    Retrying,
};
use crate::{http::headers::Headers, route::retry::Tries};

/// First field of the tries in a record.
const TAG: u16 = 200;
const LEFT: u16 = TAG;
const BOUND: u16 = TAG + 1;
const ASKED: u16 = TAG + 2;
const BODY: u16 = TAG + 3;
const TRAILERS: u16 = TAG + 4;
const CONNECTED: u16 = TAG + 5;
const MOVED: u16 = TAG + 6;
const LIMIT: u16 = TAG + 7;
const ATTEMPTS: u16 = TAG + 8;

/// Writes the tries of an exchange that has some, for another process. One that does not know them goes on
/// with the try that is under way.
pub(in super::super) fn freeze(writer: &mut Writer, exchange: &Exchange, now: Instant) {
    let Some(retrying) = &exchange.retrying else { return };
    writer.optional();
    record::write_headers(writer, ASKED, &retrying.tries.asked);
    if let Some((left, bound)) = retrying.tries.state() {
        writer.number(LEFT, left);
        record::write_duration(writer, BOUND, Some(bound));
    }
    if let Some(retained) = &exchange.retained {
        writer.bytes(BODY, retained.body()).number(LIMIT, retained.limit() as u64);
        record::write_headers(writer, TRAILERS, retained.trailers());
    }
    let attempts = exchange.info.upstream.as_ref().map(|upstream| upstream.attempts.into());
    writer.maybe(ATTEMPTS, attempts);
    record::write_age(writer, CONNECTED, now, retrying.connected);
    record::write_age(writer, MOVED, now, Some(retrying.moved));
    writer.critical();
}

/// The tries of an exchange whose route is known already.
pub(in super::super) fn thaw(
    reader: &mut Reader<'_>,
    exchange: &mut Exchange,
    now: Instant,
) -> Result<(), RecordError> {
    if reader.maybe_bytes(ASKED).is_none() {
        return Ok(());
    }
    let mut request = exchange.request.clone();
    record::read_headers(reader, ASKED, &mut request.headers)?;
    let left = reader.maybe(LEFT)?;
    let state = left.zip(record::read_duration(reader, BOUND)?);
    let attempts = reader.maybe(ATTEMPTS)?.and_then(|attempts| u32::try_from(attempts).ok());
    let limit = reader.maybe(LIMIT)?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let body = reader.maybe_bytes(BODY).map(<[u8]>::to_vec);
    let mut trailers = Headers::default();
    if body.is_some() {
        record::read_headers(reader, TRAILERS, &mut trailers)?;
    }
    let connected = record::read_age(reader, CONNECTED, now)?;
    let moved = record::read_age(reader, MOVED, now)?.unwrap_or(now);
    let Some(target) = &exchange.target else { return Ok(()) };
    let Some(action) = target.action() else { return Ok(()) };
    let Some(mut tries) = Tries::of(&action.retry, &request, target.timeout) else {
        return Ok(());
    };
    tries.resume(state);
    exchange.retained = body.map(|body| Retained::resume(body, trailers, limit));
    let mut retrying = Retrying::new(*tries, now);
    (retrying.connected, retrying.moved) = (connected, moved);
    if let (Some(attempts), Some(upstream)) = (attempts, &mut exchange.info.upstream) {
        upstream.attempts = attempts;
        retrying.again = attempts > 1;
    }
    exchange.retrying = Some(Box::new(retrying));
    Ok(())
}

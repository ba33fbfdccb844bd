//! A tunnel as fields of a record, and back.
//!
//! Its descriptors go into the list of the record in a fixed order: client, endpoint, then for each
//! direction that has a pipe its read end and its write end.

use std::{collections::VecDeque, os::fd::OwnedFd, time::Duration};

use baton_contract::record::{Reader, RecordError, Writer};

use super::micros;
use crate::tunnel::{DirectionParts, Lead, Leads, PipeParts, Progress, Side, TunnelParts};

/// Fields of a tunnel, counted from its first tag; each direction has ten of them.
const IDLE: u16 = 0;
const FIRST_END: u16 = 1;
const FAILED: u16 = 2;
const RESET_WITHIN: u16 = 3;
const TO_UPSTREAM: u16 = 4;
const TO_DOWNSTREAM: u16 = 14;
/// Tags a tunnel takes.
pub const TAGS: u16 = 24;

const HELD: u16 = 0;
const PIPE: u16 = 1;
const SOURCE_ENDED: u16 = 2;
const PROGRESS: u16 = 3;
const BYTES: u16 = 4;
const SPLICED: u16 = 5;
const BULK_RUN: u16 = 6;
const KEPT: u16 = 7;
const PASSES: u16 = 8;

/// Writes a tunnel into the fields from `tag` on; its descriptors are added to `fds`.
pub fn write(writer: &mut Writer, tag: u16, parts: TunnelParts, fds: &mut Vec<OwnedFd>) {
    writer
        .number(tag + IDLE, micros(parts.idle))
        .maybe(tag + FIRST_END, parts.first_end.map(side_number))
        .maybe(tag + FAILED, parts.failed.map(side_number))
        .maybe(tag + RESET_WITHIN, parts.reset_within.map(micros));
    fds.extend([parts.downstream, parts.upstream]);
    write_direction(writer, tag + TO_UPSTREAM, parts.to_upstream, fds);
    write_direction(writer, tag + TO_DOWNSTREAM, parts.to_downstream, fds);
}

fn write_direction(writer: &mut Writer, tag: u16, parts: DirectionParts, fds: &mut Vec<OwnedFd>) {
    writer
        .bytes(tag + HELD, &parts.held)
        .number(tag + PIPE, u64::from(parts.pipe.is_some()))
        .number(tag + SOURCE_ENDED, u64::from(parts.source_ended))
        .number(tag + PROGRESS, progress_number(parts.progress))
        .number(tag + BYTES, parts.bytes)
        .number(tag + SPLICED, parts.spliced)
        .number(tag + BULK_RUN, parts.bulk_run as u64)
        .number(tag + KEPT, u64::from(parts.kept))
        .optional()
        .number(tag + PASSES, u64::from(parts.passes))
        .critical();
    if let Some(pipe) = parts.pipe {
        fds.extend([pipe.read, pipe.write]);
    }
}

/// Reads a tunnel; takes its descriptors from the front of `fds`.
///
/// # Errors
/// When a field is missing or malformed, or there are too few descriptors.
pub fn read(
    reader: &mut Reader<'_>,
    tag: u16,
    fds: &mut VecDeque<OwnedFd>,
) -> Result<TunnelParts, RecordError> {
    let (Some(downstream), Some(upstream)) = (fds.pop_front(), fds.pop_front()) else {
        return Err(RecordError::Malformed(tag));
    };
    Ok(TunnelParts {
        downstream,
        upstream,
        idle: Duration::from_micros(reader.number(tag + IDLE)?),
        first_end: maybe_side(reader, tag + FIRST_END)?,
        failed: maybe_side(reader, tag + FAILED)?,
        reset_within: reader.maybe(tag + RESET_WITHIN)?.map(Duration::from_micros),
        to_upstream: read_direction(reader, tag + TO_UPSTREAM, fds)?,
        to_downstream: read_direction(reader, tag + TO_DOWNSTREAM, fds)?,
    })
}

fn read_direction(
    reader: &mut Reader<'_>,
    tag: u16,
    fds: &mut VecDeque<OwnedFd>,
) -> Result<DirectionParts, RecordError> {
    let pipe = if reader.flag(tag + PIPE)? {
        let (Some(read), Some(write)) = (fds.pop_front(), fds.pop_front()) else {
            return Err(RecordError::Malformed(tag + PIPE));
        };
        Some(PipeParts { read, write })
    } else {
        None
    };
    Ok(DirectionParts {
        held: reader.bytes(tag + HELD)?.to_vec(),
        pipe,
        source_ended: reader.flag(tag + SOURCE_ENDED)?,
        progress: progress(reader, tag + PROGRESS)?,
        bytes: reader.number(tag + BYTES)?,
        spliced: reader.number(tag + SPLICED)?,
        bulk_run: reader.narrow(tag + BULK_RUN)?,
        kept: reader.flag(tag + KEPT)?,
        passes: reader.maybe(tag + PASSES)?.is_some_and(|passes| passes != 0),
    })
}

/// Writes the leads of a tunnel that is all in the kernel into the two fields from `tag` on, if it has
/// any. Who does not know them must not go on with the tunnel.
pub fn write_leads(writer: &mut Writer, tag: u16, leads: Option<Leads>) {
    if let Some(leads) = leads {
        writer.number(tag, leads.up.0).number(tag + 1, leads.down.0);
    }
}

/// Reads them; `None` when all bytes move through pipes.
///
/// # Errors
/// When one of them is missing or malformed.
pub fn read_leads(reader: &mut Reader<'_>, tag: u16) -> Result<Option<Leads>, RecordError> {
    let (up, down) = (reader.maybe(tag)?.map(Lead), reader.maybe(tag + 1)?.map(Lead));
    match (up, down) {
        (Some(up), Some(down)) => Ok(Some(Leads { up, down })),
        (None, None) => Ok(None),
        _ => Err(RecordError::Missing(tag)),
    }
}

const fn side_number(side: Side) -> u64 {
    match side {
        Side::Downstream => 0,
        Side::Upstream => 1,
    }
}

fn maybe_side(reader: &mut Reader<'_>, tag: u16) -> Result<Option<Side>, RecordError> {
    match reader.maybe(tag)? {
        None => Ok(None),
        Some(0) => Ok(Some(Side::Downstream)),
        Some(1) => Ok(Some(Side::Upstream)),
        Some(_) => Err(RecordError::Malformed(tag)),
    }
}

const fn progress_number(progress: Progress) -> u64 {
    match progress {
        Progress::Waiting => 0,
        Progress::Finished => 1,
        // What is stuck ends at once, and is not written.
        Progress::SourceFailed | Progress::Stuck => 2,
        Progress::SinkFailed => 3,
    }
}

fn progress(reader: &mut Reader<'_>, tag: u16) -> Result<Progress, RecordError> {
    match reader.number(tag)? {
        0 => Ok(Progress::Waiting),
        1 => Ok(Progress::Finished),
        2 => Ok(Progress::SourceFailed),
        3 => Ok(Progress::SinkFailed),
        _ => Err(RecordError::Malformed(tag)),
    }
}

//! A session as a record, for another process to go on with it.
//!
//! Either its tunnel is in the record with it, for one that takes it from this process, or it is all
//! in the kernel, for one that goes on after this process died.

use std::{collections::VecDeque, os::fd::OwnedFd, time::Duration};

use baton_contract::{
    record::{Reader, RecordError, Writer},
    shm::EscrowId,
    words::counted,
};

use super::session::SessionFacts;
use crate::{
    http::stream_info::ResponseFlags,
    migrate::{FIRST_OWN_TAG, maybe_address, maybe_path, micros, on_the_way, tunnel, write_path},
    tunnel::{KeptParts, Leads, TunnelParts},
};

const CLUSTER: u16 = FIRST_OWN_TAG;
const ATTEMPTS: u16 = FIRST_OWN_TAG + 1;
const FLAGS: u16 = FIRST_OWN_TAG + 2;
const UPSTREAM_AGE: u16 = FIRST_OWN_TAG + 3;
const JOINED_AGE: u16 = FIRST_OWN_TAG + 4;
const UPSTREAM_PEER: u16 = FIRST_OWN_TAG + 5;
const UPSTREAM_LOCAL: u16 = FIRST_OWN_TAG + 6;
/// Name of the connection in escrow, see [`EscrowId::to_number`].
const ESCROW: u16 = FIRST_OWN_TAG + 7;
/// Whether the tunnel is all in the kernel; otherwise it is in the record.
const IN_KERNEL: u16 = FIRST_OWN_TAG + 8;
/// How far the kernel's counts are apart in a tunnel that is all there. Two fields.
const LEADS: u16 = FIRST_OWN_TAG + 9;
/// Path of the endpoint's Unix socket. Two fields of leads come before.
const UPSTREAM_PATH: u16 = FIRST_OWN_TAG + 11;
const TUNNEL: u16 = FIRST_OWN_TAG + 16;

/// A session that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) facts: SessionFacts,
    pub(super) tunnel: TunnelParts,
    pub(super) escrow: Option<EscrowId>,
}

/// Why a record is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the record cannot be read")]
    Record(#[from] RecordError),
    #[error("a descriptor is not what it should be")]
    Descriptor(#[from] std::io::Error),
    #[error("{} came, which is not what the record needs", counted(*.0, "descriptor"))]
    Descriptors(usize),
}

/// Adds a session to a record, without its tunnel.
pub(super) fn write_facts(writer: &mut Writer, facts: &SessionFacts, escrow: Option<EscrowId>) {
    writer
        .text(CLUSTER, &facts.cluster)
        .number(ATTEMPTS, u64::from(facts.attempts))
        .number(FLAGS, u64::from(facts.flags.bits()))
        .number(UPSTREAM_AGE, micros(facts.upstream_age))
        .number(JOINED_AGE, micros(facts.joined_age))
        .maybe(ESCROW, escrow.map(EscrowId::to_number));
    if let Some(peer) = facts.upstream.0 {
        writer.text(UPSTREAM_PEER, &peer.to_string());
    }
    write_path(writer, UPSTREAM_PATH, facts.path.as_deref());
    if let Some(local) = facts.upstream.1 {
        writer.text(UPSTREAM_LOCAL, &local.to_string());
    }
}

/// Adds the tunnel; its descriptors are returned.
pub(super) fn write_tunnel(writer: &mut Writer, parts: TunnelParts) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    writer.number(IN_KERNEL, 0);
    tunnel::write(writer, TUNNEL, parts, &mut descriptors);
    descriptors
}

/// Says that the tunnel is all in the kernel.
pub(super) fn write_kept(writer: &mut Writer, leads: Option<Leads>) {
    writer.number(IN_KERNEL, 1);
    tunnel::write_leads(writer, LEADS, leads);
}

/// Reads what the functions above wrote, with the descriptors.
pub(super) fn read(
    mut reader: Reader<'_>,
    mut descriptors: VecDeque<OwnedFd>,
) -> Result<Read, ReadError> {
    let older = on_the_way(&mut reader)?;
    let age = |micros: u64| Duration::from_micros(micros).saturating_add(older);
    let facts = SessionFacts {
        cluster: reader.text(CLUSTER)?.to_owned(),
        attempts: reader.narrow(ATTEMPTS)?,
        flags: ResponseFlags::from_bits(reader.narrow(FLAGS)?),
        upstream_age: age(reader.number(UPSTREAM_AGE)?),
        joined_age: age(reader.number(JOINED_AGE)?),
        upstream: (
            maybe_address(&mut reader, UPSTREAM_PEER)?,
            maybe_address(&mut reader, UPSTREAM_LOCAL)?,
        ),
        path: maybe_path(&mut reader, UPSTREAM_PATH),
    };
    let escrow = reader.maybe(ESCROW)?.map(EscrowId::from_number);
    let tunnel = if reader.flag(IN_KERNEL)? {
        let came = descriptors.len();
        let kept = Vec::from(descriptors).try_into().map_err(|_| ReadError::Descriptors(came))?;
        let leads = tunnel::read_leads(&mut reader, LEADS)?;
        KeptParts::from_descriptors(kept).inspect(leads)?
    } else {
        let parts = tunnel::read(&mut reader, TUNNEL, &mut descriptors)?;
        if !descriptors.is_empty() {
            return Err(ReadError::Descriptors(descriptors.len()));
        }
        parts
    };
    reader.finish()?;
    Ok(Read { facts, tunnel, escrow })
}

//! An upgraded connection: after 101, or 2xx for CONNECT, bytes flow both ways until one side
//! ends. It can move to another generation at any byte, and outlives this process in escrow once no
//! byte of it is here.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use baton_contract::{
    peer::Stay,
    record::{RecordError, Writer},
    shm::EscrowId,
};

use super::{
    Hcm,
    attempt::Link,
    connection::{Connection, Phase},
    downstream::{ActiveConnection, Downstream},
    exchange::Exchange,
    migrate::{self, Belongs, refused, tag},
    resume,
};
use crate::{
    activity::Work,
    clock,
    cluster::endpoint::{ActiveConnection as ActiveUpstream, EndpointInfo},
    deadline::Deadline,
    filter::network::{Arrived, Serving},
    http::stream_info::ConnectionInfo,
    migrate::{Answer, Ended, Moved, tunnel as record},
    stats::{ConnectionKind, EndReason, EscrowStats},
    tunnel::{
        Due, EndCause, Keeping, KeptParts, Leads, Limits, Papers, Side, Splice, Tunnel, TunnelEnd,
        TunnelParts,
    },
    upstream::{counted::Counted, pool::PooledConnection},
};

/// First field of the tunnel itself.
const TUNNEL: u16 = resume::TAGS_END;
/// Where the endpoint is, and its name.
const ENDPOINT: u16 = TUNNEL + record::TAGS;
const HOSTNAME: u16 = ENDPOINT + 1;
/// Bytes that went through the two sockets before the tunnel, to the endpoint and to the client. There
/// when the tunnel is all in the kernel, and not in the record.
const BEFORE_UP: u16 = ENDPOINT + 2;
const BEFORE_DOWN: u16 = ENDPOINT + 3;
/// And how far the kernel's counts are apart. Two fields.
const LEADS: u16 = ENDPOINT + 4;

/// An upgraded connection and all of its state.
struct Upgraded {
    hcm: Rc<Hcm>,
    exchange: Box<Exchange>,
    tunnel: Tunnel,
    deadline: Deadline,
    active: ActiveConnection,
    endpoint: ActiveUpstream,
    counted: Counted,
    belongs: Belongs,
    keeping: Keeping,
}

/// Runs the tunnel a connection has become.
pub(super) async fn run(connection: Connection) -> Ended {
    match Upgraded::new(connection) {
        Ok(upgraded) => {
            upgraded.hcm.stats.downstream_cx_upgrades_total.inc();
            upgraded.run().await
        }
        Err(reason) => reason.into(),
    }
}

/// Takes over an upgraded connection of another generation.
pub(super) fn adopt(hcm: &Rc<Hcm>, arrived: Arrived<'_>) -> Result<Serving, Stay> {
    let (mut upgraded, escrow) = Upgraded::import(hcm, arrived).map_err(refused)?;
    Ok(Box::pin(async move {
        let (tunnel, desk) = (&mut upgraded.tunnel, &upgraded.hcm.thread.escrow);
        if escrow.is_some_and(|id| !upgraded.keeping.resume(tunnel, desk, id)) {
            // Whoever has it counts it; here it only passed through.
            return EndReason::Migrated.into();
        }
        upgraded.active.count();
        upgraded.counted.arrive();
        let stats = &upgraded.hcm.stats;
        stats.downstream_rq_active.inc();
        let active = &upgraded.hcm.thread.active_requests;
        active.set(active.get() + 1);
        upgraded.run().await
    }))
}

impl Upgraded {
    fn new(connection: Connection) -> Result<Box<Self>, EndReason> {
        let Connection { down, phase, deadline, .. } = connection;
        let Downstream { hcm, socket, mut inbound, now, active, belongs, .. } = down;
        let Phase::Exchange(mut exchange) = phase else { return Err(EndReason::Client) };
        let Link::Active(upstream) = std::mem::replace(&mut exchange.attempt.link, Link::None)
        else {
            return Err(EndReason::Upstream);
        };
        let mut to_upstream = exchange.attempt.out.take_all();
        to_upstream.extend(inbound.take_all());
        let PooledConnection { stream, endpoint, counted, .. } = upstream.connection;
        let from_upstream = exchange.attempt.inbound.take_all();
        let limits = limits(&exchange);
        let tunnel = Tunnel::new((socket, &to_upstream), (stream, &from_upstream), limits, now);
        let keeping = Keeping::new(now);
        let upgraded =
            Self { hcm, exchange, tunnel, deadline, active, endpoint, counted, belongs, keeping };
        Ok(Box::new(upgraded))
    }

    /// Pumps until one side ends or another generation has it.
    async fn run(mut self: Box<Self>) -> Ended {
        let hcm = Rc::clone(&self.hcm);
        let (ledger, stats) = (&hcm.thread.ledger, &hcm.stats);
        ledger.open(ConnectionKind::Http1).dec();
        ledger.open(ConnectionKind::Upgraded).inc();
        stats.downstream_cx_upgrades_active.inc();
        let ended = loop {
            match poll_fn(|cx| self.poll(cx)).await {
                Some(end) => break self.end(end),
                None => {
                    if let Some(moved) = Box::pin(self.offer()).await {
                        break self.leave(moved);
                    }
                }
            }
        };
        ledger.open(ConnectionKind::Upgraded).dec();
        ledger.open(ConnectionKind::Http1).inc();
        stats.downstream_cx_upgrades_active.dec();
        ended
    }

    /// `None` when the tunnel waits and shall move.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<TunnelEnd>> {
        let now = clock::now();
        let id = self.exchange.info.connection.id;
        self.hcm.thread.activity.begin_for(Work::Upgraded, id);
        if let Poll::Ready(end) = self.tunnel.poll(cx, now) {
            return Poll::Ready(Some(end));
        }
        let mover = &self.hcm.thread.mover;
        let has_source = self.belongs.source(Some(&self.exchange)).is_some();
        if mover.is_active() && has_source && self.belongs.wish.may_try(mover, now) {
            return Poll::Ready(None);
        }
        let keep = self.keep(now);
        let next = self.tunnel.deadline().into_iter().chain(keep).min();
        self.deadline.set(next, cx.waker());
        Poll::Pending
    }

    /// Puts the tunnel into escrow if it is time; returns when it is.
    fn keep(&mut self, now: Instant) -> Option<Instant> {
        let desk = &self.hcm.thread.escrow;
        match self.keeping.due(&mut self.tunnel, desk, now) {
            Due::Never => return None,
            Due::At(at) => return Some(at),
            Due::Now => {}
        }
        let stats = EscrowStats::new(&self.hcm.thread.stats);
        let config = self.belongs.origin.file_hash();
        let (to_client, to_endpoint) = self.tunnel.bytes();
        let mut writer = self.record(now);
        self.keeping.put(&mut self.tunnel, desk, &stats, |id, parts, leads| {
            let (up, down) = parts.bytes().unwrap_or((to_endpoint, to_client));
            writer
                .number(tag::ESCROW, id.to_number())
                .number(BEFORE_UP, up.saturating_sub(to_endpoint))
                .number(BEFORE_DOWN, down.saturating_sub(to_client));
            record::write_leads(&mut writer, LEADS, leads);
            Papers { record: writer.finish(), config }
        });
        None
    }

    fn end(self: Box<Self>, end: TunnelEnd) -> Ended {
        let Self { hcm, mut exchange, tunnel, mut active, endpoint, mut counted, belongs, .. } =
            *self;
        hcm.thread.mover.stayed(&belongs.wish);
        drop(tunnel);
        if matches!(end.cause, EndCause::Closed(Side::Upstream) | EndCause::Reset(Side::Upstream)) {
            counted.ended_by_endpoint();
        }
        drop((endpoint, counted));
        exchange.info.bytes_sent += end.bytes_downstream;
        exchange.info.bytes_received += end.bytes_upstream;
        exchange.end(&hcm, clock::now());
        let reason = match end.cause {
            EndCause::Closed(Side::Downstream) | EndCause::Reset(Side::Downstream) => {
                EndReason::Client
            }
            EndCause::Closed(Side::Upstream) | EndCause::Reset(Side::Upstream) => {
                EndReason::Upstream
            }
            EndCause::IdleTimeout => EndReason::Timeout,
            EndCause::Stuck => {
                hcm.thread.ledger.stuck();
                EndReason::CutByDeadline
            }
        };
        if reason == EndReason::Client {
            active.client_ended();
            active.with_request();
        }
        drop(active);
        reason.into()
    }

    async fn offer(&mut self) -> Option<Moved> {
        let (record, fds) = match self.freeze() {
            Ok(frozen) => frozen,
            Err(error) => {
                tracing::debug!(%error, "a tunnel cannot be taken apart");
                self.belongs.stays(Stay::Overload);
                return None;
            }
        };
        let source = self.belongs.source(Some(&self.exchange));
        let mover = self.hcm.thread.mover.clone();
        match mover.offer(Some(ConnectionKind::Upgraded), source, record, fds).await {
            Answer::Moved(moved) => Some(moved),
            Answer::Stays(why) => {
                self.belongs.stays(why);
                None
            }
        }
    }

    fn freeze(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let now = clock::now();
        let mut writer = self.record(now);
        writer.maybe(tag::ESCROW, self.tunnel.name_in_escrow().map(EscrowId::to_number));
        let mut fds = Vec::new();
        record::write(&mut writer, TUNNEL, self.tunnel.export(now)?, &mut fds);
        Ok((writer.finish(), fds))
    }

    /// All of it but the tunnel itself.
    fn record(&self, now: Instant) -> Writer {
        let mut writer = migrate::begin(&self.belongs, &self.exchange, now);
        writer.number(tag::UPGRADED, 1);
        resume::write(&mut writer, &self.exchange, now);
        let endpoint = self.endpoint.endpoint();
        resume::write_endpoint(&mut writer, ENDPOINT, &endpoint.address());
        writer.text(HOSTNAME, &endpoint.info.hostname);
        writer
    }

    fn leave(mut self: Box<Self>, moved: Moved) -> Ended {
        self.tunnel.release(moved.owner());
        self.active.leave();
        self.counted.leave();
        self.exchange.leave(&self.hcm);
        moved.into()
    }

    /// Nothing is counted before it runs.
    fn import(
        hcm: &Rc<Hcm>,
        arrived: Arrived<'_>,
    ) -> Result<(Box<Self>, Option<EscrowId>), RecordError> {
        let now = clock::now();
        let Arrived { record: mut fields, mut fds, common, .. } = arrived;
        let info = Rc::new(ConnectionInfo {
            id: hcm.thread.connection_id(),
            peer: common.peer,
            local: common.local,
            path: arrived.origin.path.clone(),
            listener: arrived.listener,
            filter_chain: arrived.filter_chain,
        });
        let reader = &mut fields;
        let mut exchange = resume::read(reader, hcm, &info, None, now)?;
        let address = resume::read_endpoint(reader, ENDPOINT)?;
        let hostname = reader.text(HOSTNAME)?.to_owned();
        let escrow = reader.maybe(tag::ESCROW)?.map(EscrowId::from_number);
        let parts = match (reader.maybe(BEFORE_UP)?, reader.maybe(BEFORE_DOWN)?) {
            (Some(up), Some(down)) => {
                in_kernel(fds, (up, down), record::read_leads(reader, LEADS)?)?
            }
            _ => record::read(reader, TUNNEL, &mut fds)?,
        };
        let Some(target) = &exchange.target else { return Err(RecordError::Missing(ENDPOINT)) };
        let endpoint = EndpointInfo { hostname, weight: 1, ..EndpointInfo::default() };
        let endpoint = target.cluster.endpoint_at(&address, &endpoint);
        let mut counted = Counted::resume(&target.cluster.stats, now);
        counted.set_serving(true);
        exchange.attempt.active_request = Some(endpoint.resume_request());
        let limits = limits(&exchange);
        let tunnel =
            Tunnel::import(parts, limits, now).map_err(|_| RecordError::Malformed(TUNNEL))?;
        exchange.is_on(hcm.thread.upstream_local(tunnel.upstream()));
        fields.finish()?;
        let upgraded = Self {
            exchange: Box::new(exchange),
            tunnel,
            deadline: hcm.thread.deadlines.entry(),
            active: ActiveConnection::uncounted(hcm, common.opened.at),
            endpoint: endpoint.resume_connection(),
            counted,
            belongs: Belongs::at_home(arrived.origin, common.opened),
            keeping: Keeping::new(common.opened.at),
            hcm: Rc::clone(hcm),
        };
        Ok((Box::new(upgraded), escrow))
    }
}

/// A tunnel that is all in the kernel. So many bytes went through its sockets before it began.
fn in_kernel(
    fds: VecDeque<OwnedFd>,
    before: (u64, u64),
    leads: Option<Leads>,
) -> Result<TunnelParts, RecordError> {
    let malformed = RecordError::Malformed(BEFORE_UP);
    let Ok(fds) = Vec::from(fds).try_into() else { return Err(malformed) };
    let kept = KeptParts::from_descriptors(fds);
    let Ok(mut parts) = kept.inspect(leads) else { return Err(malformed) };
    parts.not_counting(before);
    Ok(parts)
}

/// A tunnel is silent for as long as its route allows.
fn limits(exchange: &Exchange) -> Limits {
    let idle_timeout = exchange.target.as_ref().and_then(|target| target.idle_timeout);
    Limits { idle_timeout, splice: Splice::default() }
}

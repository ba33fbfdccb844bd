//! A connection that leaves for another generation, and one that comes from there.
//!
//! It can leave whenever it waits for something: between requests, in the middle of a head or of a
//! body in either direction, with bytes in its queues or pipes. Not while it connects to an endpoint, not
//! while a filter holds its request or its response back, and not in the instant between the answer to an upgrade and the tunnel, all of which pass.
//!
//! An exchange in progress goes on under the configuration it began with (`hcm` is then a
//! connection manager made from that one); the next request on the connection is served by its
//! [`Successor`].

use std::{io, os::fd::OwnedFd, rc::Rc, sync::Arc, time::Instant};

use baton_contract::{
    peer::Stay,
    record::{Reader, RecordError, Writer},
    shm::EscrowId,
};

use super::{
    Hcm,
    attempt::Link,
    connection::{Connection, Phase},
    downstream::{ActiveConnection, Downstream},
    exchange::Exchange,
    idle::Idle,
    record, resume,
};
use crate::{
    clock,
    filter::network::{Arrived, Successor},
    http::stream_info::ConnectionInfo,
    migrate::{
        Answer, Common, ConfigSource, Ended, FIRST_OWN_TAG, Moved, Origin, Wish, kind, micros,
    },
    stats::{ConnectionKind, EndReason},
    upstream::Stream,
};

/// Fields of a connection.
pub(super) mod tag {
    use super::FIRST_OWN_TAG;

    pub(crate) const INBOUND: u16 = FIRST_OWN_TAG;
    pub(crate) const OUT: u16 = FIRST_OWN_TAG + 1;
    pub(crate) const IDLE: u16 = FIRST_OWN_TAG + 2;
    pub(crate) const HEAD_STARTED: u16 = FIRST_OWN_TAG + 3;
    pub(crate) const READ_CLOSED: u16 = FIRST_OWN_TAG + 4;
    pub(crate) const CLOSING: u16 = FIRST_OWN_TAG + 5;
    pub(crate) const REQUESTS: u16 = FIRST_OWN_TAG + 6;
    pub(crate) const EXCHANGE: u16 = FIRST_OWN_TAG + 7;
    pub(crate) const UPGRADED: u16 = FIRST_OWN_TAG + 8;
    /// Name of the connection in escrow.
    pub(crate) const ESCROW: u16 = FIRST_OWN_TAG + 9;
}

/// A connection taken apart: its record and copies of its descriptors.
pub(super) type Frozen = (Vec<u8>, Vec<OwnedFd>);

/// What both a connection and a tunnel know about where they belong.
#[derive(Clone, Debug)]
pub(super) struct Belongs {
    pub(super) origin: Rc<Origin>,
    pub(super) opened: crate::migrate::Opened,
    /// Who serves the next request, when another configuration governs this one.
    pub(super) successor: Option<Box<Successor>>,
    /// The newest configuration has no place for this connection: it ends with its exchange.
    pub(super) homeless: bool,
    pub(super) wish: Wish,
}

impl Belongs {
    /// A connection governed by the newest configuration.
    pub(super) fn at_home(origin: Rc<Origin>, opened: crate::migrate::Opened) -> Self {
        Self { origin, opened, successor: None, homeless: false, wish: Wish::default() }
    }

    /// The common fields of its record.
    pub(super) fn common(&self, info: &ConnectionInfo, exchange: Option<&Exchange>) -> Common {
        let source = self.source(exchange);
        Common {
            config: source.map_or(0, |source| source.hash),
            listener: self.origin.listener,
            chain: self.origin.chain,
            name: self.origin.name.to_string(),
            keys: self.origin.keys.clone(),
            opened: self.opened,
            peer: info.peer,
            local: info.local,
            bound: exchange.is_some(),
        }
    }

    /// The configuration that governs it; `None` when it cannot be handed on.
    pub(super) fn source(&self, exchange: Option<&Exchange>) -> Option<Arc<ConfigSource>> {
        let table = exchange.and_then(|exchange| exchange.choice.table());
        match table.and_then(|table| table.term()) {
            Some(term) => self.origin.term.source_with(term),
            None => self.origin.source(),
        }
    }

    /// What the offer of a connection that was not taken means for it.
    pub(super) fn stays(&mut self, why: Stay) {
        self.wish.stays(why, clock::now());
        tracing::debug!(why = why.as_str(), "a connection stays");
    }
}

impl Connection {
    /// Whether to leave now that nothing else is to be done.
    pub(super) fn may_leave(&mut self) -> bool {
        let mover = &self.down.hcm.thread.mover;
        if !mover.is_active() || !self.down.belongs.wish.may_try(mover, self.down.now) {
            return false;
        }
        let movable = !self.down.ends_with_reset
            && !self.down.upgrading
            && match &self.phase {
                Phase::Lingering(_) => false,
                Phase::Reading => self.down.closing.is_none(),
                Phase::Exchange(exchange) => {
                    self.down.belongs.source(Some(exchange)).is_some()
                        && exchange.may_move()
                        && exchange.passage.may_move()
                }
            };
        if !movable {
            self.down.belongs.wish.busy();
        }
        movable
    }

    /// Offers the connection to the other generation; `None` when it stays.
    pub(super) async fn offer(&mut self) -> Option<Moved> {
        if !self.empty_pipes() || self.take_back().is_break() {
            self.down.belongs.stays(Stay::Overload);
            return None;
        }
        let (record, fds) = match self.freeze() {
            Ok(frozen) => frozen,
            Err(error) => {
                tracing::debug!(%error, "a connection cannot be taken apart");
                self.down.belongs.stays(Stay::Overload);
                return None;
            }
        };
        let source = self.phase.exchange().and_then(|it| self.down.belongs.source(Some(it)));
        let mover = self.down.hcm.thread.mover.clone();
        match mover.offer(Some(ConnectionKind::Http1), source, record, fds).await {
            Answer::Moved(moved) => Some(moved),
            Answer::Stays(why) => {
                self.down.belongs.stays(why);
                if why == Stay::NoListener && mover.closes_removed() {
                    self.down.dismissed.get_or_insert(self.down.now);
                }
                None
            }
        }
    }

    fn freeze(&self) -> io::Result<Frozen> {
        let (mut writer, fds) = self.begin_record()?;
        writer.maybe(tag::ESCROW, self.down.idle.id().map(EscrowId::to_number));
        Ok((writer.finish(), fds))
    }

    /// All of the connection but its escrow.
    pub(super) fn begin_record(&self) -> io::Result<(Writer, Vec<OwnedFd>)> {
        let now = clock::now();
        let common = self.down.belongs.common(&self.down.info, self.phase.exchange());
        let mut writer = common.write(kind::HTTP1, now);
        let mut fds = vec![self.down.socket.duplicate()?];
        writer
            .bytes(tag::INBOUND, self.down.inbound.data())
            .bytes(tag::OUT, &self.down.out.to_vec())
            .number(tag::IDLE, micros(now.saturating_duration_since(self.idle_since)))
            .number(tag::READ_CLOSED, u64::from(self.down.read_closed))
            .maybe(tag::CLOSING, self.down.closing.map(|reason| reason as u64))
            .number(tag::REQUESTS, u64::from(self.down.requests));
        record::write_age(&mut writer, tag::HEAD_STARTED, now, self.head_started);
        if let Phase::Exchange(exchange) = &self.phase {
            writer.number(tag::EXCHANGE, 1);
            resume::write(&mut writer, exchange, now);
            if let Link::Active(active) = &exchange.attempt.link {
                fds.push(active.connection.stream.duplicate()?);
            }
        }
        Ok((writer, fds))
    }

    /// The connection lives on elsewhere: nothing is closed, nothing is logged.
    pub(super) fn leave(mut self: Box<Self>, moved: Moved) -> Ended {
        self.down.idle.give(moved.owner());
        self.down.active.leave();
        if let Phase::Exchange(exchange) = std::mem::replace(&mut self.phase, Phase::Reading) {
            exchange.leave(&self.down.hcm);
        }
        moved.into()
    }

    /// What the old configuration governed is over: the newest one takes the connection.
    pub(super) fn go_home(&mut self) {
        let Some(successor) = self.down.belongs.successor.take() else { return };
        let successor = *successor;
        let Some(hcm) = successor.filter.as_hcm() else { return };
        self.down.active.leave();
        self.down.active = ActiveConnection::begin(&hcm, self.down.opened);
        self.down.info = Rc::new(ConnectionInfo {
            path: successor.origin.path.clone(),
            listener: successor.listener,
            filter_chain: successor.filter_chain,
            ..ConnectionInfo::clone(&self.down.info)
        });
        self.down.belongs.origin = successor.origin;
        self.down.limit_buffers(successor.buffer_limit_bytes);
        self.down.hcm = hcm;
    }

    /// Takes a connection over. Nothing is counted before [`Self::arrive`].
    fn import(
        hcm: &Rc<Hcm>,
        arrived: Arrived<'_>,
        socket: Stream,
    ) -> Result<Box<Self>, RecordError> {
        let now = clock::now();
        let Arrived { mut record, mut fds, common, .. } = arrived;
        let reader = &mut record;
        let info = ConnectionInfo {
            id: hcm.thread.connection_id(),
            peer: common.peer,
            local: common.local,
            path: arrived.origin.path.clone(),
            listener: arrived.listener,
            filter_chain: arrived.filter_chain,
        };
        let belongs = Belongs {
            homeless: !arrived.at_home && arrived.successor.is_none(),
            successor: arrived.successor,
            ..Belongs::at_home(arrived.origin, common.opened)
        };
        let active = ActiveConnection::uncounted(hcm, common.opened.at);
        let mut down = Downstream::new(Rc::clone(hcm), info, socket, active, belongs);
        down.now = now;
        down.limit_buffers(arrived.buffer_limit_bytes);
        down.read_closed = reader.flag(tag::READ_CLOSED)?;
        down.closing = closing(reader)?;
        down.requests = reader.narrow(tag::REQUESTS)?;
        down.inbound.extend(reader.bytes(tag::INBOUND)?);
        down.out.extend(reader.bytes(tag::OUT)?);
        let mut connection = Self::around(down);
        connection.idle_since =
            record::read_age(reader, tag::IDLE, now)?.ok_or(RecordError::Missing(tag::IDLE))?;
        connection.head_started = record::read_age(reader, tag::HEAD_STARTED, now)?;
        if reader.maybe(tag::EXCHANGE)?.is_some() {
            let exchange = resume::read(reader, hcm, &connection.down.info, fds.pop_front(), now)?;
            connection.phase = Phase::Exchange(Box::new(exchange));
        }
        record.finish()?;
        Ok(connection)
    }

    /// The connection is here for good: it counts from now on.
    fn arrive(&mut self) {
        self.down.active.count();
        if let Phase::Exchange(exchange) = &mut self.phase {
            if let Link::Active(active) = &mut exchange.attempt.link {
                active.connection.counted.arrive();
            }
            self.down.hcm.stats.downstream_rq_active.inc();
            let active = &self.down.hcm.thread.active_requests;
            active.set(active.get() + 1);
        }
    }
}

impl Hcm {
    /// Makes a connection of another generation run here.
    pub(super) fn adopt(
        self: Rc<Self>,
        mut arrived: Arrived<'_>,
    ) -> Result<crate::filter::network::Serving, Stay> {
        if arrived.record.kind != kind::HTTP1 {
            return Err(Stay::Version);
        }
        if arrived.record.maybe(tag::UPGRADED).map_err(refused)?.is_some() {
            return super::tunnel::adopt(&self, arrived);
        }
        let socket = arrived.fds.pop_front().ok_or(Stay::Malformed)?;
        let socket = Stream::adopt(socket).map_err(|_| Stay::Overload)?;
        let escrow = arrived.record.maybe(tag::ESCROW).map_err(refused)?.map(EscrowId::from_number);
        let mut connection = Connection::import(&self, arrived, socket).map_err(refused)?;
        Ok(Box::pin(async move {
            if let Some(id) = escrow {
                match Idle::resumed(&connection.down.hcm.thread.escrow, id) {
                    Some(idle) => connection.down.idle = idle,
                    // Whoever has it counts it; here it only passed through.
                    None => return EndReason::Migrated.into(),
                }
            }
            connection.arrive();
            connection.run().await
        }))
    }
}

/// Why a record is not taken.
pub(super) fn refused(error: RecordError) -> Stay {
    tracing::warn!(%error, "a connection of another generation is not taken");
    match error {
        RecordError::UnknownCritical(_) => Stay::Version,
        RecordError::Truncated
        | RecordError::TooManyFields
        | RecordError::Twice(_)
        | RecordError::Missing(_)
        | RecordError::Malformed(_)
        | _ => Stay::Malformed,
    }
}

fn closing(reader: &mut Reader<'_>) -> Result<Option<EndReason>, RecordError> {
    let Some(number) = reader.maybe(tag::CLOSING)? else { return Ok(None) };
    let reason = EndReason::ALL.into_iter().find(|reason| *reason as u64 == number);
    reason.map(Some).ok_or(RecordError::Malformed(tag::CLOSING))
}

/// Begins the record of something that is in the middle of an exchange.
pub(super) fn begin(belongs: &Belongs, exchange: &Exchange, now: Instant) -> Writer {
    belongs.common(&exchange.info.connection, Some(exchange)).write(kind::HTTP1, now)
}

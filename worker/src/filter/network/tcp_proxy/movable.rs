//! Connections of the TCP proxy that move to another generation, come from one, or are put into
//! escrow so that they outlive this process.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use baton_contract::{peer::Stay, record::Writer};

use super::{
    TcpProxyFilter, record,
    session::{Session, limits},
};
use crate::{
    clock,
    escrow::{Hold, Refused},
    filter::network::{Arrived, Serving},
    http::stream_info::{ConnectionInfo, StreamInfo},
    migrate::{Answer, Common, Opened, Origin, Wish, kind},
    stats::{ConnectionKind, EndReason},
    thread::ThreadCluster,
    tunnel::Tunnel,
};

/// A connection is put into escrow once it is this old: shorter ones do not cost what it takes.
const KEEP_AFTER: Duration = Duration::from_millis(20);

/// What belongs to a connection beside its session.
#[derive(Debug)]
pub(super) struct Proxied {
    pub(super) info: StreamInfo,
    pub(super) wish: Wish,
    origin: Rc<Origin>,
    opened: Opened,
    keep: Keep,
}

/// Whether a connection is to be put into escrow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keep {
    /// Once it can be, and is old enough.
    Soon,
    /// It is, or it will never be.
    Settled,
}

impl Proxied {
    pub(super) fn new(info: ConnectionInfo, origin: Rc<Origin>, opened: Opened) -> Self {
        let info = StreamInfo::new(Rc::new(info), (opened.wall, opened.at), &Arc::from(""));
        Self { info, wish: Wish::default(), origin, opened, keep: Keep::Soon }
    }

    /// Begins a record of the connection.
    fn record(&self, now: Instant) -> Writer {
        let common = Common {
            config: self.origin.source.as_ref().map_or(0, |source| source.hash),
            listener: self.origin.listener,
            chain: self.origin.chain,
            name: self.origin.name.to_string(),
            keys: self.origin.keys.clone(),
            opened: self.opened,
            peer: self.info.connection.peer,
            local: self.info.connection.local,
            bound: true,
        };
        common.write(kind::TCP, now)
    }
}

impl TcpProxyFilter {
    /// Whether to offer the connection to another generation now.
    pub(super) fn may_move(
        &self,
        session: &mut Session,
        proxied: &mut Proxied,
        now: Instant,
    ) -> bool {
        let mover = &self.thread.mover;
        if !mover.is_active() || proxied.origin.source.is_none() {
            return false;
        }
        if session.tunnel().is_none() {
            // Choosing or connecting, which is over soon.
            proxied.wish.busy();
            return false;
        }
        proxied.wish.may_try(mover, now)
    }

    /// Freezes the connection and offers it.
    pub(super) async fn offer(
        &self,
        session: &mut Session,
        cluster: &ThreadCluster,
        proxied: &Proxied,
    ) -> Answer {
        let now = clock::now();
        let facts = session.facts(cluster, now);
        let (Some(facts), Some(tunnel)) = (facts, session.tunnel()) else {
            return Answer::Stays(Stay::Busy);
        };
        let Ok(parts) = tunnel.export(now) else { return Answer::Stays(Stay::Overload) };
        let mut writer = proxied.record(now);
        record::write_facts(&mut writer, &facts, tunnel.holds().map(Hold::id));
        let descriptors = record::write_tunnel(&mut writer, parts);
        let source = proxied.origin.source.clone();
        let kind = Some(ConnectionKind::Tcp);
        self.thread.mover.offer(kind, source, writer.finish(), descriptors).await
    }

    /// Puts the connection into escrow if it is time; returns when it is.
    pub(super) fn keep(
        &self,
        session: &mut Session,
        cluster: &ThreadCluster,
        proxied: &mut Proxied,
        now: Instant,
    ) -> Option<Instant> {
        if proxied.keep == Keep::Settled || !self.thread.escrow.holds_tunnels() {
            return None;
        }
        let at = session.connected? + KEEP_AFTER;
        if now < at {
            return Some(at);
        }
        let facts = session.facts(cluster, now)?;
        let tunnel = session.tunnel().filter(|tunnel| tunnel.can_be_kept())?;
        proxied.keep = Keep::Settled;
        match self.deposit(tunnel, &facts, proxied, now) {
            Ok(()) => self.escrow.deposited.inc(),
            Err(Refused::Full) => self.escrow.full.inc(),
            Err(Refused::Impossible) => self.escrow.failed.inc(),
        }
        None
    }

    fn deposit(
        &self,
        tunnel: &mut Tunnel,
        facts: &super::session::SessionFacts,
        proxied: &Proxied,
        now: Instant,
    ) -> Result<(), Refused> {
        let mut hold = self.thread.escrow.claim()?;
        let parts = tunnel.keep().map_err(|_| Refused::Impossible)?;
        let mut writer = proxied.record(now);
        record::write_facts(&mut writer, facts, Some(hold.id()));
        record::write_kept(&mut writer);
        let config = proxied.origin.source.as_ref().map(|source| source.hash);
        hold.deposit(writer.finish(), config, parts.into_descriptors().into())?;
        tunnel.hold(hold);
        Ok(())
    }

    /// Goes on with a connection of another generation.
    pub(super) fn take_over(self: Rc<Self>, arrived: Arrived<'_>) -> Result<Serving, Stay> {
        let Arrived { record, fds, common, listener, filter_chain, origin, .. } = arrived;
        let record::Read { facts, tunnel, escrow } =
            record::read(record, fds).map_err(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "a connection of another generation cannot be read");
                Stay::Malformed
            })?;
        let index = self.thread.cluster_index(&facts.cluster).ok_or(Stay::Config)?;
        let cluster = Rc::clone(self.thread.cluster(index).ok_or(Stay::Config)?);
        let now = clock::now();
        let mut tunnel = Tunnel::import(tunnel, limits(&self.config), now).map_err(|error| {
            tracing::warn!(%error, "a connection of another generation cannot be taken over");
            Stay::Overload
        })?;
        Ok(Box::pin(async move {
            let info = ConnectionInfo {
                id: self.thread.connection_id(),
                peer: common.peer,
                local: common.local,
                listener,
                filter_chain,
            };
            let mut proxied = Proxied::new(info, origin, common.opened);
            if let Some(id) = escrow {
                match self.thread.escrow.take(id) {
                    Some(hold) => tunnel.hold(hold),
                    // It came here by a live move all the same, so it is served here.
                    None if self.thread.escrow.is_gone(id) => {}
                    // Whoever has it counts it; here it only passed through.
                    None => return EndReason::Migrated.into(),
                }
                proxied.keep = Keep::Settled;
            }
            let times = (common.opened.at, clock::now());
            let place = (index, &*cluster);
            let session = Session::import(&self.config, place, &facts, tunnel, times);
            let ended = self.drive(session, &cluster, &mut proxied).await;
            self.log(proxied.info, &ended);
            ended
        }))
    }
}

//! Connections of the TCP proxy that move to another generation, come from one, or are put into
//! escrow so that they outlive this process.

use std::{rc::Rc, sync::Arc, time::Instant};

use baton_contract::{peer::Stay, record::Writer};

use super::{
    TcpProxyFilter, record,
    session::{Session, limits},
};
use crate::{
    clock,
    filter::network::{Arrived, Serving},
    http::stream_info::{ConnectionInfo, StreamInfo},
    migrate::{Answer, Common, Opened, Origin, Wish, kind},
    stats::{ConnectionKind, EndReason},
    thread::ThreadCluster,
    tunnel::{Due, Keeping, Papers, Tunnel},
};

/// What belongs to a connection beside its session.
#[derive(Debug)]
pub(super) struct Proxied {
    pub(super) info: StreamInfo,
    pub(super) wish: Wish,
    origin: Rc<Origin>,
    opened: Opened,
    /// `None` before it is a tunnel.
    keeping: Option<Keeping>,
}

impl Proxied {
    pub(super) fn new(info: ConnectionInfo, origin: Rc<Origin>, opened: Opened) -> Self {
        let info = StreamInfo::new(Rc::new(info), (opened.wall, opened.at), &Arc::from(""));
        Self { info, wish: Wish::default(), origin, opened, keeping: None }
    }

    /// Begins a record of the connection.
    fn record(&self, now: Instant) -> Writer {
        let common = Common {
            config: self.origin.source().map_or(0, |source| source.hash),
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
        if !mover.is_active() || proxied.origin.source().is_none() {
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
        record::write_facts(&mut writer, &facts, tunnel.name_in_escrow());
        let descriptors = record::write_tunnel(&mut writer, parts);
        let source = proxied.origin.source();
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
        let connected = session.connected?;
        let keeping = proxied.keeping.get_or_insert_with(|| Keeping::new(connected));
        match keeping.due(session.tunnel()?, &self.thread.escrow, now) {
            Due::Never => return None,
            Due::At(at) => return Some(at),
            Due::Now => {}
        }
        let facts = session.facts(cluster, now)?;
        let mut keeping = proxied.keeping.take()?;
        keeping.put(session.tunnel()?, &self.thread.escrow, &self.escrow, |id, _, leads| {
            let mut writer = proxied.record(now);
            record::write_facts(&mut writer, &facts, Some(id));
            record::write_kept(&mut writer, leads);
            let config = proxied.origin.file_hash();
            Papers { record: writer.finish(), config }
        });
        proxied.keeping = Some(keeping);
        None
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
        let cluster = self.thread.cluster(index).ok_or(Stay::Config)?;
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
                path: origin.path.clone(),
                listener,
                filter_chain,
            };
            let mut proxied = Proxied::new(info, origin, common.opened);
            let mut keeping = Keeping::new(common.opened.at);
            if let Some(id) = escrow
                && !keeping.resume(&mut tunnel, &self.thread.escrow, id)
            {
                // Whoever has it counts it; here it only passed through.
                return EndReason::Migrated.into();
            }
            proxied.keeping = Some(keeping);
            let times = (common.opened.at, clock::now());
            let place = (index, &*cluster);
            let session = Session::import(&self.config, place, &facts, tunnel, times);
            let ended = self.drive(session, &cluster, &mut proxied).await;
            self.log(proxied.info, &ended);
            ended
        }))
    }
}

//! A session taken apart: what it knows beside its tunnel, and how it goes on elsewhere.
//!
//! Only a joined session can be taken apart. Before that it is choosing or connecting, which is over
//! soon, and a connect in progress cannot be handed on.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Open, Session, State};
use crate::{
    cluster::{EndpointAddress, endpoint::EndpointInfo},
    config::{listener::TcpProxy, model::ClusterIndex},
    escrow::Owner,
    http::stream_info::ResponseFlags,
    thread::ThreadCluster,
    tunnel::{Limits, Splice, Tunnel},
    upstream::{counted::Counted, pool::ActiveGauge},
};

/// A session without its tunnel.
#[derive(Clone, Debug)]
pub(in super::super) struct SessionFacts {
    /// Name of the cluster.
    pub(in super::super) cluster: String,
    /// Address of the endpoint and our own towards it.
    pub(in super::super) upstream: (Option<SocketAddr>, Option<SocketAddr>),
    /// Its path, if it is a Unix socket.
    pub(in super::super) path: Option<Arc<Path>>,
    /// Endpoints that were tried.
    pub(in super::super) attempts: u32,
    /// `%RESPONSE_FLAGS%`.
    pub(in super::super) flags: ResponseFlags,
    /// Time since the connection to the endpoint was begun.
    pub(in super::super) upstream_age: Duration,
    /// Time since it was there.
    pub(in super::super) joined_age: Duration,
}

impl Session {
    /// What it knows, if it is joined.
    pub(in super::super) fn facts(
        &self,
        cluster: &ThreadCluster,
        now: Instant,
    ) -> Option<SessionFacts> {
        let State::Joined { open, .. } = &self.state else { return None };
        Some(SessionFacts {
            cluster: cluster.name.to_string(),
            upstream: self.upstream,
            path: self.path.clone(),
            attempts: self.attempts,
            flags: self.flags,
            upstream_age: now.saturating_duration_since(open.counted.begun()),
            joined_age: self
                .connected
                .map_or(Duration::ZERO, |connected| now.saturating_duration_since(connected)),
        })
    }

    /// Its tunnel, if it is joined.
    pub(in super::super) fn tunnel(&mut self) -> Option<&mut Tunnel> {
        match &mut self.state {
            State::Joined { tunnel, .. } => Some(tunnel),
            State::Choosing | State::Connecting { .. } | State::Ended => None,
        }
    }

    /// Forgets a session that lives on in another process; the gauges forget it too, nothing else is
    /// counted, and nothing is sent to the peers.
    pub(in super::super) fn release(self, owner: Option<Owner>) {
        if let State::Joined { tunnel, mut open } = self.state {
            tunnel.release(owner);
            open.counted.leave();
        }
    }

    /// Goes on with a session of another process. Only gauges count it. `started` is when its client
    /// connected.
    pub(in super::super) fn import(
        config: &Arc<TcpProxy>,
        (index, cluster): (ClusterIndex, &ThreadCluster),
        facts: &SessionFacts,
        tunnel: Tunnel,
        (started, now): (Instant, Instant),
    ) -> Self {
        let back = |age: Duration| now.checked_sub(age).unwrap_or(now);
        let address = match facts.upstream.0 {
            Some(address) => EndpointAddress::Ip(address),
            // Older versions do not say which.
            None => {
                EndpointAddress::Pipe(facts.path.clone().unwrap_or_else(|| Path::new("").into()))
            }
        };
        let endpoint = cluster.endpoint_at(&address, &EndpointInfo::default());
        let mut counted = Counted::resume(&cluster.stats, back(facts.upstream_age));
        counted.set_serving(true);
        counted.arrive();
        let open = Open {
            counted,
            stage: ActiveGauge::new(&cluster.stats.upstream_rq_active),
            connection: endpoint.resume_connection(),
            _request: endpoint.resume_request(),
        };
        Self {
            bytes: tunnel.bytes(),
            config: Arc::clone(config),
            cluster: index,
            started,
            downstream: None,
            early: Vec::new(),
            early_end: false,
            attempts: facts.attempts,
            failure: None,
            tried: Vec::new(),
            state: State::Joined { tunnel: Box::new(tunnel), open },
            flags: facts.flags,
            upstream: facts.upstream,
            path: facts.path.clone(),
            connected: Some(back(facts.joined_age)),
        }
    }
}

/// What bounds the tunnel of a session.
pub(in super::super) fn limits(config: &TcpProxy) -> Limits {
    Limits { idle_timeout: config.idle_timeout, splice: Splice::Auto }
}

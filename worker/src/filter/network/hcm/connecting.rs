//! How an exchange gets a connection to its endpoint, from the pool or made for it, or does not get one.

use std::{io, rc::Rc, sync::Arc};

use super::{
    attempt::{Link, Opening},
    downstream::Downstream,
    exchange::Exchange,
};
use crate::{
    filter::network::life,
    http::local_reply::{LocalReply, ResetReason},
    route::retry::ResetKind,
    upstream::{Stream, connect::delayed_reason, counted::Counted, pool::ActiveGauge},
};

/// Where an upstream connection comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// The pool, if it has one.
    Pool,
    /// A new one, because a pooled one turned out to be stale.
    New,
}

impl Exchange {
    /// Takes a connection from the pool or starts a new one.
    pub(super) fn connect_upstream(&mut self, down: &mut Downstream, source: Source) {
        let stream = down.stream_id();
        let (Some(target), Some(endpoint)) = (&self.target, &self.attempt.endpoint) else { return };
        let cluster = &target.cluster;
        let from_pool = source == Source::Pool && !self.terminate_connect;
        let pooled = if from_pool { cluster.pool.borrow_mut().take(endpoint) } else { None };
        if life::told() {
            let step = if pooled.is_some() { "on a kept connection" } else { "connecting" };
            life::upstream(stream, Some(endpoint), step);
        }
        if let Some(connection) = pooled {
            self.use_connection(&down.hcm.thread, connection, true);
            return;
        }
        let endpoint = Arc::clone(endpoint);
        let cluster = Rc::clone(cluster);
        self.note_endpoint(&endpoint);
        let stats = &cluster.stats;
        stats.upstream_rq_pending_total.inc();
        let pending = ActiveGauge::new(&stats.upstream_rq_pending_active);
        let counted = Counted::begin_http1(stats, down.now);
        match down.hcm.thread.connect(&endpoint, &cluster) {
            Ok(connecting) => {
                let until = down.now + cluster.state.config.connect_timeout;
                let opening = Opening { connecting, counted, pending };
                self.attempt.link = Link::Opening(Box::new(opening), until);
            }
            Err(error) => {
                life::connect_failed(stream, &cluster.name, &error);
                let reason = if error.is_bind() {
                    stats.bind_errors.inc();
                    ResetReason::LocalConnectionFailure
                } else {
                    ResetReason::ConnectionFailure
                };
                let failure = error.reason(&endpoint.address());
                self.connect_failed(down, reason, Some(&failure));
            }
        }
    }

    /// `failure` is what the system said; a connect that took too long has none.
    pub(super) fn connect_failed(
        &mut self,
        down: &mut Downstream,
        reason: ResetReason,
        failure: Option<&str>,
    ) {
        let failure = failure.map(|failure| failure.replace(' ', "_"));
        let mut reply = LocalReply::upstream_reset(reason);
        if let Some(failure) = &failure {
            reply = reply.because(failure);
        }
        if let Some(target) = &self.target {
            self.attempt.link = Link::None;
            target.cluster.stats.upstream_cx_connect_fail.inc();
            target.cluster.stats.upstream_rq_pending_failure_eject.inc();
            if reason == ResetReason::ConnectionTimeout {
                target.cluster.stats.upstream_cx_connect_timeout.inc();
            }
            if let Some(upstream) = &mut self.info.upstream {
                upstream.failure = failure.map(Into::into);
            }
        }
        self.attempt_failed(down, ResetKind::ConnectFailure, &reply);
    }

    /// `connect` succeeded or failed.
    pub(super) fn connect_ended(&mut self, down: &mut Downstream, result: io::Result<Stream>) {
        let id = down.stream_id();
        let Link::Opening(opening, _) = std::mem::replace(&mut self.attempt.link, Link::None)
        else {
            return;
        };
        let mut counted = opening.counted;
        match result {
            Ok(stream) => {
                if life::told() {
                    life::upstream(id, self.attempt.endpoint.as_deref(), "connected");
                }
                self.connected(&down.hcm.thread, stream, counted, down.now);
                if self.terminate_connect {
                    self.info.upstream_first_received = Some(down.now);
                    self.response.status = 200;
                    self.begin_tunnel(down);
                }
            }
            Err(error) => {
                if let Some(target) = &self.target {
                    life::connect_failed(id, &target.cluster.name, &error);
                }
                counted.ended_by_endpoint();
                let failure = delayed_reason(&error);
                self.connect_failed(down, ResetReason::ConnectionFailure, Some(&failure));
            }
        }
    }
}

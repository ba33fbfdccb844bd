//! `envoy.filters.network.tcp_proxy`: every connection of the listener becomes one connection to
//! an endpoint.
//!
//! The state of a connection is `session::Session`; here is the task around it, its statistics
//! and its line in the access log. Once client and endpoint are joined the connection can move to
//! another generation at any byte, and outlive this process if it is in escrow.

mod movable;
mod record;
mod session;
#[cfg(test)]
mod tests;

use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll};

use baton_contract::peer::Stay;

use self::{
    movable::Proxied,
    session::{EndKind, Session, SessionEnd},
};
use crate::{
    access_log::{AccessLogger, LogError},
    activity::Work,
    clock,
    config::listener::TcpProxy,
    filter::network::{Arrived, NetworkFilter, NewConnection, Serving, life},
    http::stream_info::{ConnectionInfo, LogContext, ResponseFlags, StreamInfo, UpstreamInfo},
    migrate::{Answer, Ended},
    stats::{EndReason, EscrowStats, TcpStats},
    thread::{Thread, ThreadCluster},
    tunnel::EndCause,
};

/// The filter of one filter chain on one thread.
#[derive(Debug)]
pub struct TcpProxyFilter {
    thread: Rc<Thread>,
    config: Arc<TcpProxy>,
    stats: TcpStats,
    escrow: EscrowStats,
    logger: AccessLogger,
}

/// What a session comes to next.
enum Step {
    /// Its end.
    End(SessionEnd),
    /// It shall move to another generation.
    Move,
}

impl TcpProxyFilter {
    /// Makes the filter run on a thread.
    ///
    /// # Errors
    /// When an access log cannot be opened.
    pub fn new(thread: &Rc<Thread>, config: &Arc<TcpProxy>) -> Result<Self, LogError> {
        Ok(Self {
            stats: TcpStats::new(&thread.stats, &config.stat_prefix),
            escrow: EscrowStats::new(&thread.stats),
            logger: thread.access_logger(&config.access_log)?,
            thread: Rc::clone(thread),
            config: Arc::clone(config),
        })
    }

    /// Serves one connection to its end.
    async fn run(&self, connection: NewConnection) -> Ended {
        self.stats.downstream_cx_total.inc();
        let info = ConnectionInfo {
            id: self.thread.connection_id(),
            peer: connection.peer,
            local: connection.local,
            path: connection.origin.path.clone(),
            listener: connection.listener,
            filter_chain: connection.filter_chain,
        };
        if life::told() {
            life::accepted(&info);
        }
        let id = info.id;
        let mut proxied = Proxied::new(info, connection.origin, connection.opened);
        let random = self.thread.random.borrow_mut().u64(..);
        let session = Session::new(&self.config, connection.stream, random, connection.opened.at);
        let cluster = session.as_ref().and_then(|session| self.thread.cluster(session.cluster));
        let ended = match session.zip(cluster) {
            Some((session, cluster)) => self.drive(session, &cluster, &mut proxied).await,
            None => Self::no_route(&mut proxied.info).into(),
        };
        if life::told() {
            life::closed(id, ended.reason);
        }
        self.log(proxied.info, &ended);
        ended
    }

    /// Writes the line of a connection that ended here.
    fn log(&self, mut info: StreamInfo, ended: &Ended) {
        if ended.moved.is_some() || self.logger.is_empty() {
            return;
        }
        info.ended = Some(clock::now());
        self.logger.log(&LogContext {
            info: &info,
            request: None,
            response: None,
            trailers: None,
            now: info.ended.unwrap_or(info.started),
            node: &self.thread.bootstrap.node,
        });
    }

    fn no_route(info: &mut StreamInfo) -> EndReason {
        info.flags.set(ResponseFlags::NO_ROUTE);
        EndReason::Upstream
    }

    async fn drive(
        &self,
        mut session: Session,
        cluster: &Rc<ThreadCluster>,
        proxied: &mut Proxied,
    ) -> Ended {
        let timeout = cluster.state.config.connect_timeout;
        let deadline = self.thread.deadlines.entry();
        let mut counted = session.bytes;
        let end = loop {
            let step = poll_fn(|cx| {
                let now = clock::now();
                let id = proxied.info.connection.id;
                self.thread.activity.begin_for(Work::Tcp, id);
                let end = session.poll(cx, (&self.thread, cluster), now);
                self.count_bytes(&mut counted, session.bytes);
                if let Poll::Ready(end) = end {
                    return Poll::Ready(Step::End(end));
                }
                if self.may_move(&mut session, proxied, now) {
                    return Poll::Ready(Step::Move);
                }
                let keep = self.keep(&mut session, cluster, proxied, now);
                let next = session.deadline(timeout).into_iter().chain(keep).min();
                deadline.set(next, cx.waker());
                Poll::Pending
            });
            match step.await {
                Step::End(end) => break end,
                Step::Move => match Box::pin(self.offer(&mut session, cluster, proxied)).await {
                    Answer::Moved(moved) => {
                        session.release(moved.owner());
                        return moved.into();
                    }
                    Answer::Stays(why) => proxied.wish.stays(why, clock::now()),
                },
            }
        };
        self.thread.mover.stayed(&proxied.wish);
        self.ended(&session, cluster, end, &mut proxied.info).into()
    }

    /// Counts how a session ended, and says for what reason.
    fn ended(
        &self,
        session: &Session,
        cluster: &ThreadCluster,
        end: SessionEnd,
        info: &mut StreamInfo,
    ) -> EndReason {
        match end.kind {
            EndKind::Tunnel(EndCause::IdleTimeout) => self.stats.idle_timeout.inc(),
            EndKind::Tunnel(EndCause::Stuck) => self.thread.ledger.stuck(),
            EndKind::MaxDuration => self.stats.max_downstream_connection_duration.inc(),
            EndKind::Tunnel(EndCause::Closed(_) | EndCause::Reset(_))
            | EndKind::ClientGone
            | EndKind::NoEndpoint
            | EndKind::ConnectFailed => {}
        }
        info.flags = session.flags;
        (info.bytes_sent, info.bytes_received) = session.bytes;
        info.upstream_first_sent = session.connected;
        info.upstream = Some(UpstreamInfo {
            address: session.upstream.0,
            path: session.path.clone(),
            connected: session.connected.is_some(),
            local: session.upstream.1,
            cluster: Arc::clone(&cluster.name),
            attempts: session.attempts,
            failure: session.failure.clone(),
        });
        end.reason
    }

    /// Adds what moved since the last call, so that long connections are seen while they live.
    fn count_bytes(&self, counted: &mut (u64, u64), bytes: (u64, u64)) {
        if *counted != bytes {
            self.stats.downstream_cx_tx_bytes_total.add(bytes.0.saturating_sub(counted.0));
            self.stats.downstream_cx_rx_bytes_total.add(bytes.1.saturating_sub(counted.1));
            *counted = bytes;
        }
    }
}

impl NetworkFilter for TcpProxyFilter {
    fn serve(self: Rc<Self>, connection: NewConnection) -> Serving {
        Box::pin(async move { self.run(connection).await })
    }

    fn import(self: Rc<Self>, arrived: Arrived<'_>) -> Result<Serving, Stay> {
        self.take_over(arrived)
    }
}

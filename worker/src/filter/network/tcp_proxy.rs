//! `envoy.filters.network.tcp_proxy`: every connection of the listener becomes one connection to
//! an endpoint.
//!
//! The state of a connection is `session::Session`; here is the task around it, its statistics
//! and its line in the access log.

mod session;
#[cfg(test)]
mod tests;

use std::{future::poll_fn, rc::Rc, sync::Arc};

use self::session::{EndKind, Session};
use crate::{
    access_log::{AccessLogger, LogError},
    clock,
    config::listener::TcpProxy,
    filter::network::{NetworkFilter, NewConnection, Serving},
    http::stream_info::{ConnectionInfo, LogContext, ResponseFlags, StreamInfo, UpstreamInfo},
    stats::{EndReason, TcpStats},
    thread::Thread,
    tunnel::EndCause,
};

/// The filter of one filter chain on one thread.
#[derive(Debug)]
pub struct TcpProxyFilter {
    thread: Rc<Thread>,
    config: Arc<TcpProxy>,
    stats: TcpStats,
    logger: AccessLogger,
}

impl TcpProxyFilter {
    /// Makes the filter run on a thread.
    ///
    /// # Errors
    /// When an access log cannot be opened.
    pub fn new(thread: &Rc<Thread>, config: &Arc<TcpProxy>) -> Result<Self, LogError> {
        Ok(Self {
            stats: TcpStats::new(&thread.stats, &config.stat_prefix),
            logger: thread.access_logger(&config.access_log)?,
            thread: Rc::clone(thread),
            config: Arc::clone(config),
        })
    }

    /// Serves one connection to its end.
    async fn run(&self, connection: NewConnection) -> EndReason {
        self.stats.downstream_cx_total.inc();
        let mut info = self.stream_info(&connection);
        let random = self.thread.random.borrow_mut().u64(..);
        let reason = match Session::new(&self.config, connection.stream, random, info.started) {
            Some(session) => self.drive(session, &mut info).await,
            None => self.no_route(&mut info),
        };
        info.ended = Some(clock::now());
        if !self.logger.is_empty() {
            self.logger.log(&LogContext {
                info: &info,
                request: None,
                response: None,
                trailers: None,
                now: info.ended.unwrap_or(info.started),
                node: &self.thread.bootstrap.node,
            });
        }
        reason
    }

    fn no_route(&self, info: &mut StreamInfo) -> EndReason {
        self.stats.downstream_cx_no_route.inc();
        info.flags.set(ResponseFlags::NO_ROUTE);
        EndReason::Upstream
    }

    async fn drive(&self, mut session: Session, info: &mut StreamInfo) -> EndReason {
        let Some(cluster) = self.thread.cluster(session.cluster) else {
            return self.no_route(info);
        };
        let timeout = cluster.state.config.connect_timeout;
        let deadline = self.thread.deadlines.entry();
        let mut counted = (0, 0);
        let end = poll_fn(|cx| {
            let end = session.poll(cx, cluster, clock::now());
            self.count_bytes(&mut counted, session.bytes);
            if end.is_pending() {
                deadline.set(session.deadline(timeout), cx.waker());
            }
            end
        })
        .await;
        match end.kind {
            EndKind::Tunnel(EndCause::IdleTimeout) => self.stats.idle_timeout.inc(),
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
            local: session.upstream.1,
            cluster: Arc::clone(&cluster.name),
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

    fn stream_info(&self, connection: &NewConnection) -> StreamInfo {
        let info = ConnectionInfo {
            id: self.thread.connection_id(),
            peer: connection.peer,
            local: connection.local,
            listener: Arc::clone(&connection.listener),
            filter_chain: Arc::clone(&connection.filter_chain),
        };
        StreamInfo::new(Rc::new(info), (clock::wall(), clock::now()), &Arc::from(""))
    }
}

impl NetworkFilter for TcpProxyFilter {
    fn serve(self: Rc<Self>, connection: NewConnection) -> Serving {
        Box::pin(async move { self.run(connection).await.into() })
    }
}

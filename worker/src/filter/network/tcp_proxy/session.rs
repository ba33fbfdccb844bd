//! One proxied connection: choose an endpoint, connect, pump.
//!
//! ```text
//! Choosing ──▶ Connecting ──▶ Joined ──▶ end
//!    ▲              │ failed or too slow
//!    └──────────────┘ another endpoint, up to max_connect_attempts
//! ```
//!
//! Plain data driven by `poll`; not here: the task, its timer, the access log.

mod parts;

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    path::Path,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

pub(super) use self::parts::{SessionFacts, limits};
use crate::{
    cluster::{
        Endpoint,
        balance::{Further, PickContext},
        endpoint::{ActiveConnection, ActiveRequest},
    },
    config::{listener::TcpProxy, model::ClusterIndex},
    http::stream_info::ResponseFlags,
    progress::{self, Stuck},
    stats::{ClusterStats, EndReason},
    thread::{Thread, ThreadCluster},
    transport::Stream,
    tunnel::{EndCause, Side, Tunnel, TunnelEnd},
    upstream::{
        connect::{Connecting, delayed_reason},
        counted::Counted,
        pool::ActiveGauge,
    },
};

/// Bytes read from the client before the endpoint is connected, at most; more stay in the kernel.
const EARLY_MAX: usize = 16 * 1024;
/// Room that is made for them at once, bytes: most first messages are shorter.
const EARLY_STEP: usize = 4 * 1024;

/// How a session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SessionEnd {
    /// For the ledger.
    pub(super) reason: EndReason,
    /// What happened.
    pub(super) kind: EndKind,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EndKind {
    /// A tunnel was up and came to its end.
    Tunnel(EndCause),
    /// The client was gone before the endpoint was connected.
    ClientGone,
    /// The cluster has no endpoint.
    NoEndpoint,
    /// No endpoint could be connected to.
    ConnectFailed,
    /// The connection was as old as it may become.
    MaxDuration,
}

/// The state of one proxied connection.
#[derive(Debug)]
pub(super) struct Session {
    config: Arc<TcpProxy>,
    /// The cluster chosen for this connection.
    pub(super) cluster: ClusterIndex,
    started: Instant,
    /// The client's side until the tunnel takes it.
    downstream: Option<Stream>,
    /// What the client sent before the endpoint was connected.
    early: Vec<u8>,
    /// The client ended its half before the endpoint was connected.
    early_end: bool,
    /// Endpoints that were tried.
    pub(super) attempts: u32,
    /// Why the last of them could not be connected to.
    pub(super) failure: Option<Box<str>>,
    /// Numbers of the endpoints that failed.
    tried: Vec<u64>,
    state: State,
    /// `%RESPONSE_FLAGS%`.
    pub(super) flags: ResponseFlags,
    /// Address of the endpoint and our own towards it, once known.
    pub(super) upstream: (Option<SocketAddr>, Option<SocketAddr>),
    /// Its path, if it is a Unix socket.
    pub(super) path: Option<Arc<Path>>,
    /// When the endpoint was connected.
    pub(super) connected: Option<Instant>,
    /// Bytes sent to the client and to the endpoint.
    pub(super) bytes: (u64, u64),
}

#[derive(Debug)]
enum State {
    Choosing,
    Connecting { attempt: Connecting, open: Open },
    Joined { tunnel: Box<Tunnel>, open: Open },
    Ended,
}

/// A connection to an endpoint, counted until it is closed.
#[derive(Debug)]
struct Open {
    counted: Counted,
    /// It waits for its endpoint, or is joined with it.
    stage: ActiveGauge,
    connection: ActiveConnection,
    _request: ActiveRequest,
}

impl Session {
    /// A session for a client that was just accepted. `random` chooses among weighted clusters;
    /// `None` when the filter has no cluster.
    pub(super) fn new(
        config: &Arc<TcpProxy>,
        downstream: Stream,
        random: u64,
        now: Instant,
    ) -> Option<Self> {
        Some(Self {
            cluster: choose_cluster(config, random)?,
            config: Arc::clone(config),
            started: now,
            downstream: Some(downstream),
            early: Vec::new(),
            early_end: false,
            attempts: 0,
            failure: None,
            tried: Vec::new(),
            state: State::Choosing,
            flags: ResponseFlags::default(),
            upstream: (None, None),
            path: None,
            connected: None,
            bytes: (0, 0),
        })
    }

    /// When to poll again even if nothing happens.
    pub(super) fn deadline(&self, connect_timeout: Duration) -> Option<Instant> {
        let step = match &self.state {
            State::Choosing | State::Ended => None,
            State::Connecting { open, .. } => Some(open.counted.begun() + connect_timeout),
            State::Joined { tunnel, .. } => tunnel.deadline(),
        };
        let age = self.config.max_connection_duration.map(|age| self.started + age);
        step.into_iter().chain(age).min()
    }

    /// Goes as far as possible. `cluster` is the thread's side of [`Self::cluster`].
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (thread, cluster): (&Thread, &ThreadCluster),
        now: Instant,
    ) -> Poll<SessionEnd> {
        match progress::drive(|| self.turn(cx, (thread, cluster), now)) {
            Ok(ControlFlow::Continue(())) => Poll::Pending,
            Ok(ControlFlow::Break(end)) => Poll::Ready(end),
            Err(Stuck) => {
                let state = std::mem::replace(&mut self.state, State::Ended);
                Self::close(state, cluster);
                Poll::Ready(self.tunnel_end(EndCause::Stuck))
            }
        }
    }

    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        (thread, cluster): (&Thread, &ThreadCluster),
        now: Instant,
    ) -> ControlFlow<SessionEnd, bool> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let next = match state {
            State::Ended => return ControlFlow::Continue(false),
            State::Choosing => self.choose(thread, cluster, now),
            State::Connecting { attempt, open } => self.connect(cx, cluster, attempt, open, now),
            State::Joined { tunnel, open } => self.pump(cx, cluster, tunnel, open, now),
        };
        match next {
            Next::Again(state) => {
                self.state = state;
                ControlFlow::Continue(true)
            }
            Next::Wait(state) if self.is_too_old(now) => {
                self.flags.set(ResponseFlags::DURATION_TIMEOUT);
                Self::close(state, cluster);
                ControlFlow::Break(end(EndReason::Timeout, EndKind::MaxDuration))
            }
            Next::Wait(state) => {
                self.state = state;
                ControlFlow::Continue(false)
            }
            Next::End(end) => ControlFlow::Break(end),
        }
    }

    fn is_too_old(&self, now: Instant) -> bool {
        self.config.max_connection_duration.is_some_and(|age| now >= self.started + age)
    }

    fn choose(&mut self, thread: &Thread, cluster: &ThreadCluster, now: Instant) -> Next {
        if self.attempts >= self.config.max_connect_attempts.max(1) {
            cluster.stats.upstream_cx_connect_attempts_exceeded.inc();
            self.flags.set(ResponseFlags::RETRY_LIMIT);
            return Next::End(end(EndReason::Upstream, EndKind::ConnectFailed));
        }
        let context = PickContext { tried: &self.tried, further: Further::Search };
        let Some(endpoint) = cluster.pick_with(&context) else {
            cluster.stats.upstream_cx_none_healthy.inc();
            self.flags.set(ResponseFlags::NO_HEALTHY_UPSTREAM);
            return Next::End(end(EndReason::Upstream, EndKind::NoEndpoint));
        };
        self.attempts += 1;
        self.failure = None;
        let address = endpoint.address();
        self.upstream = (address.ip(), None);
        self.path = address.path();
        let open = Open::begin(&endpoint, &cluster.stats, now);
        match thread.connect(&endpoint, cluster) {
            Ok(attempt) => Next::Again(State::Connecting { attempt, open }),
            Err(error) => {
                if error.is_bind() {
                    cluster.stats.bind_errors.inc();
                }
                self.attempt_failed(cluster, &open, Some(&error.reason(&address)))
            }
        }
    }

    /// `reason` is what the system said; a connect that took too long has none.
    fn attempt_failed(
        &mut self,
        cluster: &ThreadCluster,
        open: &Open,
        reason: Option<&str>,
    ) -> Next {
        self.failure = reason.map(|reason| reason.replace(' ', "_").into());
        let reason = reason.unwrap_or("connect timeout");
        let endpoint = open.connection.endpoint();
        endpoint.stats.cx_connect_fail.fetch_add(1, Relaxed);
        endpoint.stats.rq_error.fetch_add(1, Relaxed);
        tracing::debug!(cluster = %cluster.name, address = %endpoint.address(), reason, "connect failed");
        self.tried.push(endpoint.id);
        self.flags.set(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        cluster.stats.upstream_cx_connect_fail.inc();
        cluster.stats.upstream_rq_pending_failure_eject.inc();
        Next::Again(State::Choosing)
    }

    fn connect(
        &mut self,
        cx: &mut Context<'_>,
        cluster: &ThreadCluster,
        mut attempt: Connecting,
        mut open: Open,
        now: Instant,
    ) -> Next {
        if self.read_early(cx).is_err() {
            cluster.stats.upstream_rq_cancelled.inc();
            self.flags.set(ResponseFlags::DOWNSTREAM_TERMINATION);
            return Next::End(end(EndReason::Client, EndKind::ClientGone));
        }
        match attempt.poll(cx) {
            Poll::Ready(Ok(upstream)) => self.join(cluster, upstream, open, now),
            Poll::Ready(Err(error)) => {
                open.counted.ended_by_endpoint();
                self.attempt_failed(cluster, &open, Some(&delayed_reason(&error)))
            }
            Poll::Pending if now >= open.counted.begun() + cluster.state.config.connect_timeout => {
                cluster.stats.upstream_cx_connect_timeout.inc();
                self.attempt_failed(cluster, &open, None)
            }
            Poll::Pending => Next::Wait(State::Connecting { attempt, open }),
        }
    }

    /// Reads what the client sends meanwhile, mainly to learn that it is gone.
    fn read_early(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        let Some(stream) = &mut self.downstream else { return Ok(()) };
        // Room is made only for what is there: it is cleared every time.
        while !self.early_end
            && self.early.len() < EARLY_MAX
            && stream.poll_read_ready(cx)?.is_ready()
        {
            let used = self.early.len();
            self.early.resize((used + EARLY_STEP).min(EARLY_MAX), 0);
            let read = stream.poll_read_into(cx, self.early.get_mut(used..).unwrap_or_default());
            let count = match &read {
                Poll::Ready(Ok(count)) => *count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.early.truncate(used + count);
            match read {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.early_end = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        if self.early.is_empty() {
            // A client that waits for the endpoint to speak first costs no memory.
            self.early = Vec::new();
        }
        Ok(())
    }

    fn join(
        &mut self,
        cluster: &ThreadCluster,
        upstream: Stream,
        mut open: Open,
        now: Instant,
    ) -> Next {
        let Some(downstream) = self.downstream.take() else {
            return Next::End(end(EndReason::Client, EndKind::ClientGone));
        };
        self.upstream = (upstream.peer_addr(), upstream.local_addr());
        self.connected = Some(now);
        self.flags = ResponseFlags::default();
        open.connected(&cluster.stats, now);
        let early = std::mem::take(&mut self.early);
        let limits = limits(&self.config);
        let tunnel = Tunnel::new((downstream, &early), (upstream, &[]), limits, now);
        Next::Again(State::Joined { tunnel: Box::new(tunnel), open })
    }

    fn pump(
        &mut self,
        cx: &mut Context<'_>,
        cluster: &ThreadCluster,
        mut tunnel: Box<Tunnel>,
        mut open: Open,
        now: Instant,
    ) -> Next {
        let polled = tunnel.poll(cx, now);
        self.count_bytes(tunnel.bytes(), &cluster.stats);
        match polled {
            Poll::Pending => Next::Wait(State::Joined { tunnel, open }),
            Poll::Ready(TunnelEnd { cause, .. }) => {
                // As in Envoy: of two halves the second one closes the connection.
                if matches!(
                    cause,
                    EndCause::Closed(Side::Downstream) | EndCause::Reset(Side::Upstream)
                ) {
                    open.counted.ended_by_endpoint();
                }
                if let EndCause::Reset(Side::Upstream) = cause {
                    open.connection.endpoint().stats.rq_error.fetch_add(1, Relaxed);
                } else {
                    open.connection.endpoint().stats.rq_success.fetch_add(1, Relaxed);
                }
                Next::End(self.tunnel_end(cause))
            }
        }
    }

    fn tunnel_end(&mut self, cause: EndCause) -> SessionEnd {
        let reason = match cause {
            // Neither a reset by the client nor a timeout sets a flag, as in Envoy.
            EndCause::Closed(Side::Downstream) | EndCause::Reset(Side::Downstream) => {
                EndReason::Client
            }
            EndCause::Closed(Side::Upstream) => EndReason::Upstream,
            EndCause::Reset(Side::Upstream) => {
                self.flags.set(ResponseFlags::UPSTREAM_REMOTE_RESET);
                EndReason::Upstream
            }
            EndCause::IdleTimeout => EndReason::Timeout,
            EndCause::Stuck => EndReason::CutByDeadline,
        };
        end(reason, EndKind::Tunnel(cause))
    }

    /// Closes what is open, because the session may not go on.
    fn close(state: State, cluster: &ThreadCluster) {
        if let State::Connecting { .. } = state {
            cluster.stats.upstream_rq_cancelled.inc();
        }
        drop(state);
    }

    fn count_bytes(&mut self, bytes: (u64, u64), stats: &ClusterStats) {
        stats.upstream_cx_rx_bytes_total.add(bytes.0.saturating_sub(self.bytes.0));
        stats.upstream_cx_tx_bytes_total.add(bytes.1.saturating_sub(self.bytes.1));
        self.bytes = bytes;
    }
}

/// What follows a step.
enum Next {
    /// Another step can be made at once.
    Again(State),
    /// Something has to happen first.
    Wait(State),
    /// It is over.
    End(SessionEnd),
}

impl Open {
    fn begin(endpoint: &Arc<Endpoint>, stats: &Rc<ClusterStats>, now: Instant) -> Self {
        stats.upstream_rq_pending_total.inc();
        Self {
            counted: Counted::begin(stats, now),
            stage: ActiveGauge::new(&stats.upstream_rq_pending_active),
            connection: endpoint.begin_connection(),
            _request: endpoint.begin_request(),
        }
    }

    fn connected(&mut self, stats: &ClusterStats, now: Instant) {
        self.counted.connected(now);
        self.counted.set_serving(true);
        self.stage = ActiveGauge::new(&stats.upstream_rq_active);
        stats.upstream_rq_total.inc();
    }
}

fn end(reason: EndReason, kind: EndKind) -> SessionEnd {
    SessionEnd { reason, kind }
}

/// The cluster whose share of the weights `random` falls into.
pub(super) fn choose_cluster(config: &TcpProxy, random: u64) -> Option<ClusterIndex> {
    let total: u64 = config.clusters.iter().map(|target| u64::from(target.weight)).sum();
    let mut point = random.checked_rem(total)?;
    for target in &config.clusters {
        match point.checked_sub(u64::from(target.weight)) {
            Some(rest) => point = rest,
            None => return Some(target.cluster),
        }
    }
    None
}

//! Requests of the thread's own: an [`Attempt`] without a client. Nobody waits for the body of the answer.

use std::{
    future::poll_fn,
    io,
    ops::ControlFlow,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::attempt::{Active, Attempt, Link};
use crate::{
    buffer::BUFFER_BYTES,
    clock,
    cluster::Endpoint,
    http::{
        h1::{
            self, Framing, Limits,
            body::Decoder,
            response::{Answers, Follows},
        },
        head::{RequestHead, ResponseHead},
    },
    progress,
    thread::{Thread, ThreadCluster},
    upstream::{
        connect::ConnectError,
        counted::Counted,
        pool::{ActiveGauge, PooledConnection},
    },
};

/// A request that is all here.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: RequestHead,
    /// How the body is framed.
    pub(super) framing: Framing,
    /// The body as it goes over the wire, in its chunks if it is framed so.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The cluster has no endpoint.
    #[error("no healthy upstream")]
    NoEndpoint,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before the answer did.
    #[error("the connection ended: {0}")]
    Ended(#[from] io::Error),
    /// What came is not HTTP.
    #[error("the answer is not HTTP")]
    Malformed,
    /// It took too long.
    #[error("the time is over")]
    Timeout,
}

impl CallError {
    /// What a client would get for it.
    fn status(&self) -> u16 {
        match self {
            Self::NoEndpoint | Self::Connect(_) | Self::Ended(_) => 503,
            Self::Malformed => 502,
            Self::Timeout => 504,
        }
    }
}

/// Sends a request to a cluster and reads the answer to its end: its status. A connection from the pool that
/// ended before it got the request is replaced.
///
/// # Errors
/// Why there is no answer.
///
/// # Cancel safety
/// Dropped, it closes its connection.
pub(super) async fn call(
    thread: &Rc<Thread>,
    cluster: &Rc<ThreadCluster>,
    request: &Request,
    timeout: Option<Duration>,
) -> Result<u16, CallError> {
    let answered = tokio::time::timeout(timeout.unwrap_or(Duration::MAX), async {
        let mut pooled = true;
        loop {
            let mut call = Call::begin(thread, cluster, request, pooled).await?;
            match poll_fn(|cx| call.poll(cx)).await {
                Ok(()) => return Ok(call.response.status),
                Err(CallError::Ended(_)) if call.is_stale() => pooled = false,
                Err(error) => {
                    call.attempt.count_error();
                    return Err(error);
                }
            }
        }
    });
    let result = answered.await.unwrap_or(Err(CallError::Timeout));
    match &result {
        Err(CallError::NoEndpoint) => cluster.stats.upstream_cx_none_healthy.inc(),
        Err(CallError::Timeout) => cluster.stats.upstream_rq_timeout.inc(),
        Ok(_) | Err(CallError::Connect(_) | CallError::Ended(_) | CallError::Malformed) => {}
    }
    cluster.stats.response(result.as_ref().map_or_else(CallError::status, |status| *status));
    result
}

/// A request under way.
struct Call<'a> {
    cluster: &'a ThreadCluster,
    attempt: Attempt,
    answers: Answers,
    response: ResponseHead,
    /// Decodes the body of the answer, once its head is here.
    body: Option<Decoder>,
    #[expect(dead_code, reason = "it counts by being there")]
    active: ActiveGauge,
}

impl<'a> Call<'a> {
    async fn begin(
        thread: &Thread,
        cluster: &'a Rc<ThreadCluster>,
        request: &Request,
        pooled: bool,
    ) -> Result<Self, CallError> {
        let endpoint = cluster.pick().ok_or(CallError::NoEndpoint)?;
        let kept = if pooled { cluster.pool.borrow_mut().take(&endpoint) } else { None };
        let reused = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => connect(thread, cluster, &endpoint).await?,
        };
        let mut attempt = Attempt::new(&thread.buffers);
        attempt.carry(connection, reused);
        let mut head = Vec::new();
        let connection = h1::encode::Connection::Default;
        h1::encode::request(&mut head, &request.head, request.framing, connection);
        attempt.put_head(&head);
        attempt.out.extend(&request.body);
        let stats = &cluster.stats;
        stats.upstream_rq_total.inc();
        Ok(Self {
            cluster,
            attempt,
            answers: if request.head.method == b"HEAD" { Answers::Head } else { Answers::Plain },
            response: ResponseHead::default(),
            body: None,
            active: ActiveGauge::new(&stats.upstream_rq_active),
        })
    }

    /// The connection was kept, and ended before it got anything of this request.
    fn is_stale(&self) -> bool {
        matches!(&self.attempt.link, Link::Active(active) if active.reused && !active.wrote)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let turned = progress::drive(|| match self.turn(cx) {
            Ok(_) if self.body.as_ref().is_some_and(Decoder::is_done) => ControlFlow::Break(Ok(())),
            Ok(moved) => ControlFlow::Continue(moved),
            Err(error) => ControlFlow::Break(Err(error)),
        });
        match turned {
            Ok(ControlFlow::Continue(())) => return Poll::Pending,
            Ok(ControlFlow::Break(Ok(()))) => {}
            Ok(ControlFlow::Break(Err(error))) => return Poll::Ready(Err(error)),
            Err(_stuck) => return Poll::Ready(Err(CallError::Malformed)),
        }
        let early = !self.attempt.is_written();
        if let Some(connection) = self.attempt.finish(self.cluster, early) {
            self.cluster.pool.borrow_mut().put(connection, clock::now());
        }
        Poll::Ready(Ok(()))
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, CallError> {
        let wrote = self.write(cx);
        if self.use_bytes()? {
            return Ok(true);
        }
        let Link::Active(Active { connection, .. }) = &mut self.attempt.link else {
            return Ok(wrote);
        };
        let limit = Limits::default().max_head_bytes.max(BUFFER_BYTES) + 1;
        match self.attempt.inbound.poll_fill(cx, &mut connection.stream, limit) {
            Poll::Pending => Ok(wrote),
            Poll::Ready(Ok(count)) if count > 0 => {
                self.cluster.stats.upstream_cx_rx_bytes_total.add(count as u64);
                Ok(true)
            }
            Poll::Ready(result) => {
                connection_ended(&mut self.body, result)?;
                Ok(true)
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.attempt.out.is_empty() {
            return false;
        }
        let Link::Active(active) = &mut self.attempt.link else { return false };
        if active.write_failed {
            return false;
        }
        match self.attempt.out.poll_flush(cx, &mut active.connection.stream) {
            Poll::Pending => false,
            Poll::Ready(Ok(count)) => {
                active.wrote = true;
                self.cluster.stats.upstream_cx_tx_bytes_total.add(count as u64);
                true
            }
            // An answer may have come before; reading will tell.
            Poll::Ready(Err(_)) => {
                active.write_failed = true;
                false
            }
        }
    }

    /// Whether some of what was read could be used.
    fn use_bytes(&mut self) -> Result<bool, CallError> {
        let inbound = &mut self.attempt.inbound;
        if inbound.is_empty() {
            return Ok(false);
        }
        if let Some(body) = &mut self.body {
            let step = body.decode(inbound.data()).map_err(|_| CallError::Malformed)?;
            inbound.consume(step.consumed);
            return Ok(step.consumed > 0);
        }
        self.response.clear();
        let limits = Limits::default();
        let parsed = h1::response::parse(inbound.data(), &limits, self.answers, &mut self.response)
            .map_err(|_| CallError::Malformed)?;
        let Some(parsed) = parsed else { return Ok(false) };
        inbound.consume(parsed.head_len);
        match parsed.follows {
            Follows::AnotherHead => {}
            Follows::Tunnel => return Err(CallError::Malformed),
            Follows::Body => {
                if let Link::Active(active) = &mut self.attempt.link {
                    active.keep_alive = parsed.keep_alive;
                }
                self.attempt.count_response(self.response.status);
                self.body = Some(Decoder::new(parsed.framing));
            }
        }
        Ok(true)
    }
}

/// The end of the connection may be the end of the body.
fn connection_ended(body: &mut Option<Decoder>, result: io::Result<usize>) -> io::Result<()> {
    result?;
    match body {
        Some(decoder) => {
            decoder.end_of_input().map_err(|_| io::ErrorKind::UnexpectedEof)?;
            *decoder = Decoder::new(Framing::None);
            Ok(())
        }
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn connect(
    thread: &Thread,
    cluster: &ThreadCluster,
    endpoint: &Arc<Endpoint>,
) -> Result<PooledConnection, CallError> {
    let stats = &cluster.stats;
    let now = clock::now();
    stats.upstream_rq_pending_total.inc();
    let _pending = ActiveGauge::new(&stats.upstream_rq_pending_active);
    let mut counted = Counted::begin_http1(stats, now);
    let result = async {
        let mut connecting = thread.connect(endpoint, cluster)?;
        let within = cluster.state.config.connect_timeout;
        let connected = tokio::time::timeout(within, poll_fn(|cx| connecting.poll(cx)));
        connected
            .await
            .map_err(|_| {
                stats.upstream_cx_connect_timeout.inc();
                CallError::Timeout
            })?
            .map_err(CallError::Ended)
    };
    let stream = result.await.inspect_err(|_| {
        counted.ended_by_endpoint();
        stats.upstream_cx_connect_fail.inc();
        stats.upstream_rq_pending_failure_eject.inc();
    })?;
    counted.connected(clock::now());
    let local = thread.upstream_local(&stream);
    Ok(PooledConnection::new((stream, local), endpoint, counted, now))
}

//! The admin interface: Envoy's endpoints on what this generation and the segment know.
//!
//! It is served on the main thread and touches nothing of the data path: numbers come from the
//! shared-memory segment, changes go as [`AdminAction`]s to the server.
//!
//! Reading is open to whoever reaches the listener. What changes something needs POST and either a
//! Unix socket or `--admin-allow-mutations`; a web page in somebody's browser can do neither, see
//! `guard`.

mod clusters;
mod config_dump;
mod config_endpoints;
mod config_sections;
mod endpoints;
pub mod extra;
pub mod generations;
mod guard;
mod info;
mod init_dump;
mod listeners;
mod logging;
mod page;
pub mod prometheus;
pub mod query;
pub mod resources;
pub mod stats;

use std::{
    collections::HashSet,
    convert::Infallible,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use baton_contract::{
    generation::Generation,
    message::DrainStrategy,
    shm::{SegmentReader, SegmentWorker},
};
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use self::resources::View;
use crate::{
    cluster::ClusterManager,
    config::{load::LoadOptions, model::Bootstrap},
    drain::Scope,
    log_control::LogControl,
};

/// Time in which the head of a request must have come.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What becomes of listeners that are drained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListenersEnd {
    /// They are closed at once.
    Now,
    /// `graceful`: clients are told during the drain time, then they are closed.
    AfterDrain,
    /// `skip_exit`: clients are told, and they go on.
    Never,
}

/// What the server has to do because somebody asked for it here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AdminAction {
    /// `/drain_listeners`.
    DrainListeners {
        /// Which listeners.
        scope: Scope,
        /// What becomes of them.
        end: ListenersEnd,
    },
    /// `/healthcheck/fail` (true) and `/healthcheck/ok`.
    FailHealthChecks(bool),
    /// `/reopen_logs`.
    ReopenLogs,
    /// `/quitquitquit`.
    Quit,
}

impl AdminAction {
    /// The word for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DrainListeners { scope, end } => match (scope, end) {
                (Scope::All, ListenersEnd::Now) => "drain listeners",
                (Scope::All, ListenersEnd::AfterDrain) => "drain listeners, gracefully",
                (Scope::All, ListenersEnd::Never) => "drain connections and keep listening",
                (Scope::Inbound, ListenersEnd::Now) => "drain inbound listeners",
                (Scope::Inbound, ListenersEnd::AfterDrain) => "drain inbound listeners, gracefully",
                (Scope::Inbound, ListenersEnd::Never) => {
                    "drain inbound connections and keep listening"
                }
            },
            Self::FailHealthChecks(true) => "fail health checks",
            Self::FailHealthChecks(false) => "pass health checks again",
            Self::ReopenLogs => "open log files again",
            Self::Quit => "stop",
        }
    }
}

/// What the admin interface shows and may do.
#[derive(Debug)]
pub struct AdminContext {
    /// The segment, to read.
    pub reader: SegmentReader,
    /// The segment of this worker.
    pub segment: Arc<SegmentWorker>,
    /// Number of this generation.
    pub generation: Generation,
    /// What this generation runs.
    pub bootstrap: Arc<Bootstrap>,
    /// Its clusters.
    pub clusters: Arc<ClusterManager>,
    /// Its listeners, and what comes from files.
    pub shown: Arc<ArcSwap<View>>,
    /// The program's log.
    pub log: Arc<dyn LogControl>,
    /// Where actions go.
    pub actions: mpsc::UnboundedSender<AdminAction>,
    /// How the program was started.
    pub options: AdminOptions,
    /// When this generation was started.
    pub started: Instant,
    /// The same on the wall clock.
    pub started_at: SystemTime,
    /// How files of resources are read.
    pub load_options: LoadOptions,
    /// `/healthcheck/fail` was asked for.
    pub health_failed: AtomicBool,
}

impl AdminContext {
    /// Names of the clusters that stand in the configuration itself.
    fn static_clusters(&self) -> HashSet<&str> {
        self.bootstrap.clusters.iter().map(|cluster| cluster.name.as_str()).collect()
    }
}

/// How the program was started, for `/server_info` and for what is allowed.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct AdminOptions {
    /// Path of the configuration.
    pub config_path: String,
    /// Worker threads.
    pub concurrency: u32,
    /// `--drain-time-s`.
    pub drain_time: Duration,
    /// `--parent-shutdown-time-s`.
    pub parent_shutdown_time: Duration,
    /// `--drain-strategy`.
    pub drain_strategy: DrainStrategy,
    /// `--admin-allow-mutations`.
    pub allow_mutations: bool,
    /// The supervisor is of an older version, which does not close listeners that are drained.
    #[serde(default)]
    pub supervisor_keeps_sockets: bool,
}

/// How the client of a connection got here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// Over a TCP listener, perhaps through a browser.
    Tcp,
    /// Over a Unix socket, whose file mode decides who may.
    Unix,
}

/// An answer before it is HTTP.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Answer {
    fn text(body: impl Into<Vec<u8>>) -> Self {
        let content_type = "text/plain; charset=UTF-8";
        Self { status: StatusCode::OK, content_type, body: body.into() }
    }

    fn json(value: &serde_json::Value) -> Self {
        // A value always serializes; its keys are strings.
        let body = serde_json::to_vec_pretty(value).unwrap_or_default();
        Self { status: StatusCode::OK, content_type: "application/json", body }
    }

    fn html(body: String) -> Self {
        let content_type = "text/html; charset=UTF-8";
        Self { status: StatusCode::OK, content_type, body: body.into_bytes() }
    }

    fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn error(status: StatusCode, body: impl Into<Vec<u8>>) -> Self {
        Self::text(body).with_status(status)
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let caching = HeaderValue::from_static("no-cache, max-age=0");
        headers.insert(header::CACHE_CONTROL, caching);
        let sniffing = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, sniffing);
        headers.insert(header::SERVER, HeaderValue::from_static("baton"));
        response
    }
}

/// Serves one connection of the admin listener until the client closes it.
pub async fn serve<S>(context: Rc<AdminContext>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&context, &request, peer);
        async move { Ok::<_, Infallible>(answer.into_response()) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

fn answer<B>(context: &AdminContext, request: &Request<B>, peer: Peer) -> Answer {
    if let Err(refusal) = guard::check(request, peer) {
        return Answer::error(StatusCode::FORBIDDEN, refusal);
    }
    let Some(endpoint) = endpoints::find(request.uri().path()) else {
        return Answer::error(
            StatusCode::NOT_FOUND,
            format!("invalid path. {}", endpoints::help()),
        );
    };
    if endpoint.mutates && request.method() != hyper::Method::POST {
        let method = request.method();
        return Answer::error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("Method {method} not allowed, POST required."),
        );
    }
    if endpoint.mutates && peer == Peer::Tcp && !context.options.allow_mutations {
        return Answer::error(
            StatusCode::FORBIDDEN,
            "this admin listener only reads; hint: listen on a Unix socket, or start with \
             `--admin-allow-mutations`\n",
        );
    }
    let query = query::Query::parse(request.uri().query().unwrap_or(""));
    (endpoint.answer)(context, &query)
}

//! A proxy in the test's own thread, with a client and an upstream that the test scripts.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

pub use super::client::{Client, body, unchunk};
use baton_worker::{
    access_log::LogWriter,
    cluster::ClusterManager,
    config::{
        cluster::{Balancer, Cluster, Discovery, DnsFamily, EndpointConfig},
        hcm::{
            CodecType, EscapedSlashes, HttpConnectionManager, InternalClients, Routes,
            ServerHeader, StripHostPort, UnderscoresAction,
        },
        listener::{FilterChain, FilterChainMatch, NetworkFilter, TrafficDirection},
        model::{Address, Bootstrap, ClusterIndex},
        route::{
            Action, ClusterTarget, DirectResponse, HeaderChanges, HostRewrite, PathMatcher,
            Redirect, RedirectPath, Route, RouteAction, RouteConfiguration, RouteMatch, Upgrade,
            VirtualHost,
        },
    },
    deadline::Deadlines,
    drain::DrainHandle,
    extension::http::router::RouterSettings,
    filter::{chain::Chain, network::NewConnection},
    migrate::{Opened, Origin},
    outbox,
    stats::{HttpStats, ThreadStats},
    thread::{Parts, Thread},
    transport::Stream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::LocalSet,
};

/// Longest wait for anything in a test.
const PATIENCE: Duration = Duration::from_secs(60);

const STAT_PREFIX: &str = "test";

/// Runs a test on a runtime like a worker thread's.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        tokio::task::spawn_local(outbox::run());
        tokio::time::timeout(PATIENCE, test).await.unwrap()
    })
}

type Answer = dyn Fn(usize, &str) -> String;

/// What the upstream does.
#[derive(Clone)]
pub enum Script {
    /// Answers each request; the number counts over all connections.
    Answers(Rc<Answer>),
    /// Answers the first request and closes the connection when all of it was written.
    Once(String),
    /// Answers as soon as the head of a request is there.
    Early(String),
    /// Answers the first request of a connection, closes it at the second.
    CloseOnReuse(String),
    /// Switches protocols, then echoes.
    WebSocket,
    /// Answers CONNECT, then echoes.
    Connect,
    /// Echoes bytes, whatever they are.
    Echo,
    /// Reads and says nothing.
    Silent,
    /// Each connection is given to the test, which plays the upstream itself.
    ByHand(mpsc::UnboundedSender<TcpStream>),
}

impl Script {
    pub fn new(answer: impl Fn(usize, &str) -> String + 'static) -> Self {
        Self::Answers(Rc::new(answer))
    }
    pub fn answer_once(response: &str) -> Self {
        Self::Once(response.into())
    }
    pub fn close_on_reuse(response: &str) -> Self {
        Self::CloseOnReuse(response.into())
    }
    pub fn websocket() -> Self {
        Self::WebSocket
    }
    pub fn silent() -> Self {
        Self::Silent
    }
}

/// Reads one request with whatever framing it has.
async fn read_request(socket: &mut TcpStream, seen: &RefCell<String>) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1);
            let length = length.map_or(0, |l| l.lines().next().unwrap().parse::<usize>().unwrap());
            let whole = match lower.contains("transfer-encoding: chunked") {
                true => rest.contains("0\r\n") && rest.ends_with("\r\n\r\n"),
                false => rest.len() >= length,
            };
            if whole || lower.contains("upgrade: websocket") {
                seen.borrow_mut().push_str(&text);
                return Some(text);
            }
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

async fn echo(mut socket: TcpStream) {
    let (mut from, mut to) = socket.split();
    // A client that goes away ends the copy with an error; the test sees the client's side.
    drop(tokio::io::copy(&mut from, &mut to).await);
}

/// Answers each head, and reads no body before that.
async fn early(mut socket: TcpStream, response: &str) {
    let mut bytes = Vec::new();
    while socket.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        if bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            bytes.clear();
            if socket.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

async fn upstream(
    mut socket: TcpStream,
    script: Script,
    seen: Rc<RefCell<String>>,
    count: Rc<Cell<usize>>,
) {
    if matches!(script, Script::Echo) {
        return echo(socket).await;
    }
    if let Script::Early(response) = &script {
        return early(socket, response).await;
    }
    if let Script::ByHand(to) = &script {
        // The test may have ended.
        return drop(to.send(socket));
    }
    let mut of_connection = 0;
    while let Some(request) = read_request(&mut socket, &seen).await {
        let number = count.replace(count.get() + 1);
        match &script {
            Script::Answers(answer) => {
                socket.write_all(answer(number, &request).as_bytes()).await.unwrap();
            }
            Script::Once(response) => {
                socket.write_all(response.as_bytes()).await.unwrap();
                return;
            }
            Script::CloseOnReuse(response) if of_connection == 0 => {
                socket.write_all(response.as_bytes()).await.unwrap();
            }
            Script::CloseOnReuse(_) => return,
            Script::WebSocket => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                socket.write_all(head.as_bytes()).await.unwrap();
                let early = request.split_once("\r\n\r\n").unwrap().1;
                socket.write_all(early.as_bytes()).await.unwrap();
                let (mut from, mut to) = socket.split();
                // A client that goes away ends the copy with an error; the test sees the client's side.
                drop(tokio::io::copy(&mut from, &mut to).await);
                return;
            }
            Script::Connect => {
                socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                return echo(socket).await;
            }
            Script::Silent | Script::Echo | Script::ByHand(_) | Script::Early(_) => {}
        }
        of_connection += 1;
    }
}

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    seen: Rc<RefCell<String>>,
    /// Its counters.
    pub stats: HttpStats,
    /// All counters of its thread.
    pub all_stats: ThreadStats,
    /// Connections whose task ended with a panic.
    pub panics: Rc<Cell<u32>>,
    /// Whether its connections shall end.
    pub drain: DrainHandle,
    deadlines: Deadlines,
}

impl Proxy {
    /// Starts the proxy and its upstream.
    pub async fn start(script: Script) -> Self {
        Self::start_with(script, |_| {}).await
    }

    /// The same, and it waits for ever for the head of a request.
    pub async fn start_patient(script: Script) -> Self {
        Self::start_with(script, |manager| manager.request_headers_timeout = None).await
    }

    /// The same with another configuration.
    pub async fn start_with(
        script: Script,
        change: impl FnOnce(&mut HttpConnectionManager),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seen = Rc::new(RefCell::new(String::new()));
        let endpoint = listener.local_addr().unwrap();
        let upstream_seen = Rc::clone(&seen);
        let count = Rc::new(Cell::new(0));
        tokio::task::spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let seen = Rc::clone(&upstream_seen);
                tokio::task::spawn_local(upstream(socket, script.clone(), seen, Rc::clone(&count)));
            }
        });
        let mut manager = manager();
        change(&mut manager);
        Self::in_front_of(&[("", endpoint)], seen, manager).await
    }

    /// Starts the proxy alone. The endpoints have these names.
    pub async fn in_front_of(
        endpoints: &[(&str, SocketAddr)],
        seen: Rc<RefCell<String>>,
        manager: HttpConnectionManager,
    ) -> Self {
        // A port nobody listens on any more.
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let clusters = vec![
            Arc::new(cluster("main", endpoints)),
            Arc::new(cluster("dead", &[("", dead)])),
            Arc::new(cluster("empty", &[])),
        ];
        let bootstrap =
            Arc::new(Bootstrap { clusters, shows_upstream_local: true, ..Bootstrap::default() });
        let now = baton_worker::clock::now();
        let thread = Thread::new(Parts {
            index: 0,
            activity: Arc::default(),
            escrow: baton_worker::escrow::Desk::default(),
            clusters: ClusterManager::new(&bootstrap),
            bootstrap,
            stats: ThreadStats::detached(),
            drain: DrainHandle::new(now),
            log_writer: LogWriter::new(),
            source: None,
        });
        let chain = FilterChain {
            name: String::new(),
            matches: FilterChainMatch::default(),
            filters: vec![NetworkFilter::HttpConnectionManager(Arc::new(manager))],
        };
        let chain = Chain::new(&thread, &chain).unwrap();
        let stats = HttpStats::new(&thread.stats, STAT_PREFIX);
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let deadlines = thread.deadlines.clone();
        let panics = Rc::new(Cell::new(0));
        let counted = Rc::clone(&panics);
        tokio::task::spawn_local({
            let deadlines = deadlines.clone();
            async move { deadlines.run().await }
        });
        tokio::task::spawn_local(async move {
            while let Ok((socket, peer)) = front.accept().await {
                let serving = tokio::task::spawn_local(chain.serve(NewConnection {
                    buffer_limit_bytes: 1 << 20,
                    local: socket.local_addr().ok(),
                    stream: Stream::from(socket),
                    peer: Some(peer),
                    listener: "l".into(),
                    filter_chain: "".into(),
                    origin: Origin::nowhere(),
                    opened: Opened::now(),
                }));
                let panics = Rc::clone(&counted);
                tokio::task::spawn_local(async move {
                    panics.set(panics.get() + u32::from(serving.await.is_err()));
                });
            }
        });
        Self {
            address,
            seen,
            stats,
            all_stats: thread.stats.clone(),
            panics,
            drain: thread.drain.clone(),
            deadlines,
        }
    }

    pub async fn connect(&self) -> Client {
        Client::from(TcpStream::connect(self.address).await.unwrap())
    }

    /// Lets each connection look whether it shall end.
    pub fn wake_connections(&self) {
        self.deadlines.wake_all();
    }

    /// All requests as the upstream received them.
    pub fn upstream_saw(&self) -> String {
        self.seen.borrow().clone()
    }
}

fn cluster(name: &str, endpoints: &[(&str, SocketAddr)]) -> Cluster {
    let endpoint = |(name, address): &(&str, SocketAddr)| EndpointConfig {
        address: Address::Ip(*address),
        hostname: (*name).to_owned(),
        weight: 1,
        priority: 0,
        zone: String::new(),
    };
    Cluster {
        name: name.into(),
        stat_name: name.into(),
        discovery: Discovery::Static,
        balancer: Balancer::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        endpoints: endpoints.iter().map(endpoint).collect(),
        dns_refresh: Duration::from_secs(5),
        respect_dns_ttl: false,
        dns_family: DnsFamily::Auto,
        keepalive: None,
        idle_timeout: Some(Duration::from_secs(60)),
        max_requests_per_connection: None,
        source_address: None,
        buffer_limit_bytes: 1 << 20,
    }
}

fn route(path: PathMatcher, action: Action) -> Arc<Route> {
    Arc::new(Route {
        name: String::new(),
        matches: RouteMatch {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            grpc_only: false,
            fraction_ppm: None,
        },
        action,
        headers: HeaderChanges::default(),
        filters: None,
    })
}

fn to(cluster: usize, timeout: Duration) -> Action {
    Action::Forward(Box::new(RouteAction {
        timeout: Some(timeout),
        ..RouteAction::to(ClusterTarget::Cluster(ClusterIndex(cluster)))
    }))
}

fn upgrade(name: &str, terminate: bool) -> Upgrade {
    Upgrade { upgrade_type: name.into(), enabled: true, terminate }
}

/// A virtual host that takes CONNECT and nothing else.
fn connect_host(domain: &str, terminate: bool) -> VirtualHost {
    let mut action = to(0, Duration::from_secs(15));
    if let (Action::Forward(action), true) = (&mut action, terminate) {
        action.upgrades.push(upgrade("connect", true));
    }
    VirtualHost {
        name: domain.into(),
        domains: vec![domain.into()],
        routes: vec![route(PathMatcher::Connect, action)],
        ..VirtualHost::default()
    }
}

/// To the endpoint, under its name.
fn to_named() -> Action {
    let mut action = to(0, Duration::from_secs(15));
    if let Action::Forward(action) = &mut action {
        action.host_rewrite = Some(HostRewrite::Auto);
    }
    action
}

/// The configuration that most tests use.
pub fn manager() -> HttpConnectionManager {
    let long = Duration::from_secs(15);
    let redirect = Redirect {
        status: 301,
        scheme: None,
        host: Some("elsewhere".into()),
        port: None,
        path: RedirectPath::Keep,
        strip_query: false,
    };
    let hello = DirectResponse { status: 200, body: Arc::from(*b"hello") };
    let routes = vec![
        route(PathMatcher::Exact("/direct".into()), Action::DirectResponse(hello)),
        route(PathMatcher::Prefix("/moved".into()), Action::Redirect(Box::new(redirect))),
        route(PathMatcher::Exact("/dead".into()), to(1, long)),
        route(PathMatcher::Exact("/empty".into()), to(2, long)),
        route(PathMatcher::Exact("/quick".into()), to(0, Duration::from_millis(50))),
        route(PathMatcher::Exact("/named".into()), to_named()),
        route(PathMatcher::Prefix("/".into()), to(0, long)),
    ];
    let virtual_hosts = ["a", "example.com"].map(|domain| VirtualHost {
        name: domain.into(),
        domains: vec![domain.into()],
        routes: routes.clone(),
        ..VirtualHost::default()
    });
    let mut virtual_hosts = Vec::from(virtual_hosts);
    virtual_hosts.push(connect_host("sent-on.example:443", false));
    virtual_hosts.push(connect_host("ends-here.example:443", true));
    let table = RouteConfiguration { virtual_hosts, ..RouteConfiguration::default() };
    HttpConnectionManager {
        stat_prefix: STAT_PREFIX.into(),
        codec: CodecType::Auto,
        routes: Routes::Static(Arc::new(table)),
        filters: vec![RouterSettings::default().configured()],
        access_log: Vec::new(),
        direction: TrafficDirection::Unspecified,
        use_remote_address: false,
        skip_xff_append: false,
        xff_trusted_hops: 0,
        internal: InternalClients::default(),
        via: String::new(),
        generate_request_id: true,
        preserve_external_request_id: false,
        request_id_in_response: false,
        normalize_path: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Reject,
        strip_host_port: StripHostPort::No,
        server_header: ServerHeader::Overwrite,
        server_name: "baton".into(),
        upgrades: vec![upgrade("websocket", false), upgrade("connect", false)],
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        max_requests_per_connection: None,
        max_headers_count: 100,
        underscores: UnderscoresAction::Allow,
        max_headers_bytes: 60 * 1024,
        stream_idle_timeout: Some(Duration::from_secs(300)),
        request_timeout: None,
        request_headers_timeout: Some(Duration::from_millis(300)),
        delayed_close_timeout: Some(Duration::from_secs(1)),
        drain_timeout: Duration::from_secs(5),
        accept_http_10: true,
        default_host_for_http_10: String::new(),
        allow_absolute_url: true,
        enable_trailers: true,
        proxy_100_continue: false,
        add_user_agent: false,
    }
}

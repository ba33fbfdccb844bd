//! A proxy in the test's own thread, with a client and an upstream that the test scripts.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use baton_worker::{
    access_log::LogWriter,
    cluster::ClusterManager,
    config::{
        cluster::{Balancer, Cluster, Discovery, DnsFamily, EndpointConfig},
        hcm::{
            CodecType, EscapedSlashes, HttpConnectionManager, HttpFilter, ServerHeader,
            StripHostPort, UnderscoresAction, Upgrade,
        },
        listener::{FilterChain, FilterChainMatch, NetworkFilter},
        model::{Address, Bootstrap, ClusterIndex},
        route::{
            Action, ClusterTarget, DirectResponse, HeaderChanges, PathMatcher, Redirect,
            RedirectPath, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
        },
    },
    drain::DrainHandle,
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

async fn upstream(
    mut socket: TcpStream,
    script: Script,
    seen: Rc<RefCell<String>>,
    count: Rc<Cell<usize>>,
) {
    if matches!(script, Script::Echo) {
        return echo(socket).await;
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
            Script::Silent | Script::Echo => {}
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
}

impl Proxy {
    /// Starts the proxy and its upstream.
    pub async fn start(script: Script) -> Self {
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
        // A port nobody listens on any more.
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let clusters = vec![
            Arc::new(cluster("main", &[endpoint])),
            Arc::new(cluster("dead", &[dead])),
            Arc::new(cluster("empty", &[])),
        ];
        let bootstrap = Arc::new(Bootstrap { clusters, ..Bootstrap::default() });
        let now = baton_worker::clock::now();
        let thread = Thread::new(Parts {
            index: 0,
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
            filters: vec![NetworkFilter::HttpConnectionManager(Arc::new(manager()))],
        };
        let chain = Chain::new(&thread, &chain).unwrap();
        let stats = HttpStats::new(&thread.stats, STAT_PREFIX);
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        let deadlines = thread.deadlines.clone();
        tokio::task::spawn_local(async move { deadlines.run().await });
        tokio::task::spawn_local(async move {
            while let Ok((socket, peer)) = front.accept().await {
                tokio::task::spawn_local(chain.serve(NewConnection {
                    buffer_limit_bytes: 1 << 20,
                    local: socket.local_addr().ok(),
                    stream: Stream::from(socket),
                    peer: Some(peer),
                    listener: "l".into(),
                    filter_chain: "".into(),
                    origin: Origin::nowhere(),
                    opened: Opened::now(),
                }));
            }
        });
        Self { address, seen, stats }
    }

    pub async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.unwrap(), unread: Vec::new() }
    }

    /// All requests as the upstream received them.
    pub fn upstream_saw(&self) -> String {
        self.seen.borrow().clone()
    }
}

/// A client that sends and reads raw bytes.
pub struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Ends our half of the connection.
    pub async fn end(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    /// Whether the other side has closed its socket and not just its half: then the first bytes are
    /// answered with a reset.
    pub async fn is_alone(&mut self) -> bool {
        self.send("x").await;
        self.socket.write_all(b"x").await.is_err()
    }

    /// Everything up to and with `mark`.
    pub async fn read_until(&mut self, mark: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some(at) = text.find(mark) {
                let end = at + mark.len();
                self.unread.drain(..end);
                return text[..end].to_owned();
            }
            let count = self.socket.read_buf(&mut self.unread).await.unwrap();
            assert_ne!(count, 0, "the connection ended; so far: {text}");
        }
    }

    /// So many bytes.
    pub async fn read_exactly(&mut self, count: usize) -> String {
        while self.unread.len() < count {
            let read = self.socket.read_buf(&mut self.unread).await.unwrap();
            assert_ne!(read, 0, "the connection ended after {} bytes", self.unread.len());
        }
        String::from_utf8(self.unread.drain(..count).collect()).unwrap()
    }

    /// Everything up to the end, which may be a reset.
    pub async fn read_to_end(&mut self) -> String {
        while matches!(self.socket.read_buf(&mut self.unread).await, Ok(count) if count > 0) {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }
}

/// The part behind the first empty line.
pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

/// The data of a chunked body without extensions.
pub fn unchunk(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return data;
        }
        data.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
}

fn cluster(name: &str, endpoints: &[SocketAddr]) -> Cluster {
    let endpoint = |address: &SocketAddr| EndpointConfig {
        address: Address::Ip(*address),
        hostname: String::new(),
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
    })
}

fn to(cluster: usize, timeout: Duration) -> Action {
    Action::Forward(Box::new(RouteAction {
        target: ClusterTarget::Cluster(ClusterIndex(cluster)),
        not_found_status: 503,
        rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: Some(timeout),
        idle_timeout: None,
        upgrades: Vec::new(),
        high_priority: false,
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

fn manager() -> HttpConnectionManager {
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
    HttpConnectionManager {
        stat_prefix: STAT_PREFIX.into(),
        codec: CodecType::Auto,
        routes: Arc::new(RouteConfiguration { virtual_hosts, ..RouteConfiguration::default() }),
        filters: vec![HttpFilter::Router { suppress_envoy_headers: false }],
        access_log: Vec::new(),
        use_remote_address: false,
        skip_xff_append: false,
        xff_trusted_hops: 0,
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
        drain_timeout: Duration::from_secs(5),
        accept_http_10: true,
        default_host_for_http_10: String::new(),
        allow_absolute_url: true,
        enable_trailers: true,
        proxy_100_continue: false,
        add_user_agent: false,
    }
}

//! A program whose resources come from files, servers that say who they are, and what stands in the files.

use crate::harness::client;
use crate::harness::eventually::{SOON, eventually, until};
use crate::harness::lab::free_address;
use crate::harness::{Program, program};
use baton_torture::files::{ResourceFile, Way};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Every way to change a file. Two changes by link follow each other: the first puts the link in place of
/// a file, the second replaces only the directory behind it.
pub const WAYS: [Way; 4] = [Way::Rename, Way::InPlace, Way::Link, Way::Link];

/// Directories and addresses of one program.
#[derive(Debug)]
pub struct Site {
    directory: tempfile::TempDir,
    pub admin: SocketAddr,
    pub http: SocketAddr,
    pub tcp: SocketAddr,
    /// A server that answers `a`, and one that answers `b`.
    pub a: SocketAddr,
    pub b: SocketAddr,
}

impl Site {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            admin: free_address(),
            http: free_address(),
            tcp: free_address(),
            a: named("a"),
            b: named("b"),
        }
    }

    /// A file of resources, which is not there yet.
    pub fn file(&self, name: &str) -> ResourceFile {
        ResourceFile::new(self.directory.path().join(name)).expect("a directory for a file")
    }

    /// Starts with these static listeners and clusters, and more fields of the bootstrap.
    pub fn launch(&self, listeners: &[Value], clusters: &[Value], more: &Value) -> Program {
        Program::launch(&self.bootstrap(listeners, clusters, more), &ARGUMENTS)
    }

    /// The same, and waits until it serves.
    pub fn start(&self, listeners: &[Value], clusters: &[Value], more: &Value) -> Program {
        let mut program = self.launch(listeners, clusters, more);
        program.wait_until_serving();
        program
    }

    pub fn bootstrap(&self, listeners: &[Value], clusters: &[Value], more: &Value) -> String {
        let mut bootstrap = json!({
            "node": { "id": "test", "cluster": "test" },
            "admin": { "address": socket(self.admin) },
            "static_resources": { "listeners": listeners, "clusters": clusters },
        });
        let fields = more.as_object().expect("fields of the bootstrap").clone();
        bootstrap.as_object_mut().expect("an object").extend(fields);
        bootstrap.to_string()
    }

    /// The value of a statistic; 0 when it is not there.
    pub fn stat(&self, name: &str) -> u64 {
        let stats = client::get(self.admin, "/stats").body;
        let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    /// Waits until a statistic is this.
    pub fn until_stat(&self, name: &str, wanted: u64) {
        eventually(name, || match self.stat(name) {
            value if value == wanted => Ok(()),
            value => Err(format!("{value} in place of {wanted}")),
        });
    }

    /// A part of `/config_dump`, by the name of its message.
    pub fn dump(&self, message: &str) -> Value {
        let body = client::get(self.admin, "/config_dump?include_eds").body;
        let dump: Value = serde_json::from_str(&body).expect("the dump is JSON");
        let parts = dump.get("configs").and_then(Value::as_array).cloned().unwrap_or_default();
        let wanted = format!("type.googleapis.com/envoy.admin.v3.{message}");
        let part = parts.into_iter().find(|part| part.get("@type") == Some(&json!(wanted)));
        part.unwrap_or_default()
    }
}

/// Older generations let go of their connections at once.
const ARGUMENTS: [&str; 4] = ["--concurrency", "2", "--probation-s", "0"];

/// Who answers; the status when it is not 200.
pub fn who(address: SocketAddr, path: &str) -> String {
    who_within(address, path, SOON)
}

fn who_within(address: SocketAddr, path: &str, patience: Duration) -> String {
    let found = client::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        client::receive(&mut stream)
    });
    match found {
        Ok(response) if response.status == 200 => response.body,
        Ok(response) => response.status.to_string(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Waits until this server, or this status, answers. A request may get to a server that the test holds
/// before the change is there, and would wait for ever.
pub fn until_answers(address: SocketAddr, path: &str, wanted: &str) {
    eventually("another answer", || {
        let found = who_within(address, path, Duration::from_secs(2));
        if found == wanted { Ok(()) } else { Err(format!("{found} in place of {wanted}")) }
    });
}

/// Asks on a connection that stays.
pub fn ask(stream: &mut TcpStream, path: &str) -> client::Response {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    client::receive(stream).expect("a response")
}

/// A server on a thread of its own that answers each request with its name.
fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, name));
        }
    });
    address
}

fn serve(mut stream: TcpStream, name: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        head.extend(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            // The proxy may close at any time.
            drop(stream.write_all(answer.as_bytes()));
        }
    }
}

/// A server whose every answer waits for the test.
#[derive(Debug)]
pub struct Held {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Held {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener that does not wait");
        let address = listener.local_addr().expect("its address");
        Self { listener, address }
    }

    /// The proxy's next connection.
    pub fn accept(&self) -> TcpStream {
        let (stream, _) = eventually("a connection of the proxy", || {
            self.listener.accept().map_err(|error| error.to_string())
        });
        stream.set_nonblocking(false).expect("a stream that waits");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        stream
    }
}

/// Reads to the end of a head.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a byte of a head");
        head.extend(byte);
    }
    String::from_utf8(head).expect("text")
}

/// Sends through a tunnel to a server that the test holds, and back.
pub fn say(client: &mut TcpStream, server: &mut TcpStream, text: &[u8]) {
    let mut came = vec![0; text.len()];
    client.write_all(text).expect("send");
    server.read_exact(&mut came).expect("what was sent");
    assert_eq!(came, text);
    server.write_all(text).expect("answer");
    client.read_exact(&mut came).expect("the answer");
    assert_eq!(came, text);
}

/// Kills the worker that serves, and waits for another one.
pub fn kill_worker(program: &Program) {
    let (_, worker) = program.serving_now();
    program::send(worker, Signal::SIGKILL);
    until("another worker serves", || {
        program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
    });
}

// What stands in the files and in the bootstrap.

const TYPES: &str = "type.googleapis.com/envoy.";
const HCM: &str = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ROUTER: &str = "extensions.filters.http.router.v3.Router";

/// A file with these resources.
pub fn resources(version: &str, resources: &[Value]) -> String {
    let file = json!({ "version_info": version, "resources": resources });
    serde_json::to_string_pretty(&file).expect("text")
}

/// A message as an `Any`.
pub fn typed(kind: &str, mut message: Value) -> Value {
    let fields = message.as_object_mut().expect("an object");
    fields.insert("@type".to_owned(), json!(format!("{TYPES}{kind}")));
    message
}

pub fn as_cluster(message: Value) -> Value {
    typed("config.cluster.v3.Cluster", message)
}

pub fn as_listener(message: Value) -> Value {
    typed("config.listener.v3.Listener", message)
}

/// The source that reads a file; `more` are further fields.
pub fn source(file: &ResourceFile, more: &Value) -> Value {
    let mut source = json!({ "path_config_source": { "path": file.path() } });
    let fields = more.as_object().expect("fields of a source").clone();
    source.as_object_mut().expect("an object").extend(fields);
    source
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

fn assignment(cluster: &str, servers: &[SocketAddr]) -> Value {
    let endpoint = |server: &SocketAddr| json!({ "endpoint": { "address": socket(*server) } });
    let endpoints: Vec<Value> = servers.iter().map(endpoint).collect();
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": endpoints }] })
}

/// The endpoints of a cluster, as a resource.
pub fn endpoints(cluster: &str, servers: &[SocketAddr]) -> Value {
    typed("config.endpoint.v3.ClusterLoadAssignment", assignment(cluster, servers))
}

/// A cluster with one server.
pub fn cluster(name: &str, server: SocketAddr) -> Value {
    json!({ "name": name, "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": assignment(name, &[server]) })
}

/// A cluster whose endpoints come from somewhere else.
pub fn eds_cluster(name: &str, source: &Value) -> Value {
    json!({ "name": name, "type": "EDS", "connect_timeout": "5s",
            "eds_cluster_config": { "eds_config": source } })
}

/// Virtual hosts with these prefixes and clusters.
fn virtual_hosts(routes: &[(&str, &str)]) -> Value {
    let route = |(prefix, cluster): &(&str, &str)| json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster, "timeout": "0s" } });
    let routes: Vec<Value> = routes.iter().map(route).collect();
    json!([{ "name": "all", "domains": ["*"], "routes": routes }])
}

/// Routes, as a resource.
pub fn routes(name: &str, routes: &[(&str, &str)]) -> Value {
    let message = json!({ "name": name, "virtual_hosts": virtual_hosts(routes) });
    typed("config.route.v3.RouteConfiguration", message)
}

/// A listener with an HTTP connection manager and these routes.
pub fn http_listener(name: &str, address: SocketAddr, routes: &[(&str, &str)]) -> Value {
    let routes = json!({ "name": "inline", "validate_clusters": false,
                         "virtual_hosts": virtual_hosts(routes) });
    http_listener_with(name, address, &json!({ "route_config": routes }))
}

/// The same, whose routes come from somewhere else.
pub fn rds_listener(name: &str, address: SocketAddr, routes: &str, source: &Value) -> Value {
    let rds = json!({ "route_config_name": routes, "config_source": source });
    http_listener_with(name, address, &json!({ "rds": rds }))
}

fn http_listener_with(name: &str, address: SocketAddr, more: &Value) -> Value {
    let router =
        json!({ "name": "envoy.filters.http.router", "typed_config": typed(ROUTER, json!({})) });
    let mut manager = typed(HCM, json!({ "stat_prefix": "web", "http_filters": [router] }));
    let fields = more.as_object().expect("fields of a connection manager").clone();
    manager.as_object_mut().expect("an object").extend(fields);
    listener(name, address, "envoy.filters.network.http_connection_manager", &manager)
}

/// A listener with a TCP proxy.
pub fn tcp_listener(name: &str, address: SocketAddr, cluster: &str) -> Value {
    let proxy = typed(TCP_PROXY, json!({ "stat_prefix": "tcp", "cluster": cluster }));
    listener(name, address, "envoy.filters.network.tcp_proxy", &proxy)
}

fn listener(name: &str, address: SocketAddr, filter: &str, config: &Value) -> Value {
    json!({ "name": name, "address": socket(address),
            "filter_chains": [{ "filters": [{ "name": filter, "typed_config": config }] }] })
}

/// Where something stands in a text: `line:column`, both from 1.
pub fn place(text: &str, what: &str) -> String {
    let before = text.split(what).next().expect("what is before it");
    assert!(before.len() < text.len(), "{what} is not there");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().len() + 1;
    format!("{line}:{column}")
}

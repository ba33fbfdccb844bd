//! A worker thread that spins or hangs in the middle of a request: it is found, the log says what it did,
//! and another generation takes its place, with the connections of the threads that work, and with
//! those in escrow of the thread that does not.

use crate::harness::eventually::{SOON, eventually};
use crate::harness::lab::free_address;
use crate::harness::{Program, client};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Kept connections of clients; some of them are on each of two threads.
const CLIENTS: usize = 24;
/// TCP tunnels, likewise.
const TUNNELS: usize = 12;
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Sends back what it gets.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a server");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let Ok(mut back) = stream.try_clone() else { return };
                std::io::copy(&mut stream, &mut back).ok();
            });
        }
    });
    address
}

struct Rig {
    program: Program,
    http: SocketAddr,
    tcp: SocketAddr,
    admin: SocketAddr,
}

impl Rig {
    fn start(escrow: &str) -> Self {
        let (http, tcp, admin) = (free_address(), free_address(), free_address());
        let config = config([http, tcp, admin, echo_server()]);
        let arguments = ["--concurrency", "2", "--probation-s", "0", "--crash-escrow", escrow];
        let limits = [("BATON_TEST_THREAD_TIMEOUT_MS", "900")];
        let program = Program::start_as(&config, &arguments, &limits);
        Self { program, http, tcp, admin }
    }

    fn client(&self) -> TcpStream {
        let mut stream = client::connect(self.http).expect("a client");
        stream.write_all(GET).expect("send");
        assert_eq!(client::receive(&mut stream).expect("a response").status, 200);
        stream
    }

    fn tunnel(&self) -> TcpStream {
        let mut stream = client::connect(self.tcp).expect("a tunnel");
        talk(&mut stream);
        stream
    }

    fn stat(&self, name: &str) -> u64 {
        let body = client::get(self.admin, "/stats").body;
        let mut lines = body.lines().filter_map(|line| line.split_once(": "));
        let value = lines.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned());
        value.and_then(|value| value.parse().ok()).expect("a statistic")
    }

    fn wait_for_another(&self, stuck: u64) {
        eventually("another generation takes its place", || match self.program.serving()? {
            Some((generation, _)) if generation > stuck => Ok(()),
            other => Err(format!("{other:?} serves")),
        });
        self.program.wait_until_alone();
    }

    /// One request gets a thread stuck, and its generation is replaced. The numbers of clients whose
    /// request of that time was answered, and whose was not.
    fn replaced_by(&self, action: &str, says: &str, in_escrow: usize) -> (usize, usize) {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| self.client()).collect();
        let mut tunnels: Vec<_> = (0..TUNNELS).map(|_| self.tunnel()).collect();
        eventually("connections are in escrow", || {
            let found = self.stat("baton.supervisor.connections_in_escrow");
            if found == in_escrow as u64 { Ok(()) } else { Err(found.to_string()) }
        });
        let (stuck, worker) = self.program.serving_now();
        self.program.set_fault(&format!("request:{action}:1"));
        let mut unlucky = asking(self.http);
        assert_eq!(self.program.fired("a thread is stuck"), worker);
        // One in two of them waits for that thread.
        for stream in &mut clients {
            stream.write_all(GET).expect("send");
        }
        self.wait_for_another(stuck);
        let answers = clients.iter_mut().map(client::receive);
        let answered = answers.filter(|answer| answer.as_ref().is_ok_and(|a| a.status == 200));
        let answered = answered.count();
        tunnels.iter_mut().for_each(talk);
        client::assert_ended(&mut unlucky);
        assert_eq!(client::get(self.http, "/").status, 200);
        let log = self.program.log();
        assert!(log.contains("a worker thread makes no progress"), "{log}");
        let line = log.lines().find(|line| line.contains("it began last: request head of"));
        assert!(line.is_some_and(|line| line.contains(says)), "{log}");
        (answered, CLIENTS - answered)
    }
}

/// A client that has sent a request.
fn asking(address: SocketAddr) -> TcpStream {
    let mut stream = client::connect(address).expect("a client");
    stream.write_all(GET).expect("send");
    stream
}

fn talk(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    stream.write_all(b"ping").expect("send");
    let mut came = [0; 4];
    stream.read_exact(&mut came).expect("all of it");
    assert_eq!(&came, b"ping");
}

fn config(addresses: [SocketAddr; 4]) -> String {
    let [http, tcp, admin, server] = addresses.map(|address| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    });
    format!(
        r#"
admin: {{address: {admin}}}
static_resources:
  listeners:
  - name: http
    address: {http}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, direct_response: {{status: 200}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  - name: tcp
    address: {tcp}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: server
  clusters:
  - name: server
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: server
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {server}}}}}]}}]
"#
    )
}

#[test]
fn a_thread_that_spins_costs_its_own_request_and_nothing_of_what_is_in_escrow() {
    let rig = Rig::start("idle");
    let (answered, lost) = rig.replaced_by("spin", "spins", CLIENTS + TUNNELS);
    assert_eq!((answered, lost), (CLIENTS, 0));
    assert_eq!(rig.stat("baton.connections.ended.crash"), 1);
}

#[test]
fn a_thread_that_hangs_costs_its_own_http_connections_and_no_tunnel() {
    let rig = Rig::start("tunnels");
    let (answered, lost) = rig.replaced_by("hang", "hangs", TUNNELS);
    assert!(answered > 0 && lost > 0, "{answered} were answered, {lost} were not");
    let lost = u64::try_from(lost).expect("a number");
    assert_eq!(rig.stat("baton.connections.ended.crash"), lost + 1);
}

#[test]
fn when_all_threads_are_stuck_who_waits_in_their_queues_is_served_by_the_next_generation() {
    let rig = Rig::start("off");
    let (stuck, worker) = rig.program.serving_now();
    let hang = |what: &str, clients: usize| {
        rig.program.set_fault("request:hang:1");
        let clients: Vec<_> = (0..clients).map(|_| asking(rig.http)).collect();
        assert_eq!(rig.program.fired(what), worker);
        assert!(rig.program.clear_fault());
        clients
    };
    let mut clients = hang("one thread is stuck", 1);
    // Those that meet the first thread wait in its queue.
    clients.extend(hang("the other one is, too", CLIENTS));
    rig.wait_for_another(stuck);
    let answers = clients.iter_mut().map(client::receive);
    let answered = answers.filter(|answer| answer.as_ref().is_ok_and(|a| a.status == 200));
    let answered = answered.count();
    // A thread may have accepted more of them before it got stuck.
    let lost = clients.len() - answered;
    assert!(lost >= 2 && answered > 0, "{answered} were answered, {lost} were not");
    assert_eq!(rig.stat("baton.connections.ended.crash"), u64::try_from(lost).expect("a number"));
}

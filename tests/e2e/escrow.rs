//! Connections that outlive the worker that served them.

pub(crate) mod crashes;
mod upgraded;

use crate::harness::eventually::{SOON, eventually, now, pause, until};
use crate::harness::lab::free_address;
use crate::harness::program::send;
use crate::harness::{Lab, Program, client, proc};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of the long transfer.
const TRANSFER: usize = 200_000_000;
/// Workers that are killed during it.
const KILLS: usize = 50;
/// Bytes of one write and one read.
const PIECE: usize = 64 * 1024;

/// A program with one tunnel listener in front of a server of the test.
struct Rig {
    server: TcpListener,
    tcp: SocketAddr,
    admin: SocketAddr,
    program: Program,
}

impl Rig {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, "")
    }

    /// With more listeners.
    fn start_with(arguments: &[&str], listeners: &str) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").expect("a server");
        let (tcp, admin) = (free_address(), free_address());
        let upstream = server.local_addr().expect("its address");
        let config = config((tcp, admin, upstream), listeners);
        let usual = ["--concurrency", "2", "--probation-s", "0", "--drain-time-s", "1"];
        let program = Program::start(&config, &[&usual[..], arguments].concat());
        Self { server, tcp, admin, program }
    }

    /// A client and the server's end of its tunnel.
    fn tunnel(&self) -> (TcpStream, TcpStream) {
        let client = client::connect(self.tcp).expect("a client");
        let server = self.accept();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(SOON)).expect("a limit");
            stream.set_write_timeout(Some(SOON)).expect("a limit");
        }
        (client, server)
    }

    /// The next connection of the program to the server.
    fn accept(&self) -> TcpStream {
        let (server, _) = self.server.accept().expect("a connection");
        server.set_read_timeout(Some(SOON)).expect("a limit");
        server
    }

    fn stats(&self) -> BTreeMap<String, u64> {
        let Ok(response) = client::request(self.admin, "GET", "/stats") else {
            return BTreeMap::new();
        };
        let lines = response.body.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        lines.collect()
    }

    fn stat(&self, name: &str) -> u64 {
        self.stats().get(name).copied().unwrap_or(0)
    }

    /// Waits until the supervisor has copies of so many connections.
    fn wait_for_escrow(&self, connections: u64) {
        eventually("connections are in escrow", || {
            let found = self.stat("baton.supervisor.connections_in_escrow");
            if found == connections { Ok(()) } else { Err(format!("{found}")) }
        });
    }

    /// Kills the worker and waits for the next one.
    fn kill_worker(&self) {
        let (_, worker) = self.program.serving_now();
        send(worker, Signal::SIGKILL);
        until("another worker serves", || {
            self.program.serving().is_ok_and(|now| now.is_some_and(|(_, now)| now != worker))
        });
    }

    /// The books agree with clients that made so many connections, all over now.
    fn assert_books(&self, clients: u64) {
        self.assert_books_with(clients, 0);
    }

    /// The same when so many of them were lost with a worker.
    fn assert_books_with(&self, clients: u64, lost: u64) {
        eventually("the ledger agrees with the clients", || {
            let stats = self.stats();
            let sum = |prefix: &str| -> u64 {
                let found = stats.iter().filter(|(name, _)| name.starts_with(prefix));
                found.map(|(_, value)| value).sum()
            };
            let (opened, open) = (sum("baton.connections.opened"), sum("baton.connections.open."));
            let (ended, migrated, crash) = (
                sum("baton.connections.ended."),
                sum("baton.connections.ended.migrated"),
                sum("baton.connections.ended.crash"),
            );
            let told = format!(
                "opened {opened}, open {open}, ended {ended}, migrated {migrated}, crash {crash}"
            );
            let agrees = opened == open + ended && open == 0 && opened - migrated == clients;
            if agrees && crash == lost { Ok(()) } else { Err(told) }
        });
    }
}

fn config((tcp, admin, upstream): (SocketAddr, SocketAddr, SocketAddr), more: &str) -> String {
    let address = |address: SocketAddr| {
        format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
    };
    let (tcp, admin, upstream) = (address(tcp), address(admin), address(upstream));
    format!(
        r#"
admin: {{address: {admin}}}
static_resources:
  listeners:
  - name: tunnels
    address: {tcp}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tunnels
          cluster: server{more}
  clusters:
  - name: server
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: server
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {upstream}}}}}]}}]
"#
    )
}

/// Sends bytes through a tunnel.
fn send_all(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).expect("send");
    let mut came = vec![0; bytes.len()];
    to.read_exact(&mut came).expect("all of it");
    assert_eq!(came, bytes);
}

/// Bytes that differ from place to place, so that lost, doubled and swapped ones are noticed.
fn pattern(from: usize, piece: &mut [u8]) {
    for (at, word) in piece.chunks_mut(8).enumerate() {
        let mixed = ((from / 8 + at) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes()[..word.len()]);
    }
}

/// Sends the pattern and its end. Slowly, so that the transfer lasts for as long as `slow` says.
fn sender(mut stream: TcpStream, slow: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        let mut sent = 0;
        while sent < TRANSFER {
            let count = PIECE.min(TRANSFER - sent);
            pattern(sent, &mut piece[..count]);
            stream.write_all(&piece[..count]).expect("the tunnel takes it");
            sent += count;
            let enough = sent > TRANSFER / 10 * 9;
            while enough && slow.load(Ordering::Relaxed) {
                pause(Duration::from_millis(1));
            }
            if slow.load(Ordering::Relaxed) {
                pause(Duration::from_micros(1500));
            }
        }
        stream.shutdown(Shutdown::Write).expect("the end");
    })
}

/// Receives the pattern and its end, and checks every byte.
fn receiver(mut stream: TcpStream, progress: Arc<AtomicUsize>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut piece, mut right) = (vec![0; PIECE], vec![0; PIECE + 8]);
        let mut received = 0;
        loop {
            let count = stream.read(&mut piece).expect("the tunnel goes on");
            if count == 0 {
                break;
            }
            let skip = received % 8;
            pattern(received - skip, &mut right[..(skip + count).next_multiple_of(8)]);
            assert!(piece[..count] == right[skip..skip + count], "wrong bytes near {received}");
            received += count;
            progress.store(received, Ordering::Relaxed);
        }
        assert_eq!(received, TRANSFER);
    })
}

#[test]
fn a_transfer_both_ways_outlives_fifty_killed_workers() {
    let rig = Rig::start(&[]);
    let (client, server) = rig.tunnel();
    rig.wait_for_escrow(1);
    let slow = Arc::new(AtomicBool::new(true));
    let (down, up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let copy = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    let ends = [
        sender(copy(&server), Arc::clone(&slow)),
        sender(copy(&client), Arc::clone(&slow)),
        receiver(client, Arc::clone(&down)),
        receiver(server, Arc::clone(&up)),
    ];
    let began = now();
    for kill in 0..KILLS {
        let before = down.load(Ordering::Relaxed);
        rig.kill_worker();
        // Kills come at moments that have nothing to do with what the tunnel does.
        pause(Duration::from_millis(u64::try_from(kill * 37 % 60).unwrap_or(0)));
        until("the tunnel goes on", || {
            let at = down.load(Ordering::Relaxed);
            at > before || at > TRANSFER / 10 * 9 - 4 * PIECE
        });
    }
    let killed = began.elapsed();
    slow.store(false, Ordering::Relaxed);
    for end in ends {
        end.join().expect("every byte arrives, both ways");
    }
    eprintln!("{KILLS} kills in {killed:?}, the transfer took {:?}", began.elapsed());
    rig.assert_books(1);
}

#[test]
fn ends_and_resets_pass_at_once_though_the_supervisor_has_copies() {
    let rig = Rig::start(&[]);
    let (mut client, server) = rig.tunnel();
    rig.wait_for_escrow(1);
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
    drop(client);
    rig.wait_for_escrow(0);
    let (mut client, server) = rig.tunnel();
    rig.wait_for_escrow(1);
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).expect("reset at close");
    drop(server);
    let error = client.read(&mut [0; 1]).expect_err("the reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    rig.wait_for_escrow(0);
    rig.assert_books(2);
}

#[test]
fn half_closed_and_reset_tunnels_keep_their_ends_over_a_crash() {
    let rig = Rig::start(&[]);
    let (mut half, mut half_server) = rig.tunnel();
    let (reset, mut reset_server) = rig.tunnel();
    rig.wait_for_escrow(2);
    half.write_all(b"question").expect("send");
    half.shutdown(Shutdown::Write).expect("half of the end");
    let mut question = Vec::new();
    half_server.read_to_end(&mut question).expect("the question");
    assert_eq!(question, b"question");
    rig.kill_worker();
    rig.wait_for_escrow(2);
    half_server.write_all(b"answer").expect("send");
    drop(half_server);
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).expect("the answer");
    assert_eq!(answer, b"answer");
    socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).expect("reset at close");
    drop(reset);
    let error = reset_server.read(&mut [0; 1]).expect_err("the reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    rig.assert_books(2);
}

#[test]
fn a_tunnel_through_a_stopped_worker_lives_on_in_its_replacement() {
    let rig = Rig::start(&[]);
    let (mut client, mut server) = rig.tunnel();
    rig.wait_for_escrow(1);
    let (_, worker) = rig.program.serving_now();
    send(worker, Signal::SIGSTOP);
    until("the worker stands still", || proc::state(worker) == Some('T'));
    client.write_all(b"are you there").expect("the kernel takes it");
    let mut heard = [0; 13];
    server.read_exact(&mut heard).expect("in the replacement");
    assert_eq!(&heard, b"are you there");
    assert!(!proc::is_alive(worker), "it has only one owner");
    server.write_all(b"yes").expect("send");
    let mut answer = [0; 3];
    client.read_exact(&mut answer).expect("the answer");
    drop((client, server));
    rig.assert_books(1);
}

#[test]
fn without_escrow_a_crash_takes_tunnels_with_it_and_says_so() {
    let rig = Rig::start(&["--crash-escrow", "off"]);
    let (mut client, mut server) = rig.tunnel();
    client.write_all(b"x").expect("send");
    server.read_exact(&mut [0; 1]).expect("it is there");
    rig.kill_worker();
    client::assert_ended(&mut client);
    eventually("it counts as crashed", || {
        let crash = rig.stat("baton.connections.ended.crash");
        if crash == 1 { Ok(()) } else { Err(format!("{crash}")) }
    });
}

#[test]
fn idle_connections_outlive_five_killed_workers() {
    /// Connections between two requests.
    const CLIENTS: usize = 500;
    let lab = Lab::new();
    let program = lab.start_with(&["--crash-escrow", "idle", "--probation-s", "0"]);
    let rig = Rig {
        server: TcpListener::bind("127.0.0.1:0").expect("not used"),
        tcp: lab.config.tcp,
        admin: lab.config.admin,
        program,
    };
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
        let response = client::receive(stream).expect("a response");
        assert_eq!(response.status, 200);
    };
    let connect = |_| {
        let mut stream = client::connect(lab.config.http).expect("a client");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        ask(&mut stream);
        stream
    };
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
    for _ in 0..5 {
        rig.wait_for_escrow(CLIENTS as u64);
        // The last one says that it is idle just after its response has left.
        pause(Duration::from_millis(100));
        let before = now();
        rig.kill_worker();
        for stream in &mut clients {
            ask(stream);
        }
        eprintln!("{CLIENTS} clients were served {:?} after the kill", before.elapsed());
    }
    drop(clients);
    rig.assert_books(CLIENTS as u64);
    rig.wait_for_escrow(0);
}

#[test]
fn a_request_in_progress_ends_with_its_worker_and_counts_as_crashed() {
    let lab = Lab::new();
    let program = lab.start_with(&["--crash-escrow", "idle", "--probation-s", "0"]);
    let rig = Rig {
        server: TcpListener::bind("127.0.0.1:0").expect("not used"),
        tcp: lab.config.tcp,
        admin: lab.config.admin,
        program,
    };
    let mut busy = client::connect(lab.config.http).expect("a client");
    busy.write_all(b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
    client::receive(&mut busy).expect("a response");
    rig.wait_for_escrow(1);
    // Half a request is in the worker.
    let read = || rig.stat("http.ingress_http.downstream_cx_rx_bytes_total");
    let before = read();
    busy.write_all(b"GET /echo/2/10 HTTP/1.1\r\n").expect("send");
    until("the worker has it", || read() > before);
    rig.kill_worker();
    client::assert_ended(&mut busy);
    eventually("it counts as crashed", || {
        let crash = rig.stat("baton.connections.ended.crash");
        if crash == 1 { Ok(()) } else { Err(format!("{crash}")) }
    });
    rig.wait_for_escrow(0);
}

#[test]
fn a_connection_in_escrow_moves_with_a_reload_and_then_outlives_a_crash() {
    let rig = Rig::start(&["--crash-escrow", "idle"]);
    let (mut client, mut server) = rig.tunnel();
    let mut talk = || {
        send_all(&mut client, &mut server, b"ping");
        send_all(&mut server, &mut client, b"pong");
    };
    rig.wait_for_escrow(1);
    for _ in 0..3 {
        rig.program.reload();
        talk();
        rig.program.wait_until_alone();
        talk();
        rig.kill_worker();
        talk();
        rig.wait_for_escrow(1);
    }
    drop((client, server));
    rig.wait_for_escrow(0);
    rig.assert_books(1);
}

#[test]
fn another_supervisor_has_copies_too_after_a_crash_or_an_upgrade() {
    let lab = Lab::new();
    let program = lab.start_with(&["--crash-escrow", "idle", "--probation-s", "0"]);
    let mut rig = Rig {
        server: TcpListener::bind("127.0.0.1:0").expect("not used"),
        tcp: lab.config.tcp,
        admin: lab.config.admin,
        program,
    };
    let mut tunnel = client::connect(rig.tcp).expect("a client");
    tunnel.write_all(b"e").expect("ask for the echo");
    let mut idle = client::connect(lab.config.http).expect("a client");
    for stream in [&tunnel, &idle] {
        stream.set_read_timeout(Some(SOON)).expect("a limit");
    }
    let mut talk = || {
        tunnel.write_all(b"ping").expect("send");
        tunnel.read_exact(&mut [0; 4]).expect("the echo");
        idle.write_all(b"GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
        assert_eq!(client::receive(&mut idle).expect("a response").status, 200);
    };
    talk();
    rig.wait_for_escrow(2);
    for upgrades in [false, true, false] {
        if upgrades {
            let output = rig.program.command(&["upgrade"]);
            assert!(output.status.success(), "{output:?}");
            rig.program.wait_until_alone();
        } else {
            rig.program.kill_supervisor();
            // What is in escrow is not lost by being used meanwhile.
            talk();
            rig.program.launch_again();
            rig.program.wait_until_serving();
        }
        rig.wait_for_escrow(2);
        talk();
        rig.kill_worker();
        talk();
        rig.wait_for_escrow(2);
    }
    drop((tunnel, idle));
    rig.wait_for_escrow(0);
}

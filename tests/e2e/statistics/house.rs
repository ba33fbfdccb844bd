//! A program with many small limits, and servers behind it that do what their path says.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::harness::eventually::{SOON, eventually, pause};
use crate::harness::lab::free_address;
use crate::harness::program::send;
use crate::harness::{Program, client};

/// The configuration. Marks between `@` are replaced.
const TEMPLATE: &str = include_str!("house.yaml");

/// Longer than what the kernel and the proxy keep of it.
const MUCH: usize = 16 * 1024 * 1024;

/// The program and where it listens.
pub struct House {
    pub program: Program,
    pub admin: SocketAddr,
    http: SocketAddr,
    limits: SocketAddr,
    pub nobody: SocketAddr,
    pub full: SocketAddr,
    leaving: SocketAddr,
    patient: SocketAddr,
    tcp: SocketAddr,
    pub tcp_idle: SocketAddr,
    pub tcp_old: SocketAddr,
    pub tcp_dead: SocketAddr,
    slow: Arc<Gate>,
    /// A socket that accepts nothing, with a full queue.
    _mute: (OwnedFd, Vec<TcpStream>),
}

impl House {
    /// Starts it with more arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let (mute, address, queue) = mute();
        let slow = Arc::new(Gate::default());
        let up = serve(&slow);
        let marks = [("up", up), ("mute", address), ("dead", free_address())];
        let text = marks.iter().fold(TEMPLATE.to_owned(), |text, (mark, address)| {
            text.replace(&format!("@{mark}@"), &address.port().to_string())
        });
        let usual = ["--concurrency", "1", "--admin-allow-mutations", "--warm-timeout-s", "1"];
        let program = Program::start(&text, &[&usual[..], arguments].concat());
        let log = program.log();
        let at = |listener: &str| {
            let line = format!("listening listener=\"{listener}\" address=tcp://");
            let address = log.split(&line).nth(1).and_then(|rest| rest.split(' ').next());
            address.and_then(|text| text.parse().ok()).expect("the log says where it listens")
        };
        Self {
            admin: at("admin"),
            http: at("http"),
            limits: at("limits"),
            nobody: at("nobody"),
            full: at("full"),
            leaving: at("leaving"),
            patient: at("patient"),
            tcp: at("tcp"),
            tcp_idle: at("tcp_idle"),
            tcp_old: at("tcp_old"),
            tcp_dead: at("tcp_dead"),
            program,
            slow,
            _mute: (mute, queue),
        }
    }

    /// A connection that said something.
    pub fn send(&self, text: &str) -> Vec<TcpStream> {
        vec![write(self.http, text)]
    }

    /// A request whose response is not waited for.
    pub fn begin(&self, path: &str) -> TcpStream {
        write(self.http, &format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"))
    }

    /// A request and its response.
    pub fn get(&self, path: &str, status: u16) -> Vec<TcpStream> {
        let mut stream = self.begin(path);
        assert_eq!(client::receive(&mut stream).expect("a response").status, status, "{path}");
        vec![stream]
    }

    /// A response that is cut.
    pub fn get_half(&self, path: &str) -> Vec<TcpStream> {
        let mut stream = self.begin(path);
        drop(stream.read_to_end(&mut Vec::new()));
        vec![stream]
    }

    /// A request that reached the proxy, and a reset.
    pub fn reset(&self, path: &str) -> Vec<TcpStream> {
        let stream = self.begin(path);
        let before = self.active();
        eventually("the request is there", || {
            if self.active() > 0 { Ok(()) } else { Err(before.to_string()) }
        });
        reset_on_close(&stream);
        Vec::new()
    }

    fn active(&self) -> u64 {
        let text = client::get(self.admin, "/stats?filter=http.h.downstream_rq_active").body;
        text.trim().rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// A pooled connection that its endpoint ends at its second request.
    pub fn use_stale(&self) -> Vec<TcpStream> {
        let mut stream = self.begin("/stale");
        client::receive(&mut stream).expect("the first response");
        stream.write_all(b"GET /once HTTP/1.1\r\nhost: a\r\n\r\n").expect("a request");
        assert_eq!(client::receive(&mut stream).expect("the second response").status, 200);
        vec![stream]
    }

    /// More than fits anywhere, read when the proxy has stopped reading it.
    pub fn read_late(&self) -> Vec<TcpStream> {
        const PAUSED: &str = "upstream_flow_control_paused_reading_total";
        let before = self.count(PAUSED);
        let mut stream = self.begin("/much");
        self.wait_beyond(before, PAUSED);
        let mut piece = vec![0; 64 * 1024];
        let mut read = 0;
        while read < MUCH {
            let count = stream.read(&mut piece).expect("the rest of the response");
            assert!(count > 0, "the response ends after {read} bytes");
            read += count;
        }
        vec![stream]
    }

    /// The sum of all statistics whose name has this in it.
    fn count(&self, name: &str) -> u64 {
        let text = client::get(self.admin, &format!("/stats?filter={name}&usedonly")).body;
        let values = text.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.sum()
    }

    fn wait_for(&self, name: &str) {
        self.wait_beyond(0, name);
    }

    fn wait_beyond(&self, before: u64, name: &str) {
        eventually(name, || {
            let now = self.count(name);
            if now > before { Ok(()) } else { Err(format!("it is {now} as before")) }
        });
    }

    /// More than fits anywhere, to a server that reads it when the proxy has stopped reading it.
    pub fn send_much(&self) -> Vec<TcpStream> {
        const PAUSED: &str = "downstream_flow_control_paused_reading_total";
        let before = self.count(PAUSED);
        let head = format!("POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: {MUCH}\r\n\r\n");
        let mut stream = write(self.patient, &head);
        let mut sending = stream.try_clone().expect("another descriptor");
        let sender = thread::spawn(move || sending.write_all(&vec![b'x'; MUCH]));
        self.wait_beyond(before, PAUSED);
        self.slow.open();
        sender.join().expect("a thread that ends").expect("the body");
        assert_eq!(client::receive(&mut stream).expect("a response").status, 200);
        vec![stream]
    }

    /// A response that is never read; its route allows a short pause.
    pub fn never_read(&self) -> Vec<TcpStream> {
        vec![self.begin("/short")]
    }

    /// A tunnel.
    pub fn upgrade(&self) -> Vec<TcpStream> {
        let head =
            "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let mut stream = write(self.http, head);
        // No body follows it, and no end.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a response");
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        vec![stream]
    }

    /// A path that is said in another way.
    pub fn redirected(&self) -> Vec<TcpStream> {
        let mut stream = write(self.limits, "GET /a%2Fb HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client::receive(&mut stream).expect("a redirect").status, 307);
        vec![stream]
    }

    /// A connection of the listener with limits that does nothing.
    pub fn idle(&self) -> Vec<TcpStream> {
        open(self.limits)
    }

    /// A connection that is used for longer than it may be.
    pub fn old(&self) -> Vec<TcpStream> {
        let mut stream = write(self.limits, "GET /slowly HTTP/1.1\r\nhost: a\r\n\r\n");
        client::receive(&mut stream).expect("a response");
        vec![stream]
    }

    /// Two requests, which are one too many.
    pub fn many(&self) -> Vec<TcpStream> {
        let mut stream = write(self.limits, &"GET /ok HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2));
        client::receive(&mut stream).expect("a response");
        vec![stream]
    }

    /// More clients than all listeners may have.
    pub fn too_many(&self) -> Vec<TcpStream> {
        (0..41).map(|_| client::connect(self.http).expect("the kernel accepts")).collect()
    }

    /// A new generation, while a connection of the old one waits for a response and gets it.
    pub fn reload(&self) -> Vec<TcpStream> {
        let mut waits = self.begin("/hang");
        let mut ends = self.begin("/slowly");
        self.program.reload();
        client::receive(&mut ends).expect("a response of the old generation");
        waits.flush().expect("it is open");
        vec![waits, ends]
    }

    /// The name of an endpoint gets an address.
    pub fn name(&self) -> Vec<TcpStream> {
        fs::write(self.program.path("hosts"), "127.0.0.1 up.invalid\n").expect("write the names");
        Vec::new()
    }

    /// A connection of each kind.
    pub fn each_kind(&self) -> Vec<TcpStream> {
        let mut all = self.upgrade();
        all.extend(say(self.tcp));
        all.push(self.begin("/hang"));
        all
    }

    /// The same, and one to an endpoint that nobody uses, over reloads until each has moved: a busy
    /// generation may refuse some.
    pub fn move_all(&self) -> Vec<TcpStream> {
        eventually("each kind has moved", || {
            let mut all = self.each_kind();
            all.extend(self.get("/ok", 200));
            self.program.reload();
            self.program.wait_until_alone();
            let text = self.own("baton.migration.moved");
            if text.lines().any(|line| line.ends_with(": 0")) { Err(text) } else { Ok(all) }
        })
    }

    fn own(&self, name: &str) -> String {
        let found = self.program.command(&["stats", name]).stdout;
        String::from_utf8_lossy(&found).trim().to_owned()
    }

    /// A connection that waits for its endpoint over a reload and ends while another one moves.
    pub fn end_busy(&self) -> Vec<TcpStream> {
        eventually("it is the one that stays", || {
            let stays = self.begin("/wait");
            self.wait_for("upstream_rq_pending_active");
            let moves = self.upgrade();
            let before = self.own("baton.migration.moved.upgraded");
            self.program.reload();
            eventually("the other one moves", || {
                let moved = self.own("baton.migration.moved.upgraded") != before;
                let older =
                    ["HANDING_OFF", "DRAINING"].map(|state| self.program.generations(state));
                let alone = older.iter().flatten().all(Vec::is_empty);
                if moved || alone { Ok(()) } else { Err(before.clone()) }
            });
            reset_on_close(&stays);
            drop(stays);
            self.program.wait_until_alone();
            let busy = self.own("baton.migration.stayed.busy");
            if busy.ends_with(": 0") { Err(busy) } else { Ok(moves) }
        })
    }

    /// A tunnel that is there for a while.
    pub fn tunnel(&self) -> Vec<TcpStream> {
        say(self.tcp)
    }

    /// A connection that waits for its endpoint, which cannot move, over a reload.
    pub fn stay(&self) -> Vec<TcpStream> {
        let stays = self.begin("/wait");
        self.wait_for("upstream_rq_pending_active");
        self.program.reload();
        vec![stays]
    }

    /// A listener that the next configuration does not have, with a connection that waits for a
    /// response and one that waits for a request.
    pub fn leave(&self) -> Vec<TcpStream> {
        let request = |path| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut waits = write(self.leaving, &request("/ok"));
        client::receive(&mut waits).expect("a response");
        let hangs = write(self.leaving, &request("/hang"));
        let text = fs::read_to_string(self.program.config_path()).expect("the configuration");
        let (before, rest) = text.split_once("  - name: leaving\n").expect("the listener");
        let (_, after) = rest.split_once("  - name: tcp\n").expect("the next listener");
        self.program.write_config(&format!("{before}  - name: tcp\n{after}"));
        self.program.reload();
        eventually("it is refused by the new generation", || {
            let thawed = self.own("baton.migration.thawed");
            if thawed.ends_with(": 0") { Err(thawed) } else { Ok(()) }
        });
        reset_on_close(&hangs);
        drop(hangs);
        eventually("the last response", || {
            waits.write_all(request("/ok").as_bytes()).expect("a request");
            let response = client::receive(&mut waits).expect("a response");
            match response.header("connection") {
                Some("close") => Ok(()),
                other => Err(format!("connection: {other:?}")),
            }
        });
        vec![waits]
    }

    /// A configuration that cannot be used.
    pub fn spoil(&self) -> Vec<TcpStream> {
        let text = fs::read_to_string(self.program.config_path()).expect("the configuration");
        self.program.write_config("no configuration");
        assert_ne!(self.program.reload_with(&[]).0, 0);
        self.program.write_config(&text);
        Vec::new()
    }

    /// A worker that is killed with a connection.
    pub fn kill(&self) -> Vec<TcpStream> {
        let lost = self.begin("/hang");
        self.wait_for("downstream_rq_active");
        let (dead, process) = self.program.serving_now();
        send(process, Signal::SIGKILL);
        eventually("another generation serves", || match self.program.serving()? {
            Some((generation, _)) if generation > dead => Ok(()),
            other => Err(format!("{other:?} serves")),
        });
        vec![lost]
    }

    /// The health check fails.
    pub fn fail_health(&self) -> Vec<TcpStream> {
        assert_eq!(client::post(self.admin, "/healthcheck/fail").status, 200);
        Vec::new()
    }
}

fn write(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = client::connect(address).expect("the proxy accepts");
    stream.write_all(text.as_bytes()).expect("the proxy reads");
    stream
}

/// A connection that says nothing.
pub fn open(address: SocketAddr) -> Vec<TcpStream> {
    vec![client::connect(address).expect("the kernel accepts")]
}

/// A tunnel through which something went both ways.
pub fn say(address: SocketAddr) -> Vec<TcpStream> {
    let mut stream = write(address, "GET /ok HTTP/1.1\r\nhost: a\r\n\r\n");
    client::receive(&mut stream).expect("an answer");
    vec![stream]
}

/// Closing it will be a reset.
fn reset_on_close(stream: &TcpStream) {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &now)
        .expect("a socket");
}

/// A socket to which connects hang, because its queue is full.
fn mute() -> (OwnedFd, SocketAddr, Vec<TcpStream>) {
    let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .expect("a socket");
    bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
    listen(&listener, Backlog::new(0).expect("a backlog")).expect("a listener");
    let address: SockaddrIn = getsockname(listener.as_raw_fd()).expect("its address");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    let patience = Duration::from_millis(200);
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
        queue.push(stream);
    }
    (listener, address, queue)
}

/// What an endpoint waits for before it reads a body.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().expect("nobody panics with it") = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock().expect("nobody panics with it");
        let passed = self.opened.wait_timeout_while(is_open, SOON, |is_open| !*is_open);
        drop(passed.expect("nobody panics with it"));
    }
}

/// Servers that do what the path of a request says.
fn serve(slow: &Arc<Gate>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    let slow = Arc::clone(slow);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let slow = Arc::clone(&slow);
            thread::spawn(move || while answer(&stream, &slow).is_some() {});
        }
    });
    address
}

/// One answer; `None` at the end of the connection.
fn answer(mut stream: &TcpStream, slow: &Gate) -> Option<()> {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        head.extend_from_slice(piece.get(..count)?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1)?;
    let answer = match path {
        "/end" => return None,
        "/close" => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        "/bad" => "this is no response\r\n\r\n",
        "/half" => "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        "/early" | "/busy" => "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n",
        "/named" => "HTTP/1.1 413 Too Large\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
        "/upgrade" => "HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        _ => OK,
    };
    match path {
        "/hang" | "/late" | "/full" | "/wait" => {
            // Until the proxy gives up.
            drop(stream.read_to_end(&mut Vec::new()));
            return None;
        }
        "/much" | "/short" => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n");
            stream.write_all(head.as_bytes()).ok()?;
            return stream.write_all(&vec![b'x'; MUCH]).ok();
        }
        "/slowly" => pause(Duration::from_millis(300)),
        "/slow" => {
            slow.pass();
            let mut left = MUCH + text.find("\r\n\r\n")? + 4 - head.len();
            while left > 0 {
                left -= stream.read(&mut piece).ok().filter(|count| *count > 0)?.min(left);
            }
        }
        _ => {}
    }
    stream.write_all(answer.as_bytes()).ok()?;
    match path {
        "/half" | "/close" => None,
        "/stale" => {
            drop(stream.read(&mut piece));
            None
        }
        "/early" | "/bad" | "/upgrade" => {
            drop(stream.read_to_end(&mut Vec::new()));
            None
        }
        _ => Some(()),
    }
}

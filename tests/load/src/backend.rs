//! The server behind the proxy: HTTP/1 and WebSocket on one port, TCP on another, one thread.
//!
//! - HTTP: a path with `/bytes/N` is answered by N bytes, a body by the number of its bytes, an
//!   upgrade on any path by 101, after which every message comes back.
//! - TCP: the first byte decides. `e`: it and all others come back. `s`: bytes of [`crate::pattern`]
//!   are taken, and their number is the answer to the end. `g`: such bytes are sent until the other
//!   side closes.

mod http;
mod raw;

use crate::options::BackendOptions;
use crate::pattern::Pattern;
use crate::poll::{Interest, Poll};
use nix::sys::epoll::EpollTimeout;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;

/// Connections that may wait to be accepted: more than any generator opens at once.
const BACKLOG: i32 = 4096;
/// A read takes up to this many bytes.
const BUFFER_BYTES: usize = 256 * 1024;
/// Answers kept ready; more sizes than any run asks for.
const PAGES_MAX: usize = 1024;
const HTTP: usize = 0;
const TCP: usize = 1;
const STDIN: usize = 2;
/// Tokens below are not of connections.
const RESERVED: usize = 3;

/// Where a backend listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// HTTP and WebSocket.
    pub(crate) http: SocketAddr,
    /// TCP.
    pub(crate) tcp: SocketAddr,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    buffer: Box<[u8]>,
    pattern: Pattern,
    pages: HashMap<usize, Rc<[u8]>>,
    counts: HashMap<usize, Rc<[u8]>>,
}

impl Shared {
    /// The answer with a body of this many bytes.
    fn page(&mut self, size: usize) -> Rc<[u8]> {
        kept(&mut self.pages, size, || http::answer(&vec![b'x'; size]))
    }

    /// The answer to a body of this many bytes.
    fn count(&mut self, size: usize) -> Rc<[u8]> {
        kept(&mut self.counts, size, || http::answer(size.to_string().as_bytes()))
    }
}

fn kept(
    answers: &mut HashMap<usize, Rc<[u8]>>,
    size: usize,
    make: impl FnOnce() -> Rc<[u8]>,
) -> Rc<[u8]> {
    if let Some(answer) = answers.get(&size) {
        return Rc::clone(answer);
    }
    if answers.len() >= PAGES_MAX {
        answers.clear();
    }
    let answer = make();
    answers.insert(size, Rc::clone(&answer));
    answer
}

/// What a connection waits for next, or that it is over.
type Next = io::Result<Option<Interest>>;

#[derive(Debug)]
enum Peer {
    Http(http::Peer),
    Raw(raw::Peer),
}

impl Peer {
    fn ready(&mut self, shared: &mut Shared) -> Next {
        match self {
            Self::Http(peer) => peer.ready(shared),
            Self::Raw(peer) => peer.ready(shared),
        }
    }

    fn stream(&self) -> &TcpStream {
        match self {
            Self::Http(peer) => &peer.stream,
            Self::Raw(peer) => &peer.stream,
        }
    }
}

/// Serves until stdin is closed.
pub(crate) fn run(options: &BackendOptions) -> ExitCode {
    let backend = Backend::new(options.http_port, options.tcp_port);
    let ports = backend.ports();
    println!("{}", serde_json::json!({ "http": ports.http.port(), "tcp": ports.tcp.port() }));
    // A terminal or a pipe can be waited for; a file cannot, and then only a signal ends this.
    drop(backend.poll.add(io::stdin(), STDIN, Interest::Read));
    backend.serve();
    ExitCode::SUCCESS
}

/// A backend for the tests of this package; it ends with the process.
#[cfg(test)]
pub(crate) fn start_thread() -> Ports {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let backend = Backend::new(0, 0);
        sender.send(backend.ports()).expect("the test waits");
        backend.serve();
    });
    receiver.recv().expect("a backend")
}

struct Backend {
    poll: Poll,
    http: TcpListener,
    tcp: TcpListener,
    slots: Vec<Option<(Peer, Interest)>>,
    free: Vec<usize>,
    shared: Shared,
}

impl Backend {
    fn new(http_port: u16, tcp_port: u16) -> Self {
        let backend = Self {
            poll: Poll::new(),
            http: listen(http_port).expect("a port for HTTP"),
            tcp: listen(tcp_port).expect("a port for TCP"),
            slots: Vec::new(),
            free: Vec::new(),
            shared: Shared {
                buffer: vec![0; BUFFER_BYTES].into(),
                pattern: Pattern::new(),
                pages: HashMap::new(),
                counts: HashMap::new(),
            },
        };
        backend.poll.add(&backend.http, HTTP, Interest::Read).expect("a waiting listener");
        backend.poll.add(&backend.tcp, TCP, Interest::Read).expect("a waiting listener");
        backend
    }

    fn ports(&self) -> Ports {
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound listener");
        Ports { http: address(&self.http), tcp: address(&self.tcp) }
    }

    fn serve(mut self) {
        loop {
            let count = self.poll.wait(EpollTimeout::NONE);
            for index in 0..count {
                match self.poll.token(index) {
                    HTTP => self.accept(HTTP),
                    TCP => self.accept(TCP),
                    STDIN => return,
                    token => self.handle(token - RESERVED),
                }
            }
        }
    }

    fn accept(&mut self, which: usize) {
        let listener = if which == HTTP { &self.http } else { &self.tcp };
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
                continue;
            }
            let slot = self.free.pop().unwrap_or(self.slots.len());
            if self.poll.add(&stream, slot + RESERVED, Interest::Read).is_err() {
                self.free.push(slot);
                continue;
            }
            let peer = if which == HTTP {
                Peer::Http(http::Peer::new(stream))
            } else {
                Peer::Raw(raw::Peer::new(stream))
            };
            let entry = Some((peer, Interest::Read));
            match self.slots.get_mut(slot) {
                Some(place) => *place = entry,
                None => self.slots.push(entry),
            }
        }
    }

    fn handle(&mut self, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        let Some((peer, interest)) = place else { return };
        let next = peer.ready(&mut self.shared).unwrap_or(None);
        let changed = match next {
            Some(next) if next == *interest => Ok(()),
            Some(next) => {
                *interest = next;
                self.poll.change(peer.stream(), slot + RESERVED, next)
            }
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if changed.is_err() {
            *place = None;
            self.free.push(slot);
        }
    }
}

/// A listener of this machine; port 0 is a free one.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether reading can go on later.
fn is_would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

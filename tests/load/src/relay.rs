//! The least a proxy can be: what comes on one side is written to the other, one read and one write
//! each, by one thread. It knows nothing of HTTP and keeps no books, so what it costs is what the
//! kernel costs any proxy.

use crate::backend::listen;
use crate::options::RelayOptions;
use crate::poll::{Interest, Poll};
use nix::sys::epoll::EpollTimeout;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;

/// A read takes up to this many bytes; as much as baton's.
const BUFFER_BYTES: usize = 80 * 1024;

/// Two connections that belong together have tokens that differ in the last bit. They block: a read
/// only happens when something is there, and a write may wait, as this is for requests and their
/// answers only.
struct Relay {
    poll: Poll,
    listeners: Vec<(TcpListener, SocketAddr)>,
    sockets: Vec<Option<TcpStream>>,
    free: Vec<usize>,
    closed: Vec<usize>,
    buffer: Box<[u8]>,
}

/// Relays until a signal ends it.
pub(crate) fn run(options: &RelayOptions) -> ExitCode {
    let listeners =
        options.pairs.iter().map(|(port, to)| (listen(*port).expect("a free port"), *to));
    Relay::new(listeners.collect()).serve()
}

impl Relay {
    fn new(listeners: Vec<(TcpListener, SocketAddr)>) -> Self {
        let poll = Poll::new();
        for (token, (listener, _)) in listeners.iter().enumerate() {
            poll.add(listener, token, Interest::Read).expect("a waiting listener");
        }
        let buffer = vec![0; BUFFER_BYTES].into();
        Self { poll, listeners, sockets: Vec::new(), free: Vec::new(), closed: Vec::new(), buffer }
    }

    fn serve(mut self) -> ! {
        loop {
            for index in 0..self.poll.wait(EpollTimeout::NONE) {
                let token = self.poll.token(index);
                match token.checked_sub(self.listeners.len()) {
                    None => self.accept(token),
                    Some(place) if self.pass(place).is_err() => self.close(place),
                    Some(_) => {}
                }
            }
            // Not before: an event of this turn may still name them.
            self.free.append(&mut self.closed);
        }
    }

    fn accept(&mut self, which: usize) {
        let Some((listener, to)) = self.listeners.get(which) else { return };
        while let Ok((client, _)) = listener.accept() {
            let Ok(backend) = TcpStream::connect(to) else { continue };
            let place = self.free.pop().unwrap_or(self.sockets.len());
            if place == self.sockets.len() {
                self.sockets.resize_with(place + 2, || None);
            }
            for (socket, place) in [(client, place), (backend, place + 1)] {
                let token = place + self.listeners.len();
                // A socket that cannot be waited for ends with its pair, when that ends.
                drop(socket.set_nodelay(true));
                drop(self.poll.add(&socket, token, Interest::Read));
                self.sockets[place] = Some(socket);
            }
        }
    }

    /// Reads once and writes all of it; an error is the end, too.
    fn pass(&mut self, place: usize) -> io::Result<()> {
        let Some(Some(mut from)) = self.sockets.get(place).map(Option::as_ref) else {
            return Ok(());
        };
        let count = from.read(&mut self.buffer)?;
        let Some(Some(mut to)) = self.sockets.get(place ^ 1).map(Option::as_ref) else {
            return Ok(());
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&self.buffer[..count])
    }

    fn close(&mut self, place: usize) {
        let first = place & !1;
        for place in [first, first + 1] {
            if let Some(socket) = self.sockets.get_mut(place) {
                *socket = None;
            }
        }
        self.closed.push(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::start_thread;
    use crate::engine;
    use crate::options::{Command, Options};
    use clap::Parser as _;

    #[test]
    fn requests_and_their_answers_pass() {
        let listener = listen(0).unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let to = start_thread().http;
        std::thread::spawn(move || Relay::new(vec![(listener, to)]).serve());
        let command = ["baton-load", "http", "--target", &target, "-c", "3", "-d", "0.2"];
        let Command::Http(options) = Options::parse_from(command).command else { panic!("HTTP") };
        let report = engine::run(&options.plan());
        assert_eq!(report.errors(), 0);
        let count = report.json()["requests"].as_u64().unwrap();
        assert!(count > 0, "nothing passed");
    }
}

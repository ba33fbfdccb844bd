//! The least a proxy can be: what comes on one side goes to the other, one call to take it and one to
//! pass it on, by one thread. It knows nothing of HTTP and keeps no books, so what it costs is what
//! the kernel costs any proxy.
//!
//! When a side takes no more, the rest is kept, and nothing is read for it until it has room again.
//! The end of a side is passed on as a half-close; both ends together are the end of the pair.

mod vessel;

use crate::backend::listen;
use crate::options::RelayOptions;
use crate::poll::{Interest, Poll};
use nix::sys::epoll::{EpollFlags, EpollTimeout};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use vessel::{Kind, Vessel, Vessels};

/// One of two connections that belong together.
struct Side {
    socket: TcpStream,
    interest: Interest,
    /// What came from here and the other side has not taken yet.
    held: Option<Vessel>,
    /// Nothing more comes from here.
    ended: bool,
}

/// The client and the backend.
struct Pair([Side; 2]);

struct Relay {
    poll: Poll,
    listeners: Vec<(TcpListener, SocketAddr)>,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    closed: Vec<usize>,
    vessels: Vessels,
}

/// Relays until a signal ends it.
pub(crate) fn run(options: &RelayOptions) -> ExitCode {
    let listeners =
        options.pairs.iter().map(|(port, to)| (listen(*port).expect("a free port"), *to));
    let kind = if options.splice { Kind::Splice } else { Kind::Copy };
    Relay::new(listeners.collect(), kind).serve()
}

impl Relay {
    fn new(listeners: Vec<(TcpListener, SocketAddr)>, kind: Kind) -> Self {
        let poll = Poll::new();
        for (token, (listener, _)) in listeners.iter().enumerate() {
            poll.add(listener, token, Interest::Read).expect("a waiting listener");
        }
        let vessels = Vessels::new(kind);
        let (pairs, free, closed) = (Vec::new(), Vec::new(), Vec::new());
        Self { poll, listeners, pairs, free, closed, vessels }
    }

    fn serve(mut self) -> ! {
        loop {
            for index in 0..self.poll.wait(EpollTimeout::NONE) {
                let token = self.poll.token(index);
                match token.checked_sub(self.listeners.len()) {
                    None => self.accept(token),
                    Some(place) => self.ready(place, self.poll.flags(index)),
                }
            }
            // Not before: an event of this turn may still name them.
            self.free.append(&mut self.closed);
        }
    }

    fn accept(&mut self, which: usize) {
        let Some((listener, to)) = self.listeners.get(which) else { return };
        while let Ok((client, _)) = listener.accept() {
            let number = self.free.pop().unwrap_or(self.pairs.len());
            if number == self.pairs.len() {
                self.pairs.push(None);
            }
            let first = self.listeners.len() + number * 2;
            match Pair::open(client, *to, &self.poll, first) {
                Ok(pair) => self.pairs[number] = Some(pair),
                Err(_) => self.free.push(number),
            }
        }
    }

    fn ready(&mut self, place: usize, flags: EpollFlags) {
        let number = place / 2;
        let Some(Some(pair)) = self.pairs.get_mut(number) else { return };
        let first = self.listeners.len() + number * 2;
        let done = pair.ready(place % 2, flags, &mut self.vessels);
        let is_over = done.is_err() || pair.is_over();
        if is_over || pair.update(&self.poll, first).is_err() {
            self.pairs[number] = None;
            self.closed.push(number);
        }
    }
}

impl Pair {
    /// Connects; the sides have the tokens `first` and the next.
    fn open(client: TcpStream, to: SocketAddr, poll: &Poll, first: usize) -> io::Result<Self> {
        let backend = TcpStream::connect(to)?;
        for (token, socket) in (first..).zip([&client, &backend]) {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            poll.add(socket, token, Interest::Read)?;
        }
        Ok(Self([client, backend].map(|socket| Side {
            socket,
            interest: Interest::Read,
            held: None,
            ended: false,
        })))
    }

    /// Does one thing for an event of one side. What remains is reported again.
    fn ready(&mut self, which: usize, flags: EpollFlags, vessels: &mut Vessels) -> io::Result<()> {
        let [client, backend] = &mut self.0;
        let (this, other) = if which == 0 { (client, backend) } else { (backend, client) };
        if flags.contains(EpollFlags::EPOLLERR) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if flags.contains(EpollFlags::EPOLLOUT) {
            return other.pour_held(this, vessels);
        }
        // An event from before another one of the same turn changed that.
        if !this.is_read() {
            return Ok(());
        }
        this.pass(other, vessels)
    }

    /// Waits for what the sides need now.
    fn update(&mut self, poll: &Poll, first: usize) -> io::Result<()> {
        let [client, backend] = &self.0;
        let wanted = [client.wanted(backend), backend.wanted(client)];
        for ((token, side), wanted) in (first..).zip(&mut self.0).zip(wanted) {
            if side.interest != wanted {
                side.interest = wanted;
                poll.change(&side.socket, token, wanted)?;
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.0.iter().all(Side::is_over)
    }
}

impl Side {
    /// One read and one write.
    fn pass(&mut self, to: &Self, vessels: &mut Vessels) -> io::Result<()> {
        match vessels.next.fill(&self.socket) {
            Ok(0) => self.end(to),
            Ok(_) => {
                let poured = vessels.next.pour(&to.socket);
                // After an error, too: what is left is not for others, and ends with this pair.
                if !vessels.next.is_empty() {
                    self.held = Some(vessels.lend());
                }
                poured
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn end(&mut self, to: &Self) -> io::Result<()> {
        self.ended = true;
        // Closing says the same.
        if to.is_over() { Ok(()) } else { to.socket.shutdown(Shutdown::Write) }
    }

    fn pour_held(&mut self, to: &Self, vessels: &mut Vessels) -> io::Result<()> {
        let Some(mut vessel) = self.held.take() else { return Ok(()) };
        vessel.pour(&to.socket)?;
        if vessel.is_empty() {
            vessels.take_back(vessel);
        } else {
            self.held = Some(vessel);
        }
        Ok(())
    }

    fn is_read(&self) -> bool {
        self.held.is_none() && !self.ended
    }

    fn is_over(&self) -> bool {
        self.held.is_none() && self.ended
    }

    fn wanted(&self, other: &Self) -> Interest {
        match (self.is_read(), other.held.is_some()) {
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (true, true) => Interest::Both,
            (false, false) => Interest::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::start_thread;
    use crate::options::{Command, Options};
    use crate::outcome::Outcome;
    use crate::pattern::Pattern;
    use crate::{bulk, engine};
    use clap::Parser as _;
    use socket2::SockRef;
    use std::io::{Read as _, Write as _};
    use std::thread;
    use std::time::Duration;

    const KINDS: [Kind; 2] = [Kind::Copy, Kind::Splice];

    /// A relay to there; it ends with the process.
    fn start(kind: Kind, to: SocketAddr) -> SocketAddr {
        let listener = listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || Relay::new(vec![(listener, to)], kind).serve());
        address
    }

    fn load(command: &str, target: SocketAddr, more: &[&str]) -> Outcome {
        let target = target.to_string();
        let fixed = ["baton-load", command, "--target", &target, "-d", "0.2"];
        let command = Options::parse_from(fixed.iter().chain(more)).command;
        if let Command::TcpBulk(options) = command {
            return bulk::run(&options);
        }
        let Command::Http(options) = command else { panic!("neither HTTP nor bulk") };
        engine::run(&options.plan())
    }

    #[test]
    fn requests_and_their_answers_pass() {
        let to = start_thread().http;
        for kind in KINDS {
            let relay = start(kind, to);
            for more in
                [["-c", "3", "--path", "/bytes/1024"], ["-c", "3", "--path", "/bytes/300000"]]
            {
                let outcome = load("http", relay, &more);
                assert_eq!(outcome.errors(), 0, "{kind:?} {}", outcome.json());
                assert!(outcome.exchanges > 0, "{kind:?}: nothing passed");
            }
            let outcome = load("http", relay, &["-c", "3", "--close"]);
            assert_eq!(outcome.errors(), 0, "{kind:?} {}", outcome.json());
        }
    }

    #[test]
    fn bulk_transfers_pass_both_ways_and_an_answer_follows_the_end() {
        let to = start_thread().tcp;
        for kind in KINDS {
            let outcome = load("tcp-bulk", start(kind, to), &["-c", "4"]);
            assert_eq!(
                (outcome.errors(), outcome.exchanges),
                (0, 4),
                "{kind:?} {}",
                outcome.json()
            );
        }
    }

    /// Writes until everything on the way is full; the number of bytes.
    fn fill_up(client: &mut TcpStream, pattern: &Pattern) -> u64 {
        client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut sent = 0;
        while let Ok(count) = client.write(pattern.from(sent)) {
            sent += count as u64;
        }
        client.set_write_timeout(None).unwrap();
        sent
    }

    #[test]
    fn what_a_side_does_not_take_waits_and_holds_up_nobody() {
        let pattern = Pattern::new();
        for kind in KINDS {
            let slow = TcpListener::bind("127.0.0.1:0").unwrap();
            let relay = start(kind, slow.local_addr().unwrap());
            let mut client = TcpStream::connect(relay).unwrap();
            let (mut backend, _) = slow.accept().unwrap();
            let mut sent = fill_up(&mut client, &pattern);
            // The other way is free meanwhile.
            backend.write_all(b"early").unwrap();
            let mut early = [0; 5];
            client.read_exact(&mut early).unwrap();
            let reader = thread::spawn(move || {
                let mut taken = Vec::new();
                backend.read_to_end(&mut taken).unwrap();
                backend.write_all(b"late").unwrap();
                taken
            });
            let all = sent + (16 << 20);
            while sent < all {
                sent += client.write(pattern.from(sent)).unwrap() as u64;
            }
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!((early, answer), (*b"early", b"late".to_vec()), "{kind:?}");
            let taken = reader.join().unwrap();
            assert_eq!(taken.len() as u64, sent, "{kind:?}");
            assert!(taken.chunks(251).all(|chunk| pattern.from(0).starts_with(chunk)), "{kind:?}");
        }
    }

    #[test]
    fn a_reset_of_one_side_ends_the_other() {
        for kind in KINDS {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let relay = start(kind, listener.local_addr().unwrap());
            let client = TcpStream::connect(relay).unwrap();
            let (mut backend, _) = listener.accept().unwrap();
            // Even after its own end, when nothing more is expected of it.
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(backend.read(&mut [0]).unwrap(), 0);
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            backend.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // The end came before, so only writing can tell.
            while backend.write_all(b"x").is_ok() {
                thread::yield_now();
            }
        }
    }
}

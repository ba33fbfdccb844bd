//! The load: clients that know every byte they must receive.

use std::{
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    tally::{End, Tally, Workload},
    upstream::{PART_BYTES, PART_PAUSE, PARTS},
    wire,
};
use crate::clock;

/// Clients by what they do.
const PLAN: [(Workload, usize); 6] = [
    (Workload::Fresh, 3),
    (Workload::KeepAlive, 8),
    (Workload::Upload, 2),
    (Workload::Download, 2),
    (Workload::WebSocket, 4),
    (Workload::Tunnel, 2),
];
/// All clients.
pub(super) const CLIENTS: usize = 21;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause of connect-per-request clients, so that the demo does not only measure the machine.
const FRESH_PAUSE: Duration = Duration::from_millis(3);
/// Pause between two messages on a WebSocket or a tunnel.
const MESSAGE_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two requests on a kept connection, ms.
const THINK_MS_MAX: u64 = 10;

/// Running clients.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

/// What a client has.
#[derive(Clone)]
struct Client {
    http: SocketAddr,
    tcp: SocketAddr,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    numbers: Arc<AtomicU64>,
}

impl Load {
    /// Starts all clients.
    pub(super) fn start(http: SocketAddr, tcp: SocketAddr, tally: &Arc<Tally>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = Client {
            http,
            tcp,
            tally: Arc::clone(tally),
            stop: Arc::clone(&stop),
            numbers: Arc::default(),
        };
        let clients = PLAN
            .into_iter()
            .flat_map(|(workload, count)| (0..count).map(move |_| workload))
            .map(|workload| {
                let client = client.clone();
                thread::spawn(move || client.run(workload))
            })
            .collect();
        Self { stop, clients }
    }

    /// Lets all clients finish what they do.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            drop(client.join());
        }
    }
}

impl Client {
    fn run(&self, workload: Workload) {
        while !self.is_over() {
            match workload {
                Workload::Fresh => {
                    self.one(workload, || self.request(&mut Self::connect(self.http)?).map(drop));
                    clock::pause(FRESH_PAUSE);
                }
                Workload::KeepAlive => self.keep_alive(),
                Workload::Upload => self.one(workload, || self.upload()),
                Workload::Download => self.one(workload, || self.download()),
                Workload::WebSocket => self.messages(workload, Self::web_socket),
                Workload::Tunnel => self.messages(workload, Self::tunnel),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One exchange on a connection of its own. A long one that breaks off was cut.
    fn one(&self, workload: Workload, exchange: impl FnOnce() -> io::Result<()>) {
        let started = clock::now();
        let end = match exchange() {
            Ok(()) => End::Ok(clock::now().duration_since(started)),
            Err(error) if matches!(workload, Workload::Upload | Workload::Download) => {
                End::Cut(error.to_string())
            }
            Err(error) => End::Lost(error.to_string()),
        };
        self.tally.ended(workload, end);
    }

    fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }

    /// One request; returns whether the proxy announced that it closes the connection.
    fn request(&self, stream: &mut BufReader<TcpStream>) -> io::Result<bool> {
        let path = format!("/item/{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nhost: demo\r\n\r\n")?;
        let (body, closes) = answer(stream)?;
        let text = String::from_utf8_lossy(&body);
        match text.split_once(' ') {
            Some(("blue" | "green", echoed)) if echoed == path => Ok(closes),
            _ => Err(io::Error::other(format!("wrong answer `{text}` to {path}"))),
        }
    }

    /// Requests on one connection until it is announced to close, lost, or all is over.
    fn keep_alive(&self) {
        let workload = Workload::KeepAlive;
        let mut stream = match Self::connect(self.http) {
            Ok(stream) => stream,
            Err(error) => return self.tally.ended(workload, End::Lost(error.to_string())),
        };
        while !self.is_over() {
            let started = clock::now();
            match self.request(&mut stream) {
                Ok(closes) => {
                    let time = clock::now().duration_since(started);
                    self.tally.ended(workload, End::Ok(time));
                    if closes {
                        return self.tally.announced(workload);
                    }
                    let think = u64::from(started.elapsed().subsec_nanos()) % THINK_MS_MAX;
                    clock::pause(Duration::from_millis(think));
                }
                Err(error) => return self.tally.ended(workload, End::Lost(error.to_string())),
            }
        }
    }

    fn upload(&self) -> io::Result<()> {
        let mut stream = Self::connect(self.http)?;
        let length = PARTS * PART_BYTES;
        write!(
            stream.get_mut(),
            "POST /upload HTTP/1.1\r\nhost: demo\r\ncontent-length: {length}\r\n\r\n"
        )?;
        for part in 0..PARTS {
            stream.get_mut().write_all(&wire::pattern_part(part * PART_BYTES, PART_BYTES))?;
            clock::pause(PART_PAUSE);
        }
        let (body, _) = answer(&mut stream)?;
        if body == length.to_string().as_bytes() {
            return Ok(());
        }
        Err(io::Error::other("the upstream got other bytes than were sent"))
    }

    fn download(&self) -> io::Result<()> {
        let mut stream = Self::connect(self.http)?;
        stream.get_mut().write_all(b"GET /download HTTP/1.1\r\nhost: demo\r\n\r\n")?;
        let (body, _) = answer(&mut stream)?;
        if body == wire::pattern_part(0, PARTS * PART_BYTES) {
            return Ok(());
        }
        Err(io::Error::other("other bytes came than were expected"))
    }

    /// Messages on a connection that stays open until all is over.
    fn messages(
        &self,
        workload: Workload,
        open: impl FnOnce(&Self) -> io::Result<BufReader<TcpStream>>,
    ) {
        let mut stream = match open(self) {
            Ok(stream) => stream,
            Err(error) => return self.tally.ended(workload, End::Lost(error.to_string())),
        };
        let mut number = 0_u64;
        while !self.is_over() {
            let started = clock::now();
            let message = format!("message {number}");
            match exchange(&mut stream, message.as_bytes(), workload) {
                Ok(()) => {
                    let time = clock::now().duration_since(started);
                    self.tally.ended(workload, End::Ok(time));
                }
                Err(error) => return self.tally.ended(workload, End::Cut(error.to_string())),
            }
            number += 1;
            clock::pause(MESSAGE_PAUSE);
        }
    }

    fn web_socket(&self) -> io::Result<BufReader<TcpStream>> {
        let mut stream = Self::connect(self.http)?;
        stream.get_mut().write_all(
            b"GET /ws HTTP/1.1\r\nhost: demo\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let head = wire::read_head(&mut stream)?;
        match head {
            Some(head) if head.first_line.starts_with("HTTP/1.1 101") => Ok(stream),
            head => Err(io::Error::other(format!(
                "no upgrade: {}",
                head.map_or_else(|| "the connection ended".to_owned(), |head| head.first_line)
            ))),
        }
    }

    fn tunnel(&self) -> io::Result<BufReader<TcpStream>> {
        Self::connect(self.tcp)
    }
}

/// Sends a message and expects it back.
fn exchange(
    stream: &mut BufReader<TcpStream>,
    message: &[u8],
    workload: Workload,
) -> io::Result<()> {
    let back = if workload == Workload::WebSocket {
        wire::send_frame(stream.get_mut(), message, true)?;
        wire::receive_frame(stream)?
    } else {
        stream.get_mut().write_all(message)?;
        let mut back = vec![0; message.len()];
        stream.read_exact(&mut back)?;
        back
    };
    if back == message { Ok(()) } else { Err(io::Error::other("another message came back")) }
}

/// Reads a good answer: its body, and whether the connection is announced to close.
fn answer(stream: &mut BufReader<TcpStream>) -> io::Result<(Vec<u8>, bool)> {
    let head = wire::read_head(stream)?;
    let head = head.ok_or_else(|| io::Error::other("closed without an answer"))?;
    if !head.first_line.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(format!("answered `{}`", head.first_line)));
    }
    Ok((wire::read_body(stream, head.content_length)?, head.closes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_clients_is_that_of_the_plan() {
        assert_eq!(PLAN.iter().map(|(_, count)| count).sum::<usize>(), CLIENTS);
    }
}

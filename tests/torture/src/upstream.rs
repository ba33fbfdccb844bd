//! The servers behind the proxy: HTTP/1 with echo, upload, download and WebSocket, and a TCP server.
//!
//! They never close an idle connection, so nothing a client loses is their doing.

use crate::http::find;
use crate::pattern::{Digest, Pattern};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that may wait. The usual number of 128 overflows, and the kernel counts that, when a proxy
/// connects for hundreds of requests while the machine is busy with something else.
const BACKLOG: u32 = 4096;
/// Bytes a download sends at a time.
const DOWNLOAD_PIECE: usize = 4096;
/// Pause between two pieces of a download.
pub(crate) const DOWNLOAD_PAUSE: Duration = Duration::from_millis(50);
/// Body of the answer to an upload that is not wanted.
pub(crate) const REFUSAL: &[u8] = b"too large";
/// Answer to the key that our WebSocket clients send (the example of RFC 6455).
const WEBSOCKET_ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
    connection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// The servers listen at this address, too, on the same ports.
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Ports that are tried before giving up.
const ATTEMPTS: u32 = 32;

/// Where the servers listen.
#[derive(Clone, Copy, Debug)]
pub struct Upstreams {
    /// HTTP/1.
    pub http: SocketAddr,
    /// TCP.
    pub tcp: SocketAddr,
}

/// Starts both servers on a thread of their own, which ends with the process.
pub fn start() -> Upstreams {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the upstreams");
        runtime.block_on(async move {
            let (http, more_http) = listen_twice();
            let (tcp, more_tcp) = listen_twice();
            let address = |listener: &TcpListener| listener.local_addr().expect("an address");
            send.send(Upstreams { http: address(&http), tcp: address(&tcp) }).expect("a receiver");
            tokio::spawn(accept(tcp, Kind::Tcp));
            tokio::spawn(accept(more_tcp, Kind::Tcp));
            tokio::spawn(accept(more_http, Kind::Http));
            accept(http, Kind::Http).await;
        });
    });
    receive.recv().expect("the upstreams start")
}

/// One port at two addresses: the servers can move without a client that sees it.
fn listen_twice() -> (TcpListener, TcpListener) {
    // Somebody else may have a port at the second address.
    let pair = (0..ATTEMPTS).find_map(|_| {
        let first = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port for an upstream");
        let port = first.local_addr().expect("its address").port();
        listen((SECOND, port).into()).ok().map(|second| (first, second))
    });
    pair.expect("a port that is free at both addresses")
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[derive(Clone, Copy)]
enum Kind {
    Http,
    Tcp,
}

async fn accept(listener: TcpListener, kind: Kind) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        drop(stream.set_nodelay(true));
        tokio::spawn(async move {
            // An error here is the other side going away, which its own end reports.
            drop(match kind {
                Kind::Http => http(stream).await,
                Kind::Tcp => tcp(stream).await,
            });
        });
    }
}

struct Request {
    method: String,
    path: String,
    length: u64,
    chunked: bool,
    /// The values of all lines of `x-forwarded-for`, as one list.
    forwarded: Vec<String>,
}

fn parse(head: &[u8]) -> Request {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut request = Request {
        method: first.next().unwrap_or_default().to_owned(),
        path: first.next().unwrap_or_default().to_owned(),
        length: 0,
        chunked: false,
        forwarded: Vec::new(),
    };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            request.length = value.trim().parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            request.chunked = true;
        } else if name.eq_ignore_ascii_case("x-forwarded-for") {
            request.forwarded.extend(value.split(',').map(|entry| entry.trim().to_owned()));
        }
    }
    request
}

async fn http(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = find(&buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head: Vec<u8> = buffer.drain(..end).collect();
        let request = parse(&head);
        if request.path.starts_with("/refuse/") {
            return refuse(stream).await;
        }
        let (length, digest) = read_body(&mut stream, &mut buffer, &request).await?;
        let mut parts = request.path.trim_start_matches('/').split('/');
        let kind = parts.next().unwrap_or_default();
        let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        match kind {
            "echo" => answer(&mut stream, number(), number()).await?,
            "upload" if request.method == "POST" => {
                let text = format!("{length} {digest}");
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                stream.write_all((head + &text).as_bytes()).await?;
            }
            "download" => download(&mut stream, number(), number()).await?,
            "short" => return short(stream, number(), number()).await,
            "forwarded" => {
                let text = request.forwarded.join(",");
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                stream.write_all((head + &text).as_bytes()).await?;
            }
            "ws" => {
                stream.write_all(WEBSOCKET_ANSWER.as_bytes()).await?;
                return websocket(stream, buffer).await;
            }
            _ => {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?;
            }
        }
    }
}

/// Answers before the body has come, and takes the rest of it, so that no reset destroys the answer.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let head = "HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Announces twice as much as it sends, and ends.
async fn short(mut stream: TcpStream, seed: u64, length: u64) -> io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", length * 2);
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&Pattern::new(seed).take(usize::try_from(length).unwrap_or(0))).await?;
    stream.shutdown().await
}

/// Reads the request's body; its length and its digest.
async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &Request,
) -> io::Result<(u64, String)> {
    let mut digest = Digest::new();
    if !request.chunked {
        take(stream, buffer, request.length, |bytes| digest.add(bytes)).await?;
        return Ok((request.length, digest.hex()));
    }
    let mut total = 0;
    loop {
        let at = loop {
            if let Some(at) = find(buffer, b"\r\n") {
                break at;
            }
            more(stream, buffer).await?;
        };
        let line: Vec<u8> = buffer.drain(..at + 2).collect();
        let size = u64::from_str_radix(String::from_utf8_lossy(&line).trim(), 16)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        take(stream, buffer, size, |bytes| digest.add(bytes)).await?;
        take(stream, buffer, 2, |_| ()).await?;
        total += size;
        if size == 0 {
            return Ok((total, digest.hex()));
        }
    }
}

async fn take(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    mut left: u64,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    while left > 0 {
        if buffer.is_empty() {
            more(stream, buffer).await?;
        }
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece: Vec<u8> = buffer.drain(..count).collect();
        each(&piece);
        left -= count as u64;
    }
    Ok(())
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Even seeds come with a length, odd ones in chunks, so that both framings are exercised.
async fn answer(stream: &mut TcpStream, seed: u64, length: u64) -> io::Result<()> {
    let body = Pattern::new(seed).take(usize::try_from(length).unwrap_or(0));
    let mut bytes = Vec::with_capacity(body.len() + 200);
    if seed.is_multiple_of(2) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&body);
    } else {
        bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for piece in body.chunks(300) {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    }
    stream.write_all(&bytes).await
}

/// Sends `pieces` pieces with pauses.
async fn download(stream: &mut TcpStream, seed: u64, pieces: u64) -> io::Result<()> {
    let length = pieces * DOWNLOAD_PIECE as u64;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut pattern = Pattern::new(seed);
    let mut ticks = tokio::time::interval(DOWNLOAD_PAUSE);
    for _ in 0..pieces {
        stream.write_all(&pattern.take(DOWNLOAD_PIECE)).await?;
        ticks.tick().await;
    }
    Ok(())
}

/// Answers each message with its own sequence number, then what came, unmasked as a server must. An
/// empty message is answered with the SHA-256 of everything that came before.
async fn websocket(mut stream: TcpStream, mut buffer: Vec<u8>) -> io::Result<()> {
    let mut digest = Digest::new();
    let mut sequence = 0_u64;
    loop {
        while buffer.len() < 6 {
            more(&mut stream, &mut buffer).await?;
        }
        let length = usize::from(buffer.get(1).copied().unwrap_or(0) & 0x7f);
        while buffer.len() < 6 + length {
            more(&mut stream, &mut buffer).await?;
        }
        let mut frame: Vec<u8> = buffer.drain(..6 + length).collect();
        let mut payload = frame.split_off(6);
        let mask = frame.split_off(2);
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        digest.add(&payload);
        let mut reply = sequence.to_be_bytes().to_vec();
        sequence += 1;
        if payload.is_empty() {
            reply = digest.bytes().to_vec();
        }
        reply.append(&mut payload);
        let mut message = vec![0x82, u8::try_from(reply.len()).unwrap_or(0)];
        message.append(&mut reply);
        stream.write_all(&message).await?;
    }
}

/// The first byte chooses: `e` echoes; `h` reads until the client closes its side, then answers
/// with the SHA-256 of what came and a slow stream of `pieces` (4 bytes, big endian) pieces.
async fn tcp(mut stream: TcpStream) -> io::Result<()> {
    let kind = stream.read_u8().await?;
    let mut buffer = Vec::with_capacity(65536);
    if kind == b'e' {
        loop {
            buffer.clear();
            if stream.read_buf(&mut buffer).await? == 0 {
                return stream.shutdown().await;
            }
            stream.write_all(&buffer).await?;
        }
    }
    let pieces = stream.read_u32().await?;
    let mut digest = Digest::new();
    while stream.read_buf(&mut buffer).await? > 0 {
        digest.add(&buffer);
        buffer.clear();
    }
    stream.write_all(&digest.bytes()).await?;
    let mut pattern = Pattern::new(u64::from(pieces));
    let mut ticks = tokio::time::interval(DOWNLOAD_PAUSE);
    for _ in 0..pieces {
        stream.write_all(&pattern.take(DOWNLOAD_PIECE)).await?;
        ticks.tick().await;
    }
    stream.shutdown().await
}

/// Bytes in `pieces` pieces of a download.
pub(crate) fn download_length(pieces: u64) -> u64 {
    pieces * DOWNLOAD_PIECE as u64
}

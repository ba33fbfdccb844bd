//! A small blocking HTTP client.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for one read.
const PATIENCE: Duration = Duration::from_secs(20);

/// Status and body of a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Status line and header lines.
    pub head: String,
    /// Body, chunks joined.
    pub body: String,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A connection with a limit for every read.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends one request on a connection of its own.
pub fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<Response> {
    let mut stream = connect(address)?;
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    let text =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{length}connection: close\r\n\r\n");
    stream.write_all(text.as_bytes())?;
    receive(&mut stream)
}

/// `GET` on a connection of its own; panics without a response.
pub fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// `POST` without a body on a connection of its own; panics without a response.
pub fn post(address: SocketAddr, path: &str) -> Response {
    request(address, "POST", path).unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

/// One response, until its body ends or the other side closes.
pub fn receive(stream: &mut TcpStream) -> io::Result<Response> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(response) = parse(&bytes, false) {
            return Ok(response);
        }
        match stream.read(&mut piece)? {
            0 => return parse(&bytes, true).ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
        }
    }
}

fn parse(bytes: &[u8], ended: bool) -> Option<Response> {
    let text = String::from_utf8_lossy(bytes);
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut response = Response { status, head: head.to_owned(), body: String::new() };
    if let Some(length) = response.header("content-length").and_then(|text| text.parse().ok()) {
        rest.get(..length)?.clone_into(&mut response.body);
        return Some(response);
    }
    if response.header("transfer-encoding").is_some() {
        response.body = join_chunks(rest)?;
        return Some(response);
    }
    rest.clone_into(&mut response.body);
    ended.then_some(response)
}

fn join_chunks(mut text: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size + 2..)?;
    }
}

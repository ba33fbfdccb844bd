//! A small blocking HTTP client.

use super::eventually::SOON;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

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
    let stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits for the end of a connection, which may be a reset. Silence is not an end.
pub fn assert_ended(stream: &mut TcpStream) {
    match stream.read(&mut [0; 1]) {
        Ok(0) => {}
        Ok(_) => panic!("a byte came in place of the end"),
        Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it does not end"),
    }
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

/// Bodies may be any bytes, and are counted as such; what is no text is replaced in the result.
fn parse(bytes: &[u8], ended: bool) -> Option<Response> {
    let (head, rest) = split(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut response = Response { status, head, body: String::new() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(length) = response.header("content-length").and_then(|text| text.parse().ok()) {
        response.body = text(rest.get(..length)?);
        return Some(response);
    }
    if response.header("transfer-encoding").is_some() {
        response.body = text(&join_chunks(rest)?);
        return Some(response);
    }
    response.body = text(rest);
    ended.then_some(response)
}

fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let (size, data) = split(rest, b"\r\n")?;
        let size = std::str::from_utf8(size).ok()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(data.get(..size)?);
        rest = data.get(size + 2..)?;
    }
}

/// What is before and behind the first `mark`.
fn split<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

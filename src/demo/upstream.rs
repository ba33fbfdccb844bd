//! The servers behind the proxy: a thread for each connection, answers that clients can check.

use std::{
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use super::wire::{self, Head};
use crate::clock;

/// Parts of a long download.
pub(super) const PARTS: usize = 60;
/// Bytes of a part.
pub(super) const PART_BYTES: usize = 4096;
/// Pause between two parts.
pub(super) const PART_PAUSE: Duration = Duration::from_millis(40);

/// Starts an HTTP server that puts its name into answers.
pub(super) fn http(name: &'static str) -> io::Result<SocketAddr> {
    serve(move |stream| {
        // The client or the proxy closed; the clients judge whether that was right.
        drop(http_connection(name, stream));
    })
}

/// Starts a TCP server that sends back what it gets.
pub(super) fn echo() -> io::Result<SocketAddr> {
    serve(|mut stream| {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let Some(data) = buffer.get(..count) else { return };
            if stream.write_all(data).is_err() {
                return;
            }
        }
    })
}

fn serve(handle: impl Fn(TcpStream) + Clone + Send + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            thread::spawn(move || handle(stream));
        }
    });
    Ok(address)
}

fn http_connection(name: &str, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(head) = wire::read_head(&mut reader)? {
        let path = head.first_line.split(' ').nth(1).unwrap_or_default().to_owned();
        if head.upgrades {
            return web_socket(&mut reader, &mut stream);
        }
        if path.starts_with("/upload") {
            upload(&mut reader, &mut stream, &head)?;
        } else if path.starts_with("/download") {
            download(&mut stream)?;
        } else {
            let body = format!("{name} {path}");
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        }
    }
    Ok(())
}

/// Answers with the number of bytes that are right.
fn upload(reader: &mut impl Read, stream: &mut TcpStream, head: &Head) -> io::Result<()> {
    let body = wire::read_body(reader, head.content_length)?;
    let right = (0..).zip(&body).filter(|(at, byte)| wire::pattern(*at) == **byte).count();
    let answer = right.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())
}

fn download(stream: &mut TcpStream) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", PARTS * PART_BYTES)?;
    for part in 0..PARTS {
        stream.write_all(&wire::pattern_part(part * PART_BYTES, PART_BYTES))?;
        clock::pause(PART_PAUSE);
    }
    Ok(())
}

fn web_socket(reader: &mut impl Read, stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    )?;
    loop {
        let text = wire::receive_frame(reader)?;
        wire::send_frame(stream, &text, false)?;
    }
}

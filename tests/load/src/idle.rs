//! Holds idle keep-alive connections, each after one request, until stdin is closed.
//!
//! One after the other, so that the proxy needs one connection to the backend only and the memory
//! that is measured is that of the idle ones.

use crate::clock::now;
use crate::exchange::{Exchange, Progress, Receiver, Request};
use crate::options::IdleOptions;
use crate::outcome::{Failure, Outcome};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer must come within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens, says so with a line of JSON, holds, and counts those that are still open at the end.
pub(crate) fn run(options: &IdleOptions) -> Outcome {
    let mut outcome = Outcome::default();
    let bytes = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", options.path).into_bytes();
    let exchange = Exchange::Http(vec![Request { bytes, length: None }]);
    let mut held = Vec::with_capacity(options.connections);
    let begin = now();
    for _ in 0..options.connections {
        outcome.connections += 1;
        match open(options.target, &exchange) {
            Ok(stream) => held.push(stream),
            Err(failure) => outcome.fail(failure),
        }
    }
    println!("{}", serde_json::json!({ "ready": held.len(), "errors": outcome.errors() }));
    // Whoever started this closes stdin when it has seen enough; what it writes does not matter.
    drop(io::copy(&mut io::stdin(), &mut io::sink()));
    for stream in held {
        if is_open(&stream) {
            outcome.exchanges += 1;
        } else {
            outcome.fail(Failure::Cut);
        }
    }
    outcome.time = begin.elapsed();
    outcome
}

fn open(target: SocketAddr, exchange: &Exchange) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(target).map_err(|_| Failure::Connect)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|_| Failure::Connect)?;
    stream.write_all(exchange.request(0)).map_err(|_| Failure::Cut)?;
    let mut receiver = Receiver::default();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).map_err(|_| Failure::Unanswered)?;
        let bytes = buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(Failure::Cut)?;
        match receiver.take(exchange, 0, bytes) {
            Progress::More => {}
            Progress::Done => return Ok(stream),
            Progress::DoneLast => return Err(Failure::Cut),
            Progress::Failed(failure) => return Err(failure),
        }
    }
}

/// Whether nothing has come since the answer, neither bytes nor the end.
fn is_open(stream: &TcpStream) -> bool {
    let quiet = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    matches!(quiet, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

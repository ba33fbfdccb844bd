//! Clients whose exchanges last for seconds: uploads, downloads, `WebSocket`s, tunnels.

use super::Context;
use crate::http::{Connection, Fail};
use crate::pattern::{DIGEST, Digest, Pattern};
use crate::tally::{Class, Workload};
use crate::upstream::{DOWNLOAD_PAUSE, download_length};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Bytes an upload sends at a time.
const UPLOAD_PIECE: usize = 512;
/// Pause between two pieces of an upload.
const UPLOAD_PAUSE: Duration = Duration::from_millis(100);
/// Payload of a WebSocket message: the sequence number and a pattern. With the server's number before
/// it, it is short enough for one byte of length.
const MESSAGE: usize = 112;
/// Bytes of a sequence number.
const SEQUENCE: usize = 8;
/// Pause between two messages.
const MESSAGE_PAUSE: Duration = Duration::from_millis(25);
/// Bytes a tunnel sends at a time.
const TUNNEL_PIECE: usize = 16 * 1024;

/// How an upload is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Upload {
    /// With `content-length`.
    Length,
    /// With `transfer-encoding: chunked`.
    Chunked,
}

/// Counts a long exchange. One that failed after it began was cut.
pub(super) fn count(context: &Context, workload: Workload, result: Result<(), Fail>) {
    match result {
        Ok(()) => context.tally.add(workload, Class::Ok),
        Err(fail) => {
            let class = match fail {
                Fail::Wrong(_) => Class::WrongBytes,
                Fail::Status(_) => Class::LostOnFresh,
                Fail::Closed(_) | Fail::Partial(_) => Class::Cut,
            };
            context.tally.fail(workload, class, &fail.seen());
        }
    }
}

/// So many pauses are as long as a long exchange.
pub(super) fn steps(context: &Context, pause: Duration) -> u64 {
    u64::try_from(context.long.as_millis() / pause.as_millis()).unwrap_or(1)
}

/// The pause between two messages; false when the exchange has lasted long enough. On a machine that
/// is too slow for all steps it must not outlive every limit.
async fn pause_before(end: Instant) -> bool {
    tokio::time::sleep(MESSAGE_PAUSE).await;
    Instant::now() < end
}

/// W5.
pub(super) async fn upload(context: &Context, kind: Upload) {
    let workload = match kind {
        Upload::Length => Workload::UploadLength,
        Upload::Chunked => Workload::UploadChunked,
    };
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let result = send_upload(context, &mut connection, kind).await;
    count(context, workload, connection.kept_its_address(result));
}

async fn send_upload(
    context: &Context,
    connection: &mut Connection,
    kind: Upload,
) -> Result<(), Fail> {
    let pieces = steps(context, UPLOAD_PAUSE);
    let length = pieces * UPLOAD_PIECE as u64;
    let framing = match kind {
        Upload::Length => format!("content-length: {length}"),
        Upload::Chunked => "transfer-encoding: chunked".to_owned(),
    };
    let head = format!("POST /upload HTTP/1.1\r\nhost: torture\r\n{framing}\r\n\r\n");
    connection.send(head.as_bytes()).await?;
    let mut pattern = Pattern::new(context.next_seed());
    let mut digest = Digest::new();
    let mut ticks = tokio::time::interval(UPLOAD_PAUSE);
    for _ in 0..pieces {
        let mut piece = pattern.take(UPLOAD_PIECE);
        digest.add(&piece);
        if kind == Upload::Chunked {
            let mut chunk = format!("{UPLOAD_PIECE:x}\r\n").into_bytes();
            chunk.append(&mut piece);
            chunk.extend_from_slice(b"\r\n");
            piece = chunk;
        }
        connection.send(&piece).await?;
        ticks.tick().await;
    }
    if kind == Upload::Chunked {
        connection.send(b"0\r\n\r\n").await?;
    }
    let head = connection.head().await?;
    if head.status != 200 {
        return Err(Fail::Status(head.status));
    }
    let mut answer = Vec::new();
    connection
        .body(&head, |bytes| {
            answer.extend_from_slice(bytes);
            true
        })
        .await?;
    let expected = format!("{length} {}", digest.hex());
    if answer == expected.as_bytes() {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&answer);
    Err(Fail::Wrong(format!("the upstream received `{answer}` instead of `{expected}`")))
}

/// W6.
pub(super) async fn download(context: &Context) {
    let workload = Workload::Download;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let result = receive_download(context, &mut connection).await;
    count(context, workload, connection.kept_its_address(result));
}

async fn receive_download(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    let pieces = steps(context, DOWNLOAD_PAUSE);
    let seed = context.next_seed();
    let request = format!("GET /download/{seed}/{pieces} HTTP/1.1\r\nhost: torture\r\n\r\n");
    connection.send(request.as_bytes()).await?;
    let head = connection.head().await?;
    if head.status != 200 {
        return Err(Fail::Status(head.status));
    }
    let mut pattern = Pattern::new(seed);
    let mut received = 0;
    connection
        .body(&head, |bytes| {
            received += bytes.len() as u64;
            pattern.matches(bytes)
        })
        .await?;
    if received == download_length(pieces) {
        return Ok(());
    }
    Err(Fail::Wrong(format!("{received} bytes instead of {}", download_length(pieces))))
}

/// W7.
pub(super) async fn websocket(context: &Context) {
    let workload = Workload::WebSocket;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let result = exchange_messages(context, &mut connection).await;
    count(context, workload, connection.kept_its_address(result));
}

async fn exchange_messages(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    let request = "GET /ws HTTP/1.1\r\nhost: torture\r\nconnection: Upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    connection.send(request.as_bytes()).await?;
    let head = connection.head().await?;
    if head.status != 101 {
        return Err(Fail::Status(head.status));
    }
    let mut pattern = Pattern::new(context.next_seed());
    let mut sent = Digest::new();
    let end = Instant::now() + context.long;
    for sequence in 0..steps(context, MESSAGE_PAUSE) {
        let mut payload = sequence.to_be_bytes().to_vec();
        payload.extend(pattern.take(MESSAGE - SEQUENCE));
        sent.add(&payload);
        send_message(connection, &payload).await?;
        let reply = connection.exactly(2 + SEQUENCE + MESSAGE).await?;
        let (numbers, echoed) = reply.split_at(2 + SEQUENCE);
        if !numbers.ends_with(&sequence.to_be_bytes()) {
            return Err(Fail::Wrong(format!("the answer to message {sequence} is another one")));
        }
        if echoed != payload {
            return Err(Fail::Wrong(format!("message {sequence} came back different")));
        }
        if !pause_before(end).await {
            break;
        }
    }
    send_message(connection, &[]).await?;
    let received = connection.exactly(2 + DIGEST).await?;
    if received.ends_with(&sent.bytes()) {
        return Ok(());
    }
    Err(Fail::Wrong("the upstream received other messages".to_owned()))
}

/// One masked binary message of less than 126 bytes.
async fn send_message(connection: &mut Connection, payload: &[u8]) -> Result<(), Fail> {
    let mask = fastrand::u32(..).to_be_bytes();
    let mut frame = vec![0x82, 0x80 | u8::try_from(payload.len()).unwrap_or(0)];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    connection.send(&frame).await
}

/// W8.
pub(super) async fn tunnel(context: &Context, address: SocketAddr) {
    let workload = Workload::Tunnel;
    let Some(mut connection) = context.open(workload, address).await else { return };
    let result = echo_through(context, &mut connection).await;
    count(context, workload, connection.kept_its_address(result));
}

async fn echo_through(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    connection.send(b"e").await?;
    let mut pattern = Pattern::new(context.next_seed());
    let end = Instant::now() + context.long;
    for _ in 0..steps(context, MESSAGE_PAUSE) {
        let piece = pattern.take(TUNNEL_PIECE);
        connection.send(&piece).await?;
        if connection.exactly(TUNNEL_PIECE).await? != piece {
            return Err(Fail::Wrong("echoed bytes differ".to_owned()));
        }
        if !pause_before(end).await {
            break;
        }
    }
    connection.finish_sending().await?;
    connection.rest(<[u8]>::is_empty).await
}

/// W13.
pub(super) async fn half_closed(context: &Context, address: SocketAddr) {
    let workload = Workload::HalfClosed;
    let Some(mut connection) = context.open(workload, address).await else { return };
    let result = receive_after_close(context, &mut connection).await;
    count(context, workload, connection.kept_its_address(result));
}

async fn receive_after_close(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    let pieces = u32::try_from(steps(context, DOWNLOAD_PAUSE)).unwrap_or(1);
    let sent = Pattern::new(context.next_seed()).take(5000);
    let mut expected = Digest::new();
    expected.add(&sent);
    connection.send(b"h").await?;
    connection.send(&pieces.to_be_bytes()).await?;
    connection.send(&sent).await?;
    connection.finish_sending().await?;
    if connection.exactly(DIGEST).await? != expected.bytes() {
        return Err(Fail::Wrong("the upstream received other bytes".to_owned()));
    }
    let mut pattern = Pattern::new(u64::from(pieces));
    let mut received = 0;
    connection
        .rest(|bytes| {
            received += bytes.len() as u64;
            pattern.matches(bytes)
        })
        .await?;
    if received == download_length(u64::from(pieces)) {
        return Ok(());
    }
    Err(Fail::Partial(format!("{received} of {} bytes", download_length(u64::from(pieces)))))
}

//! Clients of seldom kinds: very slow ones, ones that are refused early, ones whose response ends early,
//! and ones behind other proxies.

use super::{Context, long};
use crate::http::{Connection, Fail};
use crate::pattern::{Digest, Pattern};
use crate::tally::Workload;
use crate::upstream::REFUSAL;
use std::time::Duration;

/// Pause between two bytes of a trickle.
const TRICKLE_PAUSE: Duration = Duration::from_millis(100);
/// Length of an upload that is refused.
const REFUSED: usize = 300_000;
/// What of it is sent before the answer is read.
const REFUSED_FIRST: usize = 1000;
/// Bytes of a response that ends in its middle. More than the buffers of a proxy take at once.
const SHORT: u64 = 1_000_000;

/// W18.
pub(super) async fn trickle(context: &Context) {
    let workload = Workload::Trickle;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let result = send_trickle(context, &mut connection).await;
    long::count(context, workload, result);
}

async fn send_trickle(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    let length = long::steps(context, TRICKLE_PAUSE);
    let head =
        format!("POST /upload HTTP/1.1\r\nhost: torture\r\ncontent-length: {length}\r\n\r\n");
    connection.send(head.as_bytes()).await?;
    let (mut pattern, mut digest) = (Pattern::new(context.next_seed()), Digest::new());
    let mut ticks = tokio::time::interval(TRICKLE_PAUSE);
    for _ in 0..length {
        let byte = pattern.take(1);
        digest.add(&byte);
        connection.send(&byte).await?;
        ticks.tick().await;
    }
    answered(connection, 200, format!("{length} {}", digest.hex()).as_bytes()).await
}

/// Receives a response of this status and body; true when it announced a close.
async fn response(connection: &mut Connection, status: u16, body: &[u8]) -> Result<bool, Fail> {
    let head = connection.head().await?;
    if head.status != status {
        return Err(Fail::Status(head.status));
    }
    let mut received = Vec::new();
    connection
        .body(&head, |bytes| {
            received.extend_from_slice(bytes);
            true
        })
        .await?;
    if received == body {
        return Ok(head.close);
    }
    Err(Fail::Wrong(format!("{:?} came", String::from_utf8_lossy(&received))))
}

async fn answered(connection: &mut Connection, status: u16, body: &[u8]) -> Result<(), Fail> {
    response(connection, status, body).await.map(|_close| ())
}

/// W19. The answer comes whole; without an announced close the connection goes on behind the body.
pub(super) async fn refused(context: &Context) {
    tokio::time::sleep(context.rest(50..300)).await;
    let workload = Workload::Refused;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let result = send_refused(context, &mut connection).await;
    long::count(context, workload, result);
}

async fn send_refused(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    let seed = context.next_seed();
    let head = format!(
        "POST /refuse/{seed} HTTP/1.1\r\nhost: torture\r\ncontent-length: {REFUSED}\r\n\r\n"
    );
    connection.send(head.as_bytes()).await?;
    let body = Pattern::new(seed).take(REFUSED);
    let (first, rest) = body.split_at(REFUSED_FIRST);
    connection.send(first).await?;
    if response(connection, 413, REFUSAL).await? {
        return Ok(());
    }
    connection.send(rest).await?;
    connection.send(b"GET /forwarded HTTP/1.1\r\nhost: torture\r\n\r\n").await?;
    let head = connection.head().await?;
    if head.status == 200 { Ok(()) } else { Err(Fail::Status(head.status)) }
}

/// W20. All bytes that the upstream sent come, then the end.
pub(super) async fn short(context: &Context) {
    tokio::time::sleep(context.rest(50..300)).await;
    let workload = Workload::Short;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let result = receive_short(context, &mut connection).await;
    long::count(context, workload, result);
}

async fn receive_short(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    let seed = context.next_seed();
    let request = format!("GET /short/{seed}/{SHORT} HTTP/1.1\r\nhost: torture\r\n\r\n");
    connection.send(request.as_bytes()).await?;
    let head = connection.head().await?;
    if head.status != 200 {
        return Err(Fail::Status(head.status));
    }
    // The upstream has ended before the first byte is read.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut expected, mut received) = (Pattern::new(seed), 0);
    let result = connection
        .body(&head, |bytes| {
            received += bytes.len() as u64;
            expected.matches(bytes)
        })
        .await;
    match result {
        Err(Fail::Partial(_)) if received == SHORT => Ok(()),
        Err(fail @ Fail::Wrong(_)) => Err(fail),
        Ok(()) | Err(_) => Err(Fail::Partial(format!("{received} of {SHORT} bytes came"))),
    }
}

/// W21. The upstream sees one list, in the order of the proxies.
pub(super) async fn forwarded(context: &Context) {
    tokio::time::sleep(context.rest(50..300)).await;
    let workload = Workload::Forwarded;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let result = see_forwarded(context, &mut connection).await;
    long::count(context, workload, result);
}

async fn see_forwarded(context: &Context, connection: &mut Connection) -> Result<(), Fail> {
    let seed = context.next_seed();
    let lines =
        [format!("198.51.100.{}, 192.0.2.1", seed % 250), format!("203.0.113.{}", seed % 250)];
    let request = format!(
        "GET /forwarded HTTP/1.1\r\nhost: torture\r\nx-forwarded-for: {}\r\nx-forwarded-for: {}\r\n\r\n",
        lines[0], lines[1]
    );
    connection.send(request.as_bytes()).await?;
    let head = connection.head().await?;
    let mut seen = Vec::new();
    connection
        .body(&head, |bytes| {
            seen.extend_from_slice(bytes);
            true
        })
        .await?;
    let (seen, expected) = (String::from_utf8_lossy(&seen), lines.join(",").replace(' ', ""));
    // The proxy may add its own peer.
    if seen == expected || seen.starts_with(&format!("{expected},")) {
        return Ok(());
    }
    Err(Fail::Wrong(format!("the upstream saw `{seen}` in place of `{expected}`")))
}

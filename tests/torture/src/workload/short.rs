//! Clients whose exchanges are short: one request, one response.

use super::Context;
use crate::http::{Connection, Fail};
use crate::pattern::Pattern;
use crate::tally::{Class, Workload};
use std::time::Duration;
use tokio::time::Instant;

/// Requests sent at a time by the pipelining client.
const PIPELINE_DEPTH: usize = 8;
/// How long an idle client says nothing.
const IDLE: Duration = Duration::from_secs(4);

/// A request whose response this client can check byte by byte.
struct Exchange {
    seed: u64,
    length: u64,
}

impl Exchange {
    fn next(context: &Context) -> Self {
        Self { seed: context.next_seed(), length: fastrand::u64(0..2000) }
    }

    fn request(&self, extra: &str) -> String {
        format!("GET /echo/{}/{} HTTP/1.1\r\nhost: torture\r\n{extra}\r\n", self.seed, self.length)
    }

    /// Receives the response; true when the server announced a close.
    async fn response(&self, connection: &mut Connection) -> Result<bool, Fail> {
        let head = connection.head().await?;
        if head.status != 200 {
            return Err(Fail::Status(head.status));
        }
        let mut expected = Pattern::new(self.seed);
        let mut received = 0;
        connection
            .body(&head, |bytes| {
                received += bytes.len() as u64;
                expected.matches(bytes)
            })
            .await?;
        if received == self.length {
            return Ok(head.close);
        }
        Err(Fail::Wrong(format!("{received} bytes instead of {}", self.length)))
    }

    async fn run(
        &self,
        context: &Context,
        connection: &mut Connection,
        extra: &str,
    ) -> Result<bool, Fail> {
        let (began, phase) = (Instant::now(), context.moves.phase());
        connection.send(self.request(extra).as_bytes()).await?;
        let close = self.response(connection).await?;
        context.tally.took(began.elapsed(), phase.max(context.moves.phase()));
        Ok(close)
    }
}

/// The class of a failed short exchange.
fn class(fail: &Fail, connection: &Connection) -> Class {
    match fail {
        Fail::Partial(_) => Class::Cut,
        Fail::Wrong(_) => Class::WrongBytes,
        Fail::Closed(_) | Fail::Status(_) if connection.answered == 0 => Class::LostOnFresh,
        Fail::Closed(_) | Fail::Status(_) => Class::LostOnReused,
    }
}

/// Counts a finished exchange; true when the connection may be used again.
fn count(
    context: &Context,
    workload: Workload,
    connection: &Connection,
    result: Result<bool, Fail>,
) -> bool {
    match result {
        Ok(close) => {
            context.tally.add(workload, Class::Ok);
            if close {
                context.tally.add(workload, Class::AnnouncedClose);
            }
            !close
        }
        Err(fail) => {
            context.tally.fail(workload, class(&fail, connection), &fail.seen());
            false
        }
    }
}

/// W1.
pub(super) async fn connect(context: &Context) {
    tokio::time::sleep(context.rest(2..20)).await;
    let Some(mut connection) = context.open(Workload::Connect, context.http).await else { return };
    let exchange = Exchange::next(context);
    match exchange.run(context, &mut connection, "connection: close\r\n").await {
        Ok(_) => context.tally.add(Workload::Connect, Class::Ok),
        Err(fail) => {
            let class = class(&fail, &connection);
            context.tally.fail(Workload::Connect, class, &fail.seen());
        }
    }
}

/// W2.
pub(super) async fn keep_alive(context: &Context) {
    reuse(context, Workload::KeepAlive, || context.rest(0..=10)).await;
}

/// W3.
pub(super) async fn idle(context: &Context) {
    reuse(context, Workload::Idle, || IDLE).await;
}

/// Requests on one connection with pauses, until it ends or the client must stop.
async fn reuse(context: &Context, workload: Workload, pause: impl Fn() -> Duration) {
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    while !context.stopped() {
        let result = Exchange::next(context).run(context, &mut connection, "").await;
        if !count(context, workload, &connection, result) {
            return;
        }
        if connection.closes_within(pause()).await {
            context.tally.add(workload, Class::SilentIdleClose);
            return;
        }
        if connection.has_unasked_bytes() {
            context.tally.fail(workload, Class::WrongBytes, "bytes that nobody asked for");
            return;
        }
    }
}

/// W4. Requests behind an announced close were not processed and are free to be sent again.
pub(super) async fn pipeline(context: &Context) {
    let workload = Workload::Pipeline;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    while !context.stopped() {
        let batch: Vec<Exchange> = (0..PIPELINE_DEPTH).map(|_| Exchange::next(context)).collect();
        let requests: String = batch.iter().map(|exchange| exchange.request("")).collect();
        if let Err(fail) = connection.send(requests.as_bytes()).await {
            count(context, workload, &connection, Err(fail));
            return;
        }
        for exchange in &batch {
            let result = exchange.response(&mut connection).await;
            if !count(context, workload, &connection, result) {
                return;
            }
        }
        if connection.closes_within(context.rest(20..=20)).await {
            context.tally.add(workload, Class::SilentIdleClose);
            return;
        }
    }
}

/// W16: a head that takes about four seconds.
pub(super) async fn slow_head(context: &Context) {
    let workload = Workload::SlowHead;
    let Some(mut connection) = context.open(workload, context.http).await else { return };
    let exchange = Exchange::next(context);
    let request = exchange.request("x-slow: 0123456789\r\n");
    let mut ticks = tokio::time::interval(Duration::from_millis(60));
    for byte in request.as_bytes() {
        if let Err(fail) = connection.send(&[*byte]).await {
            context.tally.fail(workload, Class::Cut, &fail.seen());
            return;
        }
        ticks.tick().await;
    }
    let result = exchange.response(&mut connection).await;
    count(context, workload, &connection, result);
}

/// W17: half a request, then a reset. What counts is what it does to the others.
pub(super) async fn reset(context: &Context) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(10..60))).await;
    let Some(mut connection) = context.open(Workload::Reset, context.http).await else { return };
    let request = match fastrand::u8(0..3) {
        0 => "GET /ec".to_owned(),
        1 => "POST /upload HTTP/1.1\r\nhost: torture\r\ncontent-length: 1000\r\n\r\nabc".to_owned(),
        _ => "GET /download/1/100 HTTP/1.1\r\nhost: torture\r\n\r\n".to_owned(),
    };
    if connection.send(request.as_bytes()).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
        context.tally.add(Workload::Reset, Class::Ok);
    }
    connection.reset();
}

//! Thousands of idle connections over one reload of baton: how long until the new process has all of
//! them, whether each still works, and what the traffic that goes on meanwhile feels.

use crate::http::Connection;
use crate::latency::{millis, summary};
use crate::options::Options;
use crate::owners::{self, Pair};
use crate::proxy::baton::Baton;
use crate::proxy::{Plan, Proxy as _};
use crate::run::until_ready;
use crate::tally::{Tally, Workload};
use crate::upstream::Upstreams;
use crate::workload::{self, Context};
use baton_load::latency::Histogram;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

/// Connections opened, or asked again, at a time.
const AT_A_TIME: usize = 64;
/// Clients with requests meanwhile.
const BUSY: u32 = 16;
/// Traffic before and after the reload.
const CALM: Duration = Duration::from_secs(5);
/// What 10,000 connections may take on two cores.
const GOAL: Duration = Duration::from_secs(2);
/// Time between two looks for the older process.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Times and counts of one run.
struct Measured {
    opening: Duration,
    command: Duration,
    /// From the request for the reload; `None` = the older process did not end.
    gone: Option<Duration>,
    open: usize,
    moved: usize,
    times: Vec<(&'static str, Histogram)>,
    lost: u64,
}

/// Runs it and prints what was measured.
pub(crate) async fn run(options: &Options, upstream: Upstreams, connections: usize) -> ExitCode {
    // Older generations let go at once, so that what is measured is the move and not the wait.
    let options = Options { probation_s: 0, ..options.clone() };
    match LocalSet::new().run_until(measure(&options, upstream, connections)).await {
        Ok(measured) => report(&options, connections, &measured),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(
    options: &Options,
    upstream: Upstreams,
    connections: usize,
) -> Result<Measured, String> {
    let plan = Plan::new(options, upstream);
    let http = plan.http;
    let mut baton = Baton::new(plan);
    baton.start()?;
    until_ready(http).await?;

    let began = Instant::now();
    let idle = each(vec![(); connections], move |()| open(http)).await;
    let mut idle: Vec<Connection> = idle.into_iter().flatten().collect();
    let opening = began.elapsed();
    if idle.len() < connections {
        return Err(format!("only {} connections could be opened\n{}", idle.len(), baton.log()));
    }

    let tally = Tally::new(options.verbose);
    let context = Context::new(http, None, Duration::ZERO, Rc::clone(&tally), Arc::default());
    let busy = workload::start_some(&context, Workload::KeepAlive, BUSY);
    sleep(CALM).await;
    let mut times = vec![("before", tally.take_times())];

    let old = baton.newest_worker();
    let began = Instant::now();
    let (baton, result) = tokio::task::spawn_blocking(move || {
        let result = baton.reload(1);
        (baton, result)
    })
    .await
    .map_err(|error| error.to_string())?;
    let command = began.elapsed();
    result?;
    let limit = Duration::from_secs(options.baton_drain_s() + 5);
    let gone = until_gone(old, began, limit).await;
    times.push(("until all moved", tally.take_times()));
    sleep(CALM).await;
    times.push(("after", tally.take_times()));
    context.stop.store(true, Ordering::Relaxed);
    for client in busy {
        client.await.map_err(|error| error.to_string())?;
    }

    let pairs: Vec<Pair> = idle.iter().filter_map(Connection::pair).collect();
    let owners = owners::owners(pairs);
    let (new, keeper) = (baton.newest_worker(), baton.keeper());
    let is_new =
        |pids: &&Vec<u32>| pids.iter().all(|pid| Some(*pid) == new || Some(*pid) == keeper);
    let moved = owners.values().filter(is_new).count();
    let again = each(std::mem::take(&mut idle), ask).await;
    let open = again.iter().flatten().count();
    let stopped = tokio::task::spawn_blocking(move || {
        let mut baton = baton;
        baton.stop();
    });
    stopped.await.map_err(|error| error.to_string())?;
    Ok(Measured { opening, command, gone, open, moved, times, lost: tally.lost() })
}

/// Runs `work` on every item, some at a time.
async fn each<T: 'static, R: 'static, F: Future<Output = R> + 'static>(
    items: Vec<T>,
    work: impl Fn(T) -> F + Copy + 'static,
) -> Vec<R> {
    let waiting = Rc::new(std::cell::RefCell::new(items));
    let workers: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            let waiting = Rc::clone(&waiting);
            spawn_local(async move {
                let mut done = Vec::new();
                loop {
                    let next = waiting.borrow_mut().pop();
                    let Some(item) = next else { return done };
                    done.push(work(item).await);
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.expect("a worker"));
    }
    all
}

/// A connection that was used once.
async fn open(address: SocketAddr) -> Option<Connection> {
    let connection = Connection::open(address).await.ok()?;
    ask(connection).await
}

/// One request; the connection if it was answered and stays open.
async fn ask(mut connection: Connection) -> Option<Connection> {
    connection.send(b"GET /echo/2/10 HTTP/1.1\r\nhost: torture\r\n\r\n").await.ok()?;
    let head = connection.head().await.ok()?;
    connection.body(&head, |_| true).await.ok()?;
    (head.status == 200 && !head.close).then_some(connection)
}

/// Waits for the end of a process; the time since `began`.
async fn until_gone(pid: Option<u32>, began: Instant, limit: Duration) -> Option<Duration> {
    let path = format!("/proc/{}", pid?);
    while began.elapsed() < limit {
        if !Path::new(&path).exists() {
            return Some(began.elapsed());
        }
        sleep(LOOK_EVERY).await;
    }
    None
}

fn report(options: &Options, connections: usize, measured: &Measured) -> ExitCode {
    println!(
        "{connections} idle keep-alive connections (opened in {:.1} s), one reload, concurrency {}",
        measured.opening.as_secs_f64(),
        options.concurrency
    );
    println!("- still open and answered after it: {}", measured.open);
    println!("- held by the new process alone: {}", measured.moved);
    println!("- reload command: {}", millis(measured.command));
    match measured.gone {
        Some(gone) => {
            let verdict = if gone < GOAL { "met" } else { "missed" };
            println!("- the older process had none left and was gone after {}", millis(gone));
            println!("- goal of {} s: {verdict}", GOAL.as_secs());
        }
        None => println!("- the older process did not end"),
    }
    println!("- lost by the {BUSY} clients with requests meanwhile: {}", measured.lost);
    for (when, times) in &measured.times {
        println!("- requests {when}: {}", summary(times));
    }
    let all = measured.open == connections && measured.moved == connections;
    if all && measured.gone.is_some() && measured.lost == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

//! One run: start, load, reloads, rest, verdict.

use crate::counters::Counters;
use crate::flip::{Flipper, Flips};
use crate::http::Connection;
use crate::idle;
use crate::moves::Lookout;
use crate::options::{Options, Which};
use crate::proxy::{self, Plan, Proxy};
use crate::report::{self, Outcome};
use crate::tally::{Tally, Workload};
use crate::upstream::{self, Upstreams};
use crate::workload::{self, Context};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

/// Longest time from start to the first answer.
const START: Duration = Duration::from_secs(20);
/// Load before the first reload.
const WARM_UP: Duration = Duration::from_secs(2);

/// Runs every proxy that was asked for and prints the report.
pub(crate) async fn all(options: &Options) -> ExitCode {
    let upstream = upstream::start();
    if let Some(connections) = options.idle {
        return idle::run(options, upstream, connections).await;
    }
    let which = match options.proxy {
        Which::All => vec![Which::Nginx, Which::Haproxy, Which::Envoy, Which::Baton],
        one @ (Which::Nginx | Which::Haproxy | Which::Envoy | Which::Baton) => vec![one],
    };
    let mut outcomes = Vec::new();
    let mut failed = false;
    for which in which {
        let tally = Tally::new(options.verbose);
        let local = LocalSet::new();
        match local.run_until(one(options, which, upstream, tally)).await {
            Ok(outcome) => {
                failed |= which == Which::Baton && outcome.is_failure();
                report::failures(&outcome);
                outcomes.push(outcome);
            }
            Err(why) => {
                eprintln!("{which:?}: {why}");
                failed = true;
            }
        }
    }
    report::table(options, &outcomes);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn one(
    options: &Options,
    which: Which,
    upstream: Upstreams,
    tally: std::rc::Rc<Tally>,
) -> Result<Outcome, String> {
    let plan = Plan::new(options, upstream);
    let (http, tcp, dynamic) = (plan.http, plan.tcp, plan.dynamic.clone());
    let mut proxy = proxy::create(which, plan);
    let version = proxy.version();
    eprintln!("{}: {version}", proxy.name());
    proxy.start()?;
    let probes = match until_ready(http).await {
        Ok(probes) => probes,
        Err(why) => return Err(format!("{why}\n{}", proxy.log())),
    };

    let before = Counters::read();
    let tcp = proxy.has_tcp().then_some(tcp);
    let context = Context::new(
        http,
        tcp,
        Duration::from_secs(options.long_s),
        std::rc::Rc::clone(&tally),
        Arc::default(),
    );
    let moves = Arc::clone(&context.moves);
    moves.set_keeper(proxy.keeper());
    let lookout = Lookout::start(&moves);
    let edges = Workload::EDGES.into_iter().filter(|_| options.edges);
    let workloads = Workload::ALL.into_iter().chain(edges);
    let clients = workload::start(&context, workloads, options.scale);
    sleep(WARM_UP).await;
    let mut outcome = Outcome::new(proxy.name(), version, tally, moves);
    let flipper = dynamic.zip(options.flip_files);
    let flipper = flipper.map(|(files, ms)| Flipper::start(files, Duration::from_millis(ms)));
    let proxy = reloads(options, proxy, &mut outcome).await;
    // Long enough for a peer to reach its drain limit after the last reload.
    sleep(Duration::from_secs(options.drain_s + 2)).await;
    let mut connections = probes;
    if let Some(flipper) = flipper {
        let flips = flipper.finish().map_err(|error| format!("change the files: {error}"))?;
        connections += until_changed(http, flips, &mut outcome).await;
    }
    context.stop.store(true, Ordering::Relaxed);
    for client in clients {
        if let Err(error) = client.await {
            outcome.problems.push(format!("a client failed: {error}"));
        }
    }
    drop(lookout);
    outcome.counters = Counters::read().since(&before);
    connections += outcome.tally.connections();
    let (account, log) = tokio::task::spawn_blocking(move || {
        let mut proxy = proxy;
        let account = proxy.account(connections);
        proxy.stop();
        (account, proxy.log())
    })
    .await
    .map_err(|error| error.to_string())?;
    outcome.account = account;
    outcome.log = log;
    Ok(outcome)
}

/// Reloads on another thread, so that the clients go on meanwhile.
async fn reloads(
    options: &Options,
    mut proxy: Box<dyn Proxy>,
    outcome: &mut Outcome,
) -> Box<dyn Proxy> {
    for number in 1..=options.reloads {
        let began = Instant::now();
        outcome.moves.reload_begins();
        let (returned, result) = tokio::task::spawn_blocking(move || {
            let result = proxy.reload(number);
            (proxy, result)
        })
        .await
        .expect("the thread that reloads");
        proxy = returned;
        outcome.moves.reload_ended();
        match result {
            Ok(()) => outcome.reload_times.push(began.elapsed()),
            Err(why) => outcome.problems.push(format!("reload {number}: {why}")),
        }
        sleep(Duration::from_millis(options.interval_ms).saturating_sub(began.elapsed())).await;
    }
    proxy
}

/// Waits until what the files say last is what serves; the number of connections it took.
async fn until_changed(address: SocketAddr, flips: Flips, outcome: &mut Outcome) -> u64 {
    let (began, mut probes) = (Instant::now(), 0);
    while began.elapsed() < START {
        let version = version(address).await;
        probes += u64::from(version.is_some());
        if version.as_deref() == Some(flips.last.name().as_bytes()) {
            outcome.flips = Some(flips.rounds);
            return probes;
        }
        sleep(Duration::from_millis(20)).await;
    }
    outcome.problems.push("the last version of the routes does not come".to_owned());
    probes
}

/// The version of the routes; nothing when nobody was connected.
async fn version(address: SocketAddr) -> Option<Vec<u8>> {
    let mut connection = Connection::open(address).await.ok()?;
    let request = b"GET /version HTTP/1.1\r\nhost: torture\r\nconnection: close\r\n\r\n";
    let mut body = Vec::new();
    if connection.send(request).await.is_ok()
        && let Ok(head) = connection.head().await
    {
        let each = |bytes: &[u8]| {
            body.extend_from_slice(bytes);
            true
        };
        drop(connection.body(&head, each).await);
    }
    Some(body)
}

/// Waits for the first answer; the number of connections it took.
pub(crate) async fn until_ready(address: SocketAddr) -> Result<u64, String> {
    let began = Instant::now();
    let mut probes = 0;
    while began.elapsed() < START {
        if let Ok(mut connection) = Connection::open(address).await {
            probes += 1;
            let request = b"GET /echo/2/10 HTTP/1.1\r\nhost: torture\r\nconnection: close\r\n\r\n";
            if connection.send(request).await.is_ok()
                && connection.head().await.is_ok_and(|head| head.status == 200)
            {
                return Ok(probes);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err("not ready after 20 s".to_owned())
}

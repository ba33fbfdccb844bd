//! All workloads at once on a thread of their own, for the end-to-end tests.

use crate::tally::{Class, Tally, Workload};
use crate::workload::{self, Context, SPREADS};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::LocalSet;

/// Programs that are not built for speed are busy with this already, and several tests run at a time.
const LEISURE: u32 = 4;

/// Time between the first exchanges of two clients of a kind. Every test waits for all of them.
const SPREAD: Duration = Duration::from_millis(60);

/// Where the load goes and how long its long exchanges last.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The proxy's HTTP listener.
    pub http: SocketAddr,
    /// The proxy's TCP listener, if it has one.
    pub tcp: Option<SocketAddr>,
    /// Length of one upload, download, WebSocket or tunnel.
    pub long: Duration,
}

/// What the clients saw.
#[derive(Clone, Debug)]
pub struct Seen {
    counts: BTreeMap<(Workload, Class), u64>,
    /// Connections that were established.
    pub connections: u64,
    /// A line for each loss.
    pub failures: Vec<String>,
}

impl Seen {
    /// Everything a client lost.
    pub fn lost(&self) -> u64 {
        self.counts.iter().filter(|((_, class), _)| class.is_loss()).map(|(_, count)| count).sum()
    }

    /// How often this happened.
    pub fn count(&self, workload: Workload, class: Class) -> u64 {
        self.counts.get(&(workload, class)).copied().unwrap_or(0)
    }

    /// How often this happened over all workloads.
    pub fn total(&self, class: Class) -> u64 {
        Workload::ALL.iter().map(|workload| self.count(*workload, class)).sum()
    }

    /// The lines of the losses of this class.
    pub fn failures_of(&self, class: Class) -> Vec<&str> {
        let name = format!(": {}: ", class.name());
        self.failures.iter().filter(|line| line.contains(&name)).map(String::as_str).collect()
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Load {
    /// Starts all workloads and returns once every kind of client has begun.
    pub fn start(target: Target) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let (begun, wait) = channel();
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime for the clients");
            LocalSet::new().block_on(&runtime, work(target, flag, begun))
        });
        wait_for(&wait);
        Self { stop, thread: Some(thread) }
    }

    /// Lets every client end its exchange and tells what they saw.
    pub fn finish(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a load is finished once");
        thread.join().expect("the thread of the clients")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn wait_for(begun: &Receiver<()>) {
    begun.recv().expect("the clients begin");
}

async fn work(target: Target, stop: Arc<AtomicBool>, begun: std::sync::mpsc::Sender<()>) -> Seen {
    let tally = Tally::new(false);
    let mut context =
        Context::new(target.http, target.tcp, target.long, std::rc::Rc::clone(&tally), stop);
    context.leisure = LEISURE;
    context.spread = SPREAD;
    let clients = workload::start(&context, Workload::ALL, 1);
    tokio::time::sleep(SPREAD * SPREADS).await;
    // On a busy machine that is not enough.
    while tally.connections() < clients.len() as u64 && !context.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(SPREAD).await;
    }
    begun.send(()).expect("somebody waits for the clients");
    for client in clients {
        client.await.expect("a client");
    }
    let mut counts = BTreeMap::new();
    for workload in Workload::ALL {
        for class in Class::ALL {
            counts.insert((workload, class), tally.count(workload, class));
        }
    }
    Seen { counts, connections: tally.connections(), failures: tally.failures() }
}

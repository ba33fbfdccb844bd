//! The clients. Each runs until told to stop and ends its current exchange first.

mod edge;
mod long;
mod short;

use crate::http::Connection;
use crate::moves::Moves;
use crate::tally::{Class, Tally, Workload};
use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::RangeBounds;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What every client needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The proxy's HTTP listener.
    pub(crate) http: SocketAddr,
    /// The proxy's TCP listener; `None` when this proxy has none.
    pub(crate) tcp: Option<SocketAddr>,
    /// Length of a long exchange.
    pub(crate) long: Duration,
    /// Who holds the proxy's end of each connection.
    pub(crate) moves: Arc<Moves>,
    /// Where the counts go.
    pub(crate) tally: Rc<Tally>,
    /// Set when the clients shall end.
    pub(crate) stop: Arc<AtomicBool>,
    /// How many times longer than usual clients with short exchanges rest between two.
    pub(crate) leisure: u32,
    /// Time between the first exchanges of two clients of a kind.
    pub(crate) spread: Duration,
    seed: Rc<Cell<u64>>,
}

impl Context {
    /// A context with counts of its own.
    pub(crate) fn new(
        http: SocketAddr,
        tcp: Option<SocketAddr>,
        long: Duration,
        tally: Rc<Tally>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let (moves, seed) = (Arc::default(), Rc::default());
        let spread = Duration::from_millis(230);
        Self { http, tcp, long, tally, stop, moves, leisure: 1, spread, seed }
    }

    /// A pause of so many milliseconds, for who does not hurry longer.
    fn rest(&self, millis: impl RangeBounds<u64>) -> Duration {
        Duration::from_millis(fastrand::u64(millis)) * self.leisure
    }

    /// Whether the clients shall end.
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A number that no other exchange of this run has.
    fn next_seed(&self) -> u64 {
        self.seed.set(self.seed.get() + 1);
        self.seed.get()
    }

    /// A new connection, counted; `None` after a failure, which is counted as well.
    async fn open(&self, workload: Workload, address: SocketAddr) -> Option<Connection> {
        match Connection::open(address).await {
            Ok(mut connection) => {
                connection.watch(&self.moves, workload);
                self.tally.connected();
                Some(connection)
            }
            Err(why) => {
                self.tally.fail(workload, Class::ConnectFail, &why);
                // A refused connect costs nothing: without a pause an outage would be counted at
                // the speed of this machine.
                tokio::time::sleep(Duration::from_millis(100)).await;
                None
            }
        }
    }
}

/// Clients of a kind that begin one after the other; the next ones begin beside them.
pub(crate) const SPREADS: u32 = 8;

/// Starts the clients of these kinds; must run inside a `LocalSet`.
pub(crate) fn start(
    context: &Context,
    workloads: impl IntoIterator<Item = Workload>,
    scale: u32,
) -> Vec<JoinHandle<()>> {
    workloads
        .into_iter()
        .flat_map(|workload| start_some(context, workload, clients(workload) * scale))
        .collect()
}

/// Starts so many clients of one kind; must run inside a `LocalSet`.
pub(crate) fn start_some(context: &Context, workload: Workload, count: u32) -> Vec<JoinHandle<()>> {
    (0..count)
        .map(|index| tokio::task::spawn_local(client(context.clone(), workload, index)))
        .collect()
}

fn clients(workload: Workload) -> u32 {
    match workload {
        Workload::KeepAlive => 24,
        Workload::Idle => 40,
        Workload::Connect => 8,
        Workload::Pipeline
        | Workload::UploadLength
        | Workload::UploadChunked
        | Workload::Download
        | Workload::WebSocket
        | Workload::Tunnel
        | Workload::HalfClosed
        | Workload::SlowHead
        | Workload::Trickle => 4,
        Workload::Reset | Workload::Refused | Workload::Short | Workload::Forwarded => 2,
    }
}

async fn client(context: Context, workload: Workload, index: u32) {
    // Spread the starts, so that long exchanges do not all begin and end together.
    tokio::time::sleep(context.spread * (index % SPREADS)).await;
    while !context.stopped() {
        match workload {
            Workload::Connect => short::connect(&context).await,
            Workload::KeepAlive => short::keep_alive(&context).await,
            Workload::Idle => short::idle(&context).await,
            Workload::Pipeline => short::pipeline(&context).await,
            Workload::SlowHead => short::slow_head(&context).await,
            Workload::Reset => short::reset(&context).await,
            Workload::Trickle => edge::trickle(&context).await,
            Workload::Refused => edge::refused(&context).await,
            Workload::Short => edge::short(&context).await,
            Workload::Forwarded => edge::forwarded(&context).await,
            Workload::UploadLength => long::upload(&context, long::Upload::Length).await,
            Workload::UploadChunked => long::upload(&context, long::Upload::Chunked).await,
            Workload::Download => long::download(&context).await,
            Workload::WebSocket => long::websocket(&context).await,
            Workload::Tunnel | Workload::HalfClosed => {
                let Some(address) = context.tcp else { return };
                if workload == Workload::Tunnel {
                    long::tunnel(&context, address).await;
                } else {
                    long::half_closed(&context, address).await;
                }
            }
        }
    }
}

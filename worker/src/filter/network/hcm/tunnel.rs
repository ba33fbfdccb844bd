//! An upgraded connection: after 101, or 2xx for CONNECT, bytes flow both ways until one side
//! ends.

use std::future::poll_fn;

use super::{
    connection::{Connection, Phase},
    exchange::Upstream,
};
use crate::{
    stats::{ConnectionKind, EndReason},
    tunnel::{EndCause, Limits, Side, Splice, Tunnel},
    upstream::pool::PooledConnection,
};

/// Runs the tunnel to its end.
pub(super) async fn run(connection: Connection) -> EndReason {
    let Connection { hcm, socket, mut inbound, phase, deadline, now, active, .. } = connection;
    let Phase::Exchange(mut exchange) = phase else { return EndReason::Client };
    let Upstream::Active(upstream) = std::mem::replace(&mut exchange.upstream, Upstream::None)
    else {
        return EndReason::Upstream;
    };
    let ledger = &hcm.thread.ledger;
    hcm.stats.downstream_cx_upgrades_total.inc();
    hcm.stats.downstream_cx_upgrades_active.inc();
    ledger.open(ConnectionKind::Http1).dec();
    ledger.open(ConnectionKind::Upgraded).inc();
    let idle = exchange.target.as_ref().and_then(|target| target.idle_timeout);
    let mut to_upstream = exchange.up_out.take_all();
    to_upstream.extend(inbound.take_all());
    let limits = Limits { idle_timeout: idle, splice: Splice::default() };
    let PooledConnection { stream, endpoint, active: counted, .. } = upstream.connection;
    let from_upstream = exchange.up_in.take_all();
    let mut tunnel = Tunnel::new((socket, &to_upstream), (stream, &from_upstream), limits, now);
    drop((to_upstream, from_upstream));
    let end = poll_fn(|cx| {
        let polled = tunnel.poll(cx, crate::clock::now());
        deadline.set(tunnel.deadline(), cx.waker());
        polled
    })
    .await;
    drop(tunnel);
    drop((endpoint, counted));
    ledger.open(ConnectionKind::Upgraded).dec();
    ledger.open(ConnectionKind::Http1).inc();
    hcm.stats.downstream_cx_upgrades_active.dec();
    exchange.info.bytes_sent += end.bytes_downstream;
    exchange.info.bytes_received += end.bytes_upstream;
    exchange.end(&hcm, crate::clock::now());
    drop(active);
    match end.cause {
        EndCause::Closed(Side::Downstream) | EndCause::Reset(Side::Downstream) => EndReason::Client,
        EndCause::Closed(Side::Upstream) | EndCause::Reset(Side::Upstream) => EndReason::Upstream,
        EndCause::IdleTimeout => EndReason::Timeout,
    }
}

//! Idle connections to endpoints, on their way to another generation's pools.

use std::{io, os::fd::OwnedFd, rc::Rc, sync::Arc, time::Instant};

use baton_contract::{
    peer::Stay,
    record::{Reader, RecordError, Writer},
};

use super::{migrate::refused, resume};
use crate::{
    clock,
    cluster::{Endpoint, endpoint::EndpointAddress},
    migrate::{Answer, FIRST_OWN_TAG, Mover, VERSION, earlier, kind, micros},
    thread::{Thread, ThreadCluster},
    upstream::{Stream, counted::Counted, pool::PooledConnection},
};

const CLUSTER: u16 = FIRST_OWN_TAG;
const ENDPOINT: u16 = FIRST_OWN_TAG + 1;
const REQUESTS: u16 = FIRST_OWN_TAG + 2;
const IDLE: u16 = FIRST_OWN_TAG + 3;

/// Idle connections to one endpoint that make a thread's pool warm. It takes no more of them from
/// other generations: each generation makes some of its own, and they would pile up.
const WARM: usize = 8;

/// Offers idle connections of all clusters of a thread while there is room. Those that are not
/// taken are closed: the other generation makes its own.
pub fn give_away(thread: &Rc<Thread>) {
    for cluster in thread.clusters() {
        while thread.mover.room() > 0 {
            let Some(connection) = cluster.pool.borrow_mut().take_any() else { break };
            match freeze(&cluster, &connection) {
                Ok((record, fd)) => {
                    let offer = offer(thread.mover.clone(), connection, record, fd);
                    tokio::task::spawn_local(offer);
                }
                Err(error) => tracing::debug!(%error, "a pooled connection cannot move"),
            }
        }
    }
}

/// Offers one connection; our end of it is closed in any case.
async fn offer(mover: Mover, mut connection: PooledConnection, record: Vec<u8>, fd: OwnedFd) {
    match mover.offer(None, None, record, vec![fd]).await {
        Answer::Moved(moved) => {
            connection.counted.leave();
            drop(moved);
        }
        Answer::Stays(why) => tracing::trace!(why = why.as_str(), "a pooled connection is closed"),
    }
    drop(connection);
}

fn freeze(
    cluster: &ThreadCluster,
    connection: &PooledConnection,
) -> io::Result<(Vec<u8>, OwnedFd)> {
    let mut writer = Writer::new(kind::POOLED, VERSION);
    let idle = clock::now().saturating_duration_since(connection.idle_since);
    writer
        .text(CLUSTER, &cluster.name)
        .number(REQUESTS, u64::from(connection.requests))
        .number(IDLE, micros(idle));
    resume::write_endpoint(&mut writer, ENDPOINT, &connection.endpoint.endpoint().address());
    Ok((writer.finish(), connection.stream.duplicate()?))
}

/// An idle connection that was offered.
#[derive(Debug)]
pub struct Pooled {
    stream: Stream,
    cluster: Rc<ThreadCluster>,
    endpoint: Arc<Endpoint>,
    requests: u32,
    idle_since: Instant,
}

/// Reads an offer.
///
/// # Errors
/// When this configuration has no such cluster, the cluster no such endpoint, or the pool enough.
pub fn read(
    mut reader: Reader<'_>,
    mut fds: Vec<OwnedFd>,
    thread: &Rc<Thread>,
) -> Result<Pooled, Stay> {
    let (cluster, address, requests, idle) = fields(&mut reader).map_err(refused)?;
    reader.finish().map_err(refused)?;
    let cluster = thread.cluster_by_name(&cluster).ok_or(Stay::NoListener)?;
    let set = cluster.state.endpoints();
    let endpoint = Arc::clone(set.at(&address).ok_or(Stay::NoListener)?);
    if cluster.pool.borrow().idle_to(&endpoint) >= WARM {
        return Err(Stay::Overload);
    }
    let idle_since = earlier(clock::now(), idle);
    let socket = fds.pop().ok_or(Stay::Malformed)?;
    let stream = Stream::adopt(socket).map_err(|_| Stay::Overload)?;
    Ok(Pooled { stream, cluster, endpoint, requests, idle_since })
}

fn fields(reader: &mut Reader<'_>) -> Result<(String, EndpointAddress, u32, u64), RecordError> {
    let cluster = reader.text(CLUSTER)?.to_owned();
    let address = resume::read_endpoint(reader, ENDPOINT)?;
    Ok((cluster, address, reader.narrow(REQUESTS)?, reader.number(IDLE)?))
}

impl Pooled {
    /// Puts it into the pool.
    pub fn keep(self, thread: &Thread) {
        let mut counted = Counted::resume(&self.cluster.stats, self.idle_since);
        counted.arrive();
        let connection = PooledConnection {
            local: thread.upstream_local(&self.stream),
            stream: self.stream,
            endpoint: self.endpoint.resume_connection(),
            counted,
            requests: self.requests,
            idle_since: self.idle_since,
        };
        thread.mover.imported().inc();
        self.cluster.pool.borrow_mut().put(connection, self.idle_since);
    }
}

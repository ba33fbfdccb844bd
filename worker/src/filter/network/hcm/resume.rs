//! An exchange in progress as fields of a record, and the exchange that goes on from there.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    rc::Rc,
    time::Instant,
};

use baton_contract::record::{Reader, RecordError, Writer};

use super::{
    Hcm,
    attempt::{Active, Link},
    exchange::{Exchange, Reached, ResponseState, Upgrading},
    record, retry,
};
use crate::{
    cluster::endpoint::{EndpointAddress, EndpointInfo},
    filter::http::{chain::Passage, router::Router},
    http::stream_info::{ConnectionInfo, StreamInfo, UpstreamInfo},
    migrate::{maybe_address, maybe_path, write_path},
    route::RouteId,
    thread::{Thread, ThreadCluster},
    upstream::{
        Stream,
        counted::Counted,
        pool::{ActiveGauge, PooledConnection},
    },
};

/// Fields of an exchange. Those of the connection come before, those of a tunnel behind.
mod tag {
    pub(super) const REQUEST: u16 = 64;
    pub(super) const RESPONSE: u16 = 70;
    pub(super) const TRAILERS: u16 = 74;
    pub(super) const INFO: u16 = 80;
    pub(super) const UP_PATH: u16 = 96;
    pub(super) const REQUEST_BODY: u16 = 100;
    pub(super) const FRAMING: u16 = 102;
    pub(super) const FRAMING_LENGTH: u16 = 103;
    pub(super) const SWITCHES: u16 = 104;
    pub(super) const UPGRADE: u16 = 105;
    pub(super) const ROUTE_HOST: u16 = 106;
    pub(super) const ROUTE: u16 = 107;
    pub(super) const CLUSTER: u16 = 108;
    pub(super) const TIMEOUT: u16 = 109;
    pub(super) const IDLE_TIMEOUT: u16 = 110;
    pub(super) const WEIGHTED: u16 = 111;
    pub(super) const UP_OUT: u16 = 112;
    pub(super) const UP_IN: u16 = 113;
    pub(super) const RESPONSE_STATE: u16 = 114;
    pub(super) const RESPONSE_BODY: u16 = 115;
    pub(super) const LENGTH: u16 = 117;
    pub(super) const INTERIM: u16 = 118;
    pub(super) const LAST_ACTIVITY: u16 = 119;
    /// Older versions write it, and nobody needs it any more.
    pub(super) const BODY_STARTED: u16 = 120;
    pub(super) const ENDPOINT: u16 = 121;
    pub(super) const HOSTNAME: u16 = 122;
    pub(super) const UP_SWITCHES: u16 = 123;
    pub(super) const UP_REQUESTS: u16 = 124;
    pub(super) const UP_ADDRESS: u16 = 125;
    pub(super) const UP_LOCAL: u16 = 126;
    pub(super) const UP_CLUSTER: u16 = 127;
}

/// First tag behind those of an exchange.
pub(super) const TAGS_END: u16 = 128;

const WAITING: u64 = 0;
const STREAMING: u64 = 1;
const STREAMING_CHUNKED: u64 = 2;
const DONE: u64 = 3;

/// Switches as the bits of a number, first one lowest.
fn bits<const N: usize>(switches: [bool; N]) -> u64 {
    switches.iter().rev().fold(0, |bits, on| bits << 1 | u64::from(*on))
}

/// The switches of a number; a bit that is not known is malformed.
fn switches<const N: usize>(reader: &mut Reader<'_>, tag: u16) -> Result<[bool; N], RecordError> {
    let number = reader.number(tag)?;
    if number >> N != 0 {
        return Err(RecordError::Malformed(tag));
    }
    Ok(std::array::from_fn(|bit| number >> bit & 1 == 1))
}

/// Writes all of an exchange but its descriptors.
pub(super) fn write(writer: &mut Writer, exchange: &Exchange, now: Instant) {
    record::write_request(writer, tag::REQUEST, &exchange.request);
    record::write_response(writer, tag::RESPONSE, &exchange.response);
    record::write_headers(writer, tag::TRAILERS, &exchange.trailers);
    record::write_info(writer, tag::INFO, &exchange.info, now);
    if let Some(decoder) = &exchange.request_body {
        record::write_decoder(writer, tag::REQUEST_BODY, decoder);
    }
    let (framing, length) = record::framing_numbers(exchange.framing);
    let switches = [
        exchange.request_chunked,
        exchange.keep_alive,
        exchange.head_only,
        exchange.expects_continue,
        exchange.terminate_connect,
        exchange.retried,
        exchange.active_gauge.is_some(),
        exchange.attempt.active_request.is_some(),
    ];
    writer
        .number(tag::FRAMING, framing)
        .number(tag::FRAMING_LENGTH, length)
        .number(tag::SWITCHES, bits(switches))
        .bytes(tag::UP_OUT, &exchange.attempt.out.to_vec())
        .bytes(tag::UP_IN, exchange.attempt.inbound.data())
        .maybe(tag::LENGTH, exchange.length)
        .number(tag::INTERIM, u64::from(exchange.attempt.interim));
    match &exchange.upgrade {
        Some(Upgrading::Token(token)) => drop(writer.bytes(tag::UPGRADE, token)),
        // No token is empty.
        Some(Upgrading::Connect) => drop(writer.bytes(tag::UPGRADE, b"")),
        None => {}
    }
    write_route(writer, exchange);
    retry::freeze(writer, exchange, now);
    write_state(writer, &exchange.response_state);
    record::write_age(writer, tag::LAST_ACTIVITY, now, Some(exchange.last_activity));
    if let Link::Active(active) = &exchange.attempt.link {
        write_active(writer, active);
    }
    if let Some(upstream) = &exchange.info.upstream {
        writer.text(tag::UP_CLUSTER, &upstream.cluster);
        write_path(writer, tag::UP_PATH, upstream.path.as_deref());
        for (tag, address) in [(tag::UP_ADDRESS, upstream.address), (tag::UP_LOCAL, upstream.local)]
        {
            if let Some(address) = address {
                writer.text(tag, &address.to_string());
            }
        }
    }
}

fn write_route(writer: &mut Writer, exchange: &Exchange) {
    if let Some(route) = exchange.choice.id() {
        writer.number(tag::ROUTE_HOST, route.virtual_host as u64);
        writer.number(tag::ROUTE, route.route as u64);
    }
    if let Some(target) = &exchange.target {
        writer.text(tag::CLUSTER, &target.cluster.name);
        record::write_duration(writer, tag::TIMEOUT, target.timeout);
        record::write_duration(writer, tag::IDLE_TIMEOUT, target.idle_timeout);
        writer.maybe(tag::WEIGHTED, target.weighted().map(|at| at as u64));
    }
}

fn write_state(writer: &mut Writer, state: &ResponseState) {
    let code = match state {
        ResponseState::Waiting => WAITING,
        ResponseState::Streaming { chunked: false, .. } => STREAMING,
        ResponseState::Streaming { chunked: true, .. } => STREAMING_CHUNKED,
        ResponseState::Done => DONE,
    };
    writer.number(tag::RESPONSE_STATE, code);
    if let ResponseState::Streaming { decoder, .. } = state {
        record::write_decoder(writer, tag::RESPONSE_BODY, decoder);
    }
}

fn write_active(writer: &mut Writer, active: &Active) {
    let switches = [active.reused, active.wrote, active.write_failed, active.keep_alive];
    writer
        .number(tag::UP_SWITCHES, bits(switches))
        .number(tag::UP_REQUESTS, u64::from(active.connection.requests));
    let endpoint = active.connection.endpoint.endpoint();
    write_endpoint(writer, tag::ENDPOINT, &endpoint.address());
    writer.text(tag::HOSTNAME, &endpoint.info.hostname);
}

/// Writes where an endpoint is.
pub(super) fn write_endpoint(writer: &mut Writer, tag: u16, address: &EndpointAddress) {
    match address {
        EndpointAddress::Ip(address) => writer.text(tag, &address.to_string()),
        EndpointAddress::Pipe(path) => {
            writer.bytes(tag, &[b"unix:", path.as_os_str().as_bytes()].concat())
        }
    };
}

/// Reads where an endpoint is.
pub(super) fn read_endpoint(
    reader: &mut Reader<'_>,
    tag: u16,
) -> Result<EndpointAddress, RecordError> {
    let bytes = reader.bytes(tag)?;
    if let Some(path) = bytes.strip_prefix(b"unix:") {
        return Ok(EndpointAddress::Pipe(Path::new(OsStr::from_bytes(path)).into()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Malformed(tag))?;
    let address: SocketAddr = text.parse().map_err(|_| RecordError::Malformed(tag))?;
    Ok(EndpointAddress::Ip(address))
}

/// The exchange a record tells of. `upstream` is the descriptor of its upstream connection.
pub(super) fn read(
    reader: &mut Reader<'_>,
    hcm: &Rc<Hcm>,
    connection: &Rc<ConnectionInfo>,
    upstream: Option<OwnedFd>,
    now: Instant,
) -> Result<Exchange, RecordError> {
    let thread = &hcm.thread;
    let (mut request, mut response) = thread.take_heads();
    record::read_request(reader, tag::REQUEST, &mut request)?;
    record::read_response(reader, tag::RESPONSE, &mut response)?;
    let begin = (crate::clock::wall(), now);
    let mut info = StreamInfo::new(Rc::clone(connection), begin, &hcm.no_name);
    record::read_info(reader, tag::INFO, &mut info, now)?;
    let mut exchange = Exchange::new(request, response, info, &thread.buffers);
    exchange.reached = Reached::Filters;
    record::read_headers(reader, tag::TRAILERS, &mut exchange.trailers)?;
    exchange.request_body = record::read_decoder(reader, tag::REQUEST_BODY)?;
    let length = reader.number(tag::FRAMING_LENGTH)?;
    exchange.framing = record::framing(reader.number(tag::FRAMING)?, length, tag::FRAMING)?;
    let [chunked, keep_alive, head_only, expects, terminate, retried, counted, requested] =
        switches(reader, tag::SWITCHES)?;
    exchange.request_chunked = chunked;
    exchange.keep_alive = keep_alive;
    exchange.head_only = head_only;
    exchange.expects_continue = expects;
    exchange.terminate_connect = terminate;
    exchange.retried = retried;
    exchange.upgrade = reader.maybe_bytes(tag::UPGRADE).map(|token| match token {
        b"" => Upgrading::Connect,
        token => Upgrading::Token(token.to_vec()),
    });
    exchange.attempt.out.extend(reader.bytes(tag::UP_OUT)?);
    exchange.attempt.inbound.extend(reader.bytes(tag::UP_IN)?);
    exchange.length = reader.maybe(tag::LENGTH)?;
    exchange.attempt.interim = reader.narrow(tag::INTERIM)?;
    exchange.last_activity = record::read_age(reader, tag::LAST_ACTIVITY, now)?.unwrap_or(now);
    record::read_age(reader, tag::BODY_STARTED, now)?;
    exchange.response_state = read_state(reader)?;
    read_target(reader, hcm, &mut exchange)?;
    if let Some(cluster) = reader.maybe_bytes(tag::UP_CLUSTER) {
        exchange.info.upstream = Some(UpstreamInfo {
            address: maybe_address(reader, tag::UP_ADDRESS)?,
            path: maybe_path(reader, tag::UP_PATH),
            connected: true,
            local: maybe_address(reader, tag::UP_LOCAL)?,
            cluster: String::from_utf8_lossy(cluster).into(),
            attempts: 1 + u32::from(retried),
            failure: None,
        });
    }
    if let Some(target) = &exchange.target {
        let cluster = Rc::clone(&target.cluster);
        if counted {
            exchange.active_gauge = Some(ActiveGauge::new(&cluster.stats.upstream_rq_active));
        }
        read_upstream(reader, (thread, &cluster), &mut exchange, (upstream, requested), now)?;
    }
    retry::thaw(reader, &mut exchange, now)?;
    Ok(exchange)
}

fn read_state(reader: &mut Reader<'_>) -> Result<ResponseState, RecordError> {
    let decoder = record::read_decoder(reader, tag::RESPONSE_BODY)?;
    let code = reader.number(tag::RESPONSE_STATE)?;
    match (code, decoder) {
        (WAITING, None) => Ok(ResponseState::Waiting),
        (STREAMING | STREAMING_CHUNKED, Some(decoder)) => {
            Ok(ResponseState::Streaming { decoder, chunked: code == STREAMING_CHUNKED })
        }
        (DONE, None) => Ok(ResponseState::Done),
        _ => Err(RecordError::Malformed(tag::RESPONSE_STATE)),
    }
}

fn read_target(
    reader: &mut Reader<'_>,
    hcm: &Hcm,
    exchange: &mut Exchange,
) -> Result<(), RecordError> {
    if reader.maybe(tag::ROUTE_HOST)?.is_some() {
        exchange.choice = hcm.router.found_before(RouteId {
            virtual_host: reader.narrow(tag::ROUTE_HOST)?,
            route: reader.narrow(tag::ROUTE)?,
        });
    }
    let Some(cluster) = reader.maybe_bytes(tag::CLUSTER) else { return Ok(()) };
    let cluster = std::str::from_utf8(cluster).map_err(|_| RecordError::Malformed(tag::CLUSTER))?;
    let timeouts = (
        record::read_duration(reader, tag::TIMEOUT)?,
        record::read_duration(reader, tag::IDLE_TIMEOUT)?,
    );
    let weighted = reader.maybe(tag::WEIGHTED)?.and_then(|at| usize::try_from(at).ok());
    let choice = &exchange.choice;
    choice.id().ok_or(RecordError::Missing(tag::ROUTE))?;
    exchange.passage = Passage::new(Router::filters(choice, weighted));
    let target = Router::resume(&hcm.thread, choice, cluster, timeouts, weighted);
    exchange.target = Some(target.ok_or(RecordError::Malformed(tag::CLUSTER))?);
    Ok(())
}

fn read_upstream(
    reader: &mut Reader<'_>,
    (thread, cluster): (&Thread, &Rc<ThreadCluster>),
    exchange: &mut Exchange,
    (upstream, requested): (Option<OwnedFd>, bool),
    now: Instant,
) -> Result<(), RecordError> {
    if reader.maybe(tag::UP_SWITCHES)?.is_none() {
        return Ok(());
    }
    let [reused, wrote, write_failed, keep_alive] = switches(reader, tag::UP_SWITCHES)?;
    let address = read_endpoint(reader, tag::ENDPOINT)?;
    let hostname = reader.text(tag::HOSTNAME)?.to_owned();
    let info = EndpointInfo { hostname, weight: 1, ..EndpointInfo::default() };
    let endpoint = cluster.endpoint_at(&address, &info);
    if requested {
        exchange.attempt.active_request = Some(endpoint.resume_request());
    }
    let requests = reader.narrow(tag::UP_REQUESTS)?;
    let stream = upstream.ok_or(RecordError::Malformed(tag::UP_SWITCHES))?;
    let stream = Stream::adopt(stream).map_err(|_| RecordError::Malformed(tag::UP_SWITCHES))?;
    let local = thread.upstream_local(&stream);
    exchange.is_on(local);
    let mut counted = Counted::resume(&cluster.stats, now);
    counted.set_serving(true);
    exchange.attempt.link = Link::Active(Active {
        connection: PooledConnection {
            stream,
            local,
            endpoint: endpoint.resume_connection(),
            counted,
            requests,
            idle_since: now,
        },
        reused,
        wrote,
        returned: 0,
        write_failed,
        keep_alive,
    });
    Ok(())
}

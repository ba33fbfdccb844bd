//! Headers that tell the upstream about the client: `x-forwarded-for`, `-proto`, `x-request-id`,
//! `via`, and the ones an outside client must not be able to set.
//!
//! The rules are those of Envoy's connection manager ("HTTP header sanitizing"). Several lines of a
//! list header are one list (RFC 9110 §5.3) and leave as one line.

use std::net::{IpAddr, SocketAddr};

use crate::config::{hcm::HttpConnectionManager, model::Node};

use super::{head::RequestHead, headers::Headers};

const FOR: &[u8] = b"x-forwarded-for";
const PROTO: &[u8] = b"x-forwarded-proto";
const INTERNAL: &[u8] = b"x-envoy-internal";

/// Where every header of Envoy's begins.
const ENVOY: &[u8] = b"x-envoy-";

/// What only an internal client may say; behind [`ENVOY`]. The router takes those of retries and
/// timeouts out again ([`CONSUMED`]).
const FROM_INTERNAL_ONLY: &[&[u8]] = &[
    b"expected-rq-timeout-ms",
    b"force-trace",
    b"hedge-on-per-try-timeout",
    b"ip-tags",
    b"max-retries",
    b"original-url",
    b"retriable-header-names",
    b"retriable-status-codes",
    b"retry-grpc-on",
    b"retry-on",
    b"upstream-alt-stat-name",
    b"upstream-rq-per-try-timeout-ms",
    b"upstream-rq-timeout-alt-response",
    b"upstream-rq-timeout-ms",
    b"upstream-stream-duration-ms",
];

/// What a client of an edge proxy may not say either: proxies of the own network do.
const FROM_PROXIES_ONLY: &[&[u8]] = &[
    b"decorator-operation",
    b"downstream-service-cluster",
    b"downstream-service-node",
    b"external-address",
    b"original-host",
    b"original-path",
];

/// What is said to this proxy about retries and timeouts and to nobody behind it.
const CONSUMED: &[&[u8]] = &[
    b"hedge-on-per-try-timeout",
    b"max-retries",
    b"retriable-header-names",
    b"retriable-status-codes",
    b"retry-grpc-on",
    b"retry-on",
    b"upstream-alt-stat-name",
    b"upstream-rq-per-try-timeout-ms",
    b"upstream-rq-timeout-alt-response",
    b"upstream-rq-timeout-ms",
    b"upstream-stream-duration-ms",
];

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// `internal_address_config` names its client.
    Internal,
    /// Somebody else, directly to the first proxy of this network.
    Edge,
    /// Somebody else, by way of proxies that are believed.
    Behind,
}

/// Rewrites the forwarding headers of a request; the address of the client as far as it is trusted.
/// `internal_only` are the `internal_only_headers` of its route table.
pub fn mutate(
    config: &HttpConnectionManager,
    node: &Node,
    peer: Option<SocketAddr>,
    random: u128,
    internal_only: &[String],
    request: &mut RequestHead,
) -> Option<SocketAddr> {
    let headers = &mut request.headers;
    headers.join(FOR);
    headers.join(PROTO);
    let (client, internal) = if config.use_remote_address {
        from_connection(config, peer, headers)
    } else {
        from_header(config, peer, headers)
    };
    let origin = match (internal, config.use_remote_address) {
        (true, _) => Origin::Internal,
        (false, true) => Origin::Edge,
        (false, false) => Origin::Behind,
    };
    sanitize(origin, internal_only, headers);
    match (origin, client) {
        (Origin::Internal, _) => headers.set(INTERNAL, b"true"),
        (Origin::Edge, Some(client)) => {
            headers.append(b"x-envoy-external-address", text(client.ip()).as_bytes());
        }
        (Origin::Edge, None) | (Origin::Behind, _) => {}
    }
    // Envoy's default SANITIZE: without TLS nobody's word about a certificate counts.
    headers.remove(b"x-forwarded-client-cert");
    request_id(config, origin, random, headers);
    if !config.via.is_empty() {
        append_list(headers, b"via", b", ", config.via.as_bytes());
    }
    if config.add_user_agent {
        user_agent(node, headers);
    }
    client
}

/// Removes what a client may not say, however it is spelled: a name with `_` for `-` is another
/// name here, and what to do about those says `headers_with_underscores_action`.
fn sanitize(origin: Origin, internal_only: &[String], headers: &mut Headers) {
    if headers.iter().any(|(name, _)| name.starts_with(ENVOY)) {
        headers.retain(|name, _| match name.strip_prefix(ENVOY) {
            Some(b"internal") => false,
            Some(name) => match origin {
                Origin::Internal => true,
                Origin::Edge => {
                    !FROM_INTERNAL_ONLY.contains(&name) && !FROM_PROXIES_ONLY.contains(&name)
                }
                Origin::Behind => !FROM_INTERNAL_ONLY.contains(&name),
            },
            None => true,
        });
    }
    if origin != Origin::Internal {
        for name in internal_only {
            headers.remove(name.as_bytes());
        }
    }
}

fn is_consumed(name: &[u8]) -> bool {
    name.strip_prefix(ENVOY).is_some_and(|name| CONSUMED.contains(&name))
}

/// What a request says about retries and timeouts, if anything.
pub fn consumed(headers: &Headers) -> Option<Headers> {
    if !headers.iter().any(|(name, _)| is_consumed(name)) {
        return None;
    }
    let mut consumed = Headers::default();
    for (name, value) in headers.iter().filter(|(name, _)| is_consumed(name)) {
        consumed.append(name, value);
    }
    Some(consumed)
}

/// Removes what a request said about retries and timeouts: it is meant for this proxy.
pub fn remove_consumed(headers: &mut Headers) {
    headers.retain(|name, _| !is_consumed(name));
}

/// `add_user_agent`: says which cluster of proxies this one belongs to.
fn user_agent(node: &Node, headers: &mut Headers) {
    headers.set(b"x-envoy-downstream-service-cluster", node.cluster.as_bytes());
    if headers.get(b"user-agent").is_none_or(<[u8]>::is_empty) {
        headers.set(b"user-agent", node.cluster.as_bytes());
    }
    if !node.id.is_empty() {
        headers.set(b"x-envoy-downstream-service-node", node.id.as_bytes());
    }
}

/// An edge proxy: the socket's peer is the client, or the hop that many trusted hops away.
fn from_connection(
    config: &HttpConnectionManager,
    peer: Option<SocketAddr>,
    headers: &mut Headers,
) -> (Option<SocketAddr>, bool) {
    let trusted_hops = config.xff_trusted_hops as usize;
    // Somebody else stands between the client and us, and who that is does not matter any more.
    let direct = !headers.contains(FOR);
    let client = match trusted_hops.checked_sub(1) {
        None => peer,
        Some(skip) => nth_from_end(headers, skip).map(|ip| SocketAddr::new(ip, 0)).or(peer),
    };
    if let (Some(peer), false) = (peer, config.skip_xff_append) {
        append_list(headers, FOR, b",", text(peer.ip()).as_bytes());
    }
    // A trusted hop in front may have terminated TLS; anybody else's word does not count.
    if trusted_hops == 0 || !has_proto(headers) {
        headers.set(PROTO, b"http");
    }
    let internal = match client {
        Some(client) => is_internal(config, client.ip()),
        None => config.internal.unix_sockets,
    };
    (client, direct && internal)
}

/// A proxy behind others: believe `x-forwarded-for`, change nothing.
fn from_header(
    config: &HttpConnectionManager,
    peer: Option<SocketAddr>,
    headers: &mut Headers,
) -> (Option<SocketAddr>, bool) {
    if !has_proto(headers) {
        headers.set(PROTO, b"http");
    }
    let skip = config.xff_trusted_hops as usize;
    let address = nth_from_end(headers, skip);
    let only = || headers.get(FOR).is_some_and(|list| memchr::memchr(b',', list).is_none());
    let internal = address.is_some_and(|ip| is_internal(config, ip)) && only();
    (address.map(|ip| SocketAddr::new(ip, 0)).or(peer), internal)
}

/// Whether somebody said what the client's scheme was.
fn has_proto(headers: &Headers) -> bool {
    headers.get(PROTO).is_some_and(|proto| !proto.is_empty())
}

/// The address `skip` places from the end of `x-forwarded-for`.
fn nth_from_end(headers: &Headers, skip: usize) -> Option<IpAddr> {
    let element = headers.get(FOR)?.rsplit(|byte| *byte == b',').nth(skip)?;
    std::str::from_utf8(element.trim_ascii()).ok()?.parse().ok()
}

/// Whether `internal_address_config` names an address.
fn is_internal(config: &HttpConnectionManager, ip: IpAddr) -> bool {
    config.internal.ranges.iter().any(|range| range.contains(ip))
}

/// An address as other programs write it.
fn text(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

/// Adds an element to a list, whatever number of lines it has.
fn append_list(headers: &mut Headers, name: &'static [u8], separator: &[u8], value: &[u8]) {
    headers.join(name);
    match headers.get(name) {
        None => headers.append(name, value),
        Some([]) => headers.set(name, value),
        Some(old) => {
            let mut list = Vec::with_capacity(old.len() + separator.len() + value.len());
            list.extend_from_slice(old);
            list.extend_from_slice(separator);
            list.extend_from_slice(value);
            headers.set(name, &list);
        }
    }
}

/// `x-request-id`: kept from trusted clients, made new for others.
fn request_id(config: &HttpConnectionManager, origin: Origin, random: u128, headers: &mut Headers) {
    if !config.generate_request_id {
        return;
    }
    let keep = origin != Origin::Edge || config.preserve_external_request_id;
    if keep && headers.get(b"x-request-id").is_some() {
        return;
    }
    headers.set(b"x-request-id", &uuid4(random));
}

/// A version 4 UUID in text (RFC 9562 §5.4) from 128 random bits.
fn uuid4(random: u128) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = random.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests;

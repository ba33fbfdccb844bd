//! Headers that tell the upstream about the client: `x-forwarded-for`, `-proto`, `x-request-id`,
//! `via`, and the ones an outside client must not be able to set.
//!
//! The rules are those of Envoy's connection manager ("HTTP header sanitizing").

use std::net::{IpAddr, SocketAddr};

use crate::config::hcm::HttpConnectionManager;

use super::head::RequestHead;

/// Headers that only an internal client may send.
const INTERNAL_ONLY: &[&[u8]] = &[
    b"x-envoy-decorator-operation",
    b"x-envoy-downstream-service-cluster",
    b"x-envoy-downstream-service-node",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-force-trace",
    b"x-envoy-hedge-on-per-try-timeout",
    b"x-envoy-ip-tags",
    b"x-envoy-max-retries",
    b"x-envoy-original-path",
    b"x-envoy-retriable-header-names",
    b"x-envoy-retriable-status-codes",
    b"x-envoy-retry-grpc-on",
    b"x-envoy-retry-on",
    b"x-envoy-upstream-alt-stat-name",
    b"x-envoy-upstream-rq-per-try-timeout-ms",
    b"x-envoy-upstream-rq-timeout-alt-response",
    b"x-envoy-upstream-rq-timeout-ms",
];

/// Rewrites the request's forwarding headers; the address of the client as far as it is trusted.
pub fn mutate(
    config: &HttpConnectionManager,
    cluster: &str,
    peer: Option<SocketAddr>,
    random: u128,
    request: &mut RequestHead,
) -> Option<SocketAddr> {
    let (client, internal) = if config.use_remote_address {
        from_connection(config, peer, request)
    } else {
        from_header(config, peer, request)
    };
    if internal {
        request.headers.set(b"x-envoy-internal", b"true");
    } else {
        request.headers.remove(b"x-envoy-internal");
        if config.use_remote_address {
            let internal_only =
                |name: &[u8]| name.starts_with(b"x-envoy-") && INTERNAL_ONLY.contains(&name);
            if request.headers.iter().any(|(name, _)| internal_only(name)) {
                request.headers.retain(|name, _| !internal_only(name));
            }
        }
    }
    // Envoy's default SANITIZE: without TLS nobody's word about a certificate counts.
    request.headers.remove(b"x-forwarded-client-cert");
    request_id(config, !internal && config.use_remote_address, random, request);
    if !config.via.is_empty() {
        append_list(request, b"via", config.via.as_bytes());
    }
    if config.add_user_agent {
        user_agent(cluster, request);
    }
    client
}

/// `add_user_agent`: says which cluster of proxies this one belongs to.
fn user_agent(cluster: &str, request: &mut RequestHead) {
    request.headers.set(b"x-envoy-downstream-service-cluster", cluster.as_bytes());
    if request.headers.get(b"user-agent").is_none() {
        request.headers.append(b"user-agent", cluster.as_bytes());
    }
}

/// An edge proxy: the socket's peer is the client, or the hop that many trusted hops away.
fn from_connection(
    config: &HttpConnectionManager,
    peer: Option<SocketAddr>,
    request: &mut RequestHead,
) -> (Option<SocketAddr>, bool) {
    let trusted_hops = config.xff_trusted_hops as usize;
    let had_header = request.headers.get(b"x-forwarded-for").is_some();
    let client = match trusted_hops.checked_sub(1) {
        None => peer,
        Some(skip) => nth_from_end(request, skip).map(|ip| SocketAddr::new(ip, 0)).or(peer),
    };
    if let (Some(peer), false) = (peer, config.skip_xff_append) {
        append_list(request, b"x-forwarded-for", peer.ip().to_canonical().to_string().as_bytes());
    }
    // A trusted hop in front may have terminated TLS; anybody else's word does not count.
    if trusted_hops == 0 || request.headers.get(b"x-forwarded-proto").is_none() {
        request.headers.set(b"x-forwarded-proto", b"http");
    }
    let internal = !had_header && client.is_some_and(|client| is_internal(client.ip()));
    (client, internal)
}

/// A proxy behind others: believe `x-forwarded-for`, change nothing.
fn from_header(
    config: &HttpConnectionManager,
    peer: Option<SocketAddr>,
    request: &mut RequestHead,
) -> (Option<SocketAddr>, bool) {
    if request.headers.get(b"x-forwarded-proto").is_none() {
        request.headers.append(b"x-forwarded-proto", b"http");
    }
    let address = nth_from_end(request, config.xff_trusted_hops as usize);
    let single = request
        .headers
        .get(b"x-forwarded-for")
        .is_some_and(|value| memchr::memchr(b',', value).is_none());
    let internal = single && address.is_some_and(is_internal);
    (address.map(|ip| SocketAddr::new(ip, 0)).or(peer), internal)
}

/// The address `skip` places from the end of `x-forwarded-for`.
fn nth_from_end(request: &RequestHead, skip: usize) -> Option<IpAddr> {
    let value = std::str::from_utf8(request.headers.get(b"x-forwarded-for")?).ok()?;
    value.rsplit(',').nth(skip)?.trim().parse().ok()
}

/// RFC 1918, loopback and unique local addresses, as Envoy's default.
fn is_internal(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

fn append_list(request: &mut RequestHead, name: &'static [u8], value: &[u8]) {
    match request.headers.get(name) {
        None => request.headers.append(name, value),
        Some(old) => {
            let mut list = Vec::with_capacity(old.len() + 1 + value.len());
            list.extend_from_slice(old);
            list.push(b',');
            list.extend_from_slice(value);
            request.headers.set(name, &list);
        }
    }
}

/// `x-request-id`: kept from trusted clients, made new for others.
fn request_id(
    config: &HttpConnectionManager,
    from_outside: bool,
    random: u128,
    request: &mut RequestHead,
) {
    if !config.generate_request_id {
        return;
    }
    let keep = !from_outside || config.preserve_external_request_id;
    if keep && request.headers.get(b"x-request-id").is_some() {
        return;
    }
    request.headers.set(b"x-request-id", &uuid4(random));
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
mod tests {
    use super::*;

    #[test]
    fn a_uuid_carries_version_and_variant() {
        assert_eq!(&uuid4(0), b"00000000-0000-4000-8000-000000000000");
        assert_eq!(&uuid4(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn addresses_of_private_networks_are_internal() {
        for (text, internal) in
            [("10.1.2.3", true), ("127.0.0.1", true), ("8.8.8.8", false), ("fd00::1", true)]
        {
            assert_eq!(is_internal(text.parse().unwrap()), internal, "{text}");
        }
    }
}

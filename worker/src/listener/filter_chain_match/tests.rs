//! Tables, and a comparison with a slow, literal reading of Envoy's description.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::config::listener::{ListenerSocket, TrafficDirection};

fn range(text: &str) -> CidrRange {
    let (address, len) = text.split_once('/').unwrap();
    CidrRange { address: address.parse().unwrap(), prefix_len: len.parse().unwrap() }
}

fn chain(name: &str, matches: FilterChainMatch) -> Arc<FilterChain> {
    Arc::new(FilterChain { name: name.to_owned(), matches, filters: Vec::new() })
}

fn listener(chains: Vec<Arc<FilterChain>>, default: bool) -> Listener {
    Listener {
        name: "test".to_owned(),
        addresses: Vec::new(),
        stat_prefix: String::new(),
        filter_chains: chains,
        default_filter_chain: default.then(|| chain("default", FilterChainMatch::default())),
        buffer_limit_bytes: 0,
        access_log: Vec::new(),
        direction: TrafficDirection::Unspecified,
        socket: ListenerSocket::default(),
    }
}

fn addresses(local: &str, peer: &str) -> Addresses {
    let peer = peer.parse().unwrap();
    Addresses { local: local.parse().unwrap(), peer, source: peer }
}

#[track_caller]
fn check(listener: &Listener, local: &str, peer: &str, expected: Option<&str>) {
    let found = find(listener, Some(&addresses(local, peer)));
    assert_eq!(found.map(|chain| chain.name.as_str()), expected, "{local} from {peer}");
}

#[test]
fn the_longest_prefix_wins_and_the_rest_goes_to_the_default() {
    let by = |text| FilterChainMatch { prefix_ranges: vec![range(text)], ..Default::default() };
    let listener =
        listener(vec![chain("wide", by("10.0.0.0/8")), chain("narrow", by("10.1.0.0/16"))], true);
    check(&listener, "10.1.2.3:80", "1.1.1.1:9", Some("narrow"));
    check(&listener, "10.2.2.3:80", "1.1.1.1:9", Some("wide"));
    check(&listener, "[::ffff:10.2.2.3]:80", "1.1.1.1:9", Some("wide"));
    check(&listener, "11.2.2.3:80", "1.1.1.1:9", Some("default"));
    check(&listener, "[fe80::1]:80", "1.1.1.1:9", Some("default"));
}

#[test]
fn an_earlier_criterion_decides_and_nobody_goes_back() {
    let port = FilterChainMatch {
        destination_port: Some(443),
        source_ports: vec![7],
        ..Default::default()
    };
    let any = FilterChainMatch::default();
    let listener = listener(vec![chain("any", any), chain("port", port)], false);
    check(&listener, "10.0.0.1:443", "1.1.1.1:7", Some("port"));
    check(&listener, "10.0.0.1:443", "1.1.1.1:8", None);
    check(&listener, "10.0.0.1:80", "1.1.1.1:8", Some("any"));
}

#[test]
fn a_unix_connection_gets_the_chain_without_criteria() {
    let by_port = FilterChainMatch { destination_port: Some(1), ..Default::default() };
    let listener =
        listener(vec![chain("port", by_port), chain("any", FilterChainMatch::default())], false);
    assert_eq!(find(&listener, None).unwrap().name, "any");
}

/// Keeps the chains with the most specific value, one criterion at a time, with lists.
fn naive<'a>(listener: &'a Listener, a: &Addresses) -> Option<&'a str> {
    let mut left: Vec<&Arc<FilterChain>> = listener.filter_chains.iter().collect();
    let exact =
        |left: Vec<&'a Arc<FilterChain>>, ports: fn(&FilterChainMatch) -> Vec<u16>, port| {
            let hits: Vec<_> =
                left.iter().copied().filter(|c| ports(&c.matches).contains(&port)).collect();
            if hits.is_empty() {
                left.into_iter().filter(|c| ports(&c.matches).is_empty()).collect()
            } else {
                hits
            }
        };
    let by_prefix = |left: Vec<&'a Arc<FilterChain>>,
                     ranges: fn(&FilterChainMatch) -> &[CidrRange],
                     ip: IpAddr| {
        for len in (0..=128).rev() {
            let hits: Vec<_> = left
                .iter()
                .copied()
                .filter(|c| ranges(&c.matches).iter().any(|r| r.prefix_len == len && same(r, ip)))
                .collect();
            if !hits.is_empty() {
                return hits;
            }
        }
        left.into_iter().filter(|c| ranges(&c.matches).is_empty()).collect()
    };
    left = exact(left, |m| m.destination_port.into_iter().collect(), a.local.port());
    left = by_prefix(left, |m| &m.prefix_ranges, a.local.ip());
    left = by_prefix(left, |m| &m.direct_source_prefix_ranges, a.peer.ip());
    left = by_prefix(left, |m| &m.source_prefix_ranges, a.source.ip());
    left = exact(left, |m| m.source_ports.clone(), a.source.port());
    left.first().or(listener.default_filter_chain.as_ref().as_ref()).map(|c| c.name.as_str())
}

/// Compares bit by bit.
fn same(range: &CidrRange, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => format!("4{:032b}", ip.to_bits()),
        IpAddr::V6(ip) => format!("6{:0128b}", ip.to_bits()),
    };
    let len = usize::from(range.prefix_len) + 1;
    bits(range.address).bytes().take(len).eq(bits(ip).bytes().take(len))
}

fn ips() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..16).prop_map(|n| IpAddr::V4(Ipv4Addr::from_bits(n << 28 | n))),
        (0u128..8).prop_map(|n| IpAddr::V6(Ipv6Addr::from_bits(n << 125 | n))),
    ]
}

fn ranges() -> impl Strategy<Value = Vec<CidrRange>> {
    let range = (ips(), 0u8..=32).prop_map(|(address, len)| CidrRange {
        address,
        prefix_len: if len > 4 { 32 } else { len },
    });
    prop::collection::vec(range, 0..3)
}

fn matches() -> impl Strategy<Value = FilterChainMatch> {
    let ports = prop::collection::vec(1u16..4, 0..2);
    (prop::option::of(1u16..4), ranges(), ranges(), ranges(), ports).prop_map(
        |(destination_port, prefix_ranges, direct, source, source_ports)| FilterChainMatch {
            destination_port,
            prefix_ranges,
            direct_source_prefix_ranges: direct,
            source_prefix_ranges: source,
            source_ports,
        },
    )
}

proptest! {
    #[test]
    fn agrees_with_a_literal_reading(
        chains in prop::collection::vec(matches(), 0..8),
        default in any::<bool>(),
        (local, peer, source) in (ips(), ips(), ips()),
        (local_port, source_port) in (1u16..4, 1u16..4),
    ) {
        let chains = chains.into_iter().enumerate().map(|(i, m)| chain(&i.to_string(), m)).collect();
        let listener = listener(chains, default);
        let addresses = Addresses {
            local: SocketAddr::new(local, local_port),
            peer: SocketAddr::new(peer, source_port),
            source: SocketAddr::new(source, source_port),
        };
        let found = find(&listener, Some(&addresses)).map(|c| c.name.as_str());
        prop_assert_eq!(found, naive(&listener, &addresses));
    }
}

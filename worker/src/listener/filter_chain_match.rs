//! Which filter chain serves a connection: Envoy's `FilterChainMatch` without the parts of TLS.
//!
//! Criteria are looked at one after the other: destination port, destination address, directly
//! connected source address, source address, source port. Each step keeps only the chains with the
//! most specific match; as in Envoy a later step never goes back to a chain an earlier one left
//! out. When nothing is left, the default chain serves the connection, or nobody does.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::config::listener::{CidrRange, FilterChain, FilterChainMatch, Listener};

/// The addresses of a connection, as far as they take part in the choice of a filter chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// Where the client connected to.
    pub local: SocketAddr,
    /// Who is at the other end of the socket.
    pub peer: SocketAddr,
    /// The client's address: the peer, unless a listener filter restored another one.
    pub source: SocketAddr,
}

/// Chooses the filter chain for a connection; `None` addresses are those of Unix sockets.
pub fn find<'a>(
    listener: &'a Listener,
    addresses: Option<&Addresses>,
) -> Option<&'a Arc<FilterChain>> {
    let chains = listener.filter_chains.as_slice();
    // The usual listener has one chain that takes everything.
    if let [only] = chains
        && is_empty(&only.matches)
    {
        return Some(only);
    }
    let found = match addresses {
        Some(addresses) => narrow(chains, addresses),
        None => chains.iter().find(|chain| is_empty(&chain.matches)),
    };
    found.or(listener.default_filter_chain.as_ref())
}

fn is_empty(matches: &FilterChainMatch) -> bool {
    matches.destination_port.is_none()
        && matches.prefix_ranges.is_empty()
        && matches.direct_source_prefix_ranges.is_empty()
        && matches.source_prefix_ranges.is_empty()
        && matches.source_ports.is_empty()
}

/// How well one criterion matches: `None` = not at all, 0 = it says nothing, more = more specific.
type Score = Option<u16>;

const STEPS: [fn(&FilterChainMatch, &Addresses) -> Score; 5] = [
    |m, a| match m.destination_port {
        None => Some(0),
        Some(port) => (port == a.local.port()).then_some(1),
    },
    |m, a| longest(&m.prefix_ranges, a.local.ip()),
    |m, a| longest(&m.direct_source_prefix_ranges, a.peer.ip()),
    |m, a| longest(&m.source_prefix_ranges, a.source.ip()),
    |m, a| match m.source_ports.as_slice() {
        [] => Some(0),
        ports => ports.contains(&a.source.port()).then_some(1),
    },
];

fn narrow<'a>(
    chains: &'a [Arc<FilterChain>],
    addresses: &Addresses,
) -> Option<&'a Arc<FilterChain>> {
    let mut best: Vec<u16> = Vec::with_capacity(STEPS.len());
    for step in STEPS {
        let still_in = chains.iter().filter(|chain| agrees(chain, &best, addresses));
        best.push(still_in.filter_map(|chain| step(&chain.matches, addresses)).max()?);
    }
    chains.iter().find(|chain| agrees(chain, &best, addresses))
}

/// Whether a chain has the best score in every step so far.
fn agrees(chain: &FilterChain, best: &[u16], addresses: &Addresses) -> bool {
    STEPS.iter().zip(best).all(|(step, best)| step(&chain.matches, addresses) == Some(*best))
}

/// Length of the longest range that holds the address, plus one; 0 for an empty list.
fn longest(ranges: &[CidrRange], address: IpAddr) -> Score {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges.iter().filter(|r| r.contains(address)).map(|r| u16::from(r.prefix_len) + 1).max()
}

#[cfg(test)]
mod tests;

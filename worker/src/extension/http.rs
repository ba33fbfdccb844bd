//! HTTP filters: the list of those there are.

use crate::{
    config::{extension::HttpExtension, hcm::HttpFilter as Configured, settings::SharedSettings},
    drain::DrainHandle,
    filter::http::{
        HttpFilter,
        chain::{Entry, HttpChain},
    },
    stats::ThreadStats,
};

pub mod buffer;
pub mod fault;
pub mod header_mutation;
pub mod health_check;
pub mod local_ratelimit;
pub mod router;

/// What a filter is made from on a thread.
#[derive(Debug)]
pub struct Making<'a> {
    /// Whether the generation drains.
    pub drain: &'a DrainHandle,
    /// The thread's statistics.
    pub stats: &'a ThreadStats,
    /// `stat_prefix` of the connection manager.
    pub prefix: &'a str,
}

/// A kind of filter: what the loader knows of it, and how it is made on a thread.
#[derive(Debug)]
struct Room {
    known: &'static HttpExtension,
    /// `None` for what is no filter of a chain.
    make: fn(&SharedSettings, &Making<'_>) -> Option<Box<dyn HttpFilter>>,
}

/// All of them, in the order of the documentation.
const ROOMS: &[Room] = &[
    router::ROOM,
    health_check::ROOM,
    header_mutation::ROOM,
    fault::ROOM,
    buffer::ROOM,
    local_ratelimit::ROOM,
];

/// All of them, for the loader.
pub const KNOWN: &[&HttpExtension] = &{
    let mut known = [ROOMS[0].known; ROOMS.len()];
    let mut at = 0;
    while at < ROOMS.len() {
        known[at] = ROOMS[at].known;
        at += 1;
    }
    known
};

/// Makes the filters of a configuration run on a thread. The router is not among them.
pub fn chain(configured: &[Configured], making: &Making<'_>) -> HttpChain {
    let make = |configured: &Configured| {
        let room = ROOMS.iter().find(|room| room.known.message() == configured.message)?;
        let filter = (room.make)(&configured.settings, making)?;
        Some(Entry { filter, disabled: configured.disabled })
    };
    HttpChain::new(configured.iter().filter_map(make).collect())
}

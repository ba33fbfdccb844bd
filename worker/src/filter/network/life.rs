//! What `-l debug` tells about the life of connections and requests: one line for each step, with the
//! numbers that join them.
//!
//! Off, a step costs one comparison: the lines are written by functions that are never inlined, behind
//! [`told`]. Each line belongs to the component of its subject, whatever module it comes from.

use std::fmt;

use tracing::level_filters::LevelFilter;

use crate::{
    cluster::Endpoint,
    http::{
        head::RequestHead,
        stream_info::{ConnectionInfo, StreamInfo},
    },
    stats::EndReason,
};

/// Whether anybody may want to hear it.
#[inline]
pub(super) fn told() -> bool {
    LevelFilter::current() >= LevelFilter::DEBUG
}

/// A request on its connection: the number of the connection, and its own there, from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamId {
    /// Of the connection.
    pub(super) connection: u64,
    /// Of the request.
    pub(super) request: u32,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.connection, self.request)
    }
}

/// A client connected.
#[cold]
#[inline(never)]
pub(super) fn accepted(info: &ConnectionInfo) {
    tracing::debug!(
        target: "baton_worker::listener",
        connection = info.id,
        peer = info.peer.map(tracing::field::display),
        listener = &*info.listener,
        "accepted"
    );
}

/// Its connection is over, or goes on in another generation.
#[cold]
#[inline(never)]
pub(super) fn closed(connection: u64, reason: EndReason) {
    tracing::debug!(
        target: "baton_worker::listener",
        connection,
        reason = reason.as_str(),
        "closed"
    );
}

/// A request came; at `trace` with its headers.
#[cold]
#[inline(never)]
pub(super) fn request(stream: StreamId, request: &RequestHead) {
    tracing::debug!(
        target: "baton_worker::http",
        %stream,
        method = %request.method.escape_ascii(),
        authority = %request.authority.escape_ascii(),
        path = %request.path.escape_ascii(),
        "request"
    );
    for (name, value) in request.headers.iter() {
        tracing::trace!(
            target: "baton_worker::http",
            %stream,
            name = %name.escape_ascii(),
            value = %value.escape_ascii(),
            "request header"
        );
    }
}

/// The router found where it goes.
#[cold]
#[inline(never)]
pub(super) fn routed(stream: StreamId, route: &str, cluster: &str) {
    tracing::debug!(target: "baton_worker::route", %stream, route, cluster, "routed");
}

/// What happens towards an endpoint: chosen, connecting, connected, ….
#[cold]
#[inline(never)]
pub(super) fn upstream(stream: StreamId, endpoint: Option<&Endpoint>, step: &'static str) {
    let endpoint = endpoint.map(|endpoint| tracing::field::display(endpoint.address()));
    tracing::debug!(target: "baton_worker::upstream", %stream, endpoint, "{step}");
}

/// No connection to an endpoint.
#[cold]
#[inline(never)]
pub(super) fn connect_failed(stream: StreamId, cluster: &str, error: &dyn fmt::Display) {
    tracing::debug!(target: "baton_worker::upstream", %stream, cluster, %error, "cannot connect");
}

/// The head of the response goes to the client.
#[cold]
#[inline(never)]
pub(super) fn response(stream: StreamId, status: u16, info: &StreamInfo) {
    tracing::debug!(
        target: "baton_worker::http",
        %stream,
        status,
        details = &*info.details,
        "response"
    );
}

/// The request is over.
#[cold]
#[inline(never)]
pub(super) fn ended(stream: StreamId, info: &StreamInfo) {
    let mut flags = Vec::new();
    info.flags.letters(&mut flags);
    tracing::debug!(
        target: "baton_worker::http",
        %stream,
        status = info.status,
        flags = %flags.escape_ascii(),
        bytes_received = info.bytes_received,
        bytes_sent = info.bytes_sent,
        "request ended"
    );
}

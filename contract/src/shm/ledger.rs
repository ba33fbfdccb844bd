//! The loss ledger's place in the segment: every downstream connection is opened once and ends
//! once, with a reason.
//!
//! There is no "open" counter: open = opened − Σ reasons, so the books balance by construction.
//! What a dead generation left open is added to `crash` when it is retired.

use super::{Kind, MetricName};

/// Why a downstream connection ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EndReason {
    /// The client closed or reset it, or broke the protocol.
    Client = 0,
    /// The upstream closed or failed and took it along.
    Upstream = 1,
    /// A timeout of the configuration.
    Timeout = 2,
    /// Closed after a response that said so, because the generation drains.
    Drained = 3,
    /// Handed to another generation.
    Migrated = 4,
    /// Cut because the generation had to end, or because the connection did not get further.
    CutByDeadline = 5,
    /// Its process died.
    Crash = 6,
}

impl EndReason {
    /// All reasons, in the order of their cells.
    pub const ALL: [Self; 7] = [
        Self::Client,
        Self::Upstream,
        Self::Timeout,
        Self::Drained,
        Self::Migrated,
        Self::CutByDeadline,
        Self::Crash,
    ];

    /// `cut_by_deadline`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Timeout => "timeout",
            Self::Drained => "drained",
            Self::Migrated => "migrated",
            Self::CutByDeadline => "cut_by_deadline",
            Self::Crash => "crash",
        }
    }

    /// Name of the counter of connections that ended for this reason.
    pub fn metric(self) -> MetricName {
        MetricName::tagged(
            format!("baton.connections.ended.{}", self.as_str()),
            "baton.connections_ended",
            &[("reason", self.as_str())],
        )
    }
}

/// What an open downstream connection is used for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ConnectionKind {
    /// HTTP/1 between or in requests.
    Http1 = 0,
    /// HTTP/1 upgraded, as to WebSocket, or a CONNECT tunnel.
    Upgraded = 1,
    /// A TCP tunnel.
    Tcp = 2,
}

impl ConnectionKind {
    /// All kinds, in the order of their cells.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Upgraded, Self::Tcp];

    /// `upgraded`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Upgraded => "upgraded",
            Self::Tcp => "tcp",
        }
    }

    /// Name of the gauge of open connections of this kind.
    pub fn metric(self) -> MetricName {
        MetricName::tagged(
            format!("baton.connections.open.{}", self.as_str()),
            "baton.connections_open",
            &[("kind", self.as_str())],
        )
    }

    /// Name of the counter of connections of this kind that were given to another generation.
    pub fn moved_metric(self) -> MetricName {
        let kind = self.as_str();
        let name = format!("baton.migration.moved.{kind}");
        MetricName::tagged(name, "baton.migration_moved", &[("kind", kind)])
    }
}

/// Name of the counter of connections that were opened.
pub fn opened_metric() -> MetricName {
    MetricName::tagged("baton.connections.opened", "baton.connections_opened", &[])
}

/// The metrics that every segment has in its first directory entries, in this order, each of one
/// cell, so that the cell of each is known without a look at the directory.
pub(crate) fn well_known() -> Vec<(Kind, MetricName)> {
    let mut list = vec![(Kind::Counter, opened_metric())];
    list.extend(EndReason::ALL.map(|reason| (Kind::Counter, reason.metric())));
    list.extend(ConnectionKind::ALL.map(|kind| (Kind::Gauge, kind.metric())));
    list
}

/// Cell of the opened connections.
pub(super) const OPENED: usize = 0;
/// First cell of the reasons.
pub(super) const ENDED: usize = 1;
/// First cell of the open connections by kind.
pub(super) const OPEN: usize = ENDED + EndReason::ALL.len();

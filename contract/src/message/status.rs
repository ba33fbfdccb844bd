//! The numbers a worker sends about its connections.

use serde::{Deserialize, Serialize};

/// STATUS: a snapshot, not a difference.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Status {
    /// Open downstream connections.
    pub connections: u64,
    /// Downstream connections accepted or imported since the start.
    pub opened: u64,
    /// Why downstream connections ended, since the start.
    pub ended: Ended,
    /// Requests in progress.
    pub active_requests: u64,
    /// Monotonic time of the last turn of the slowest worker thread; 0 = unknown.
    pub slowest_thread_mono_ms: u64,
    /// Open downstream connections by kind.
    pub open: Kinds,
    /// Connections that were given to another generation, by kind.
    pub moved: Kinds,
    /// Idle connections to endpoints that were given to another generation.
    pub moved_upstream: u64,
    /// Connections that ended here while others moved, by why they had not moved.
    pub stayed: std::collections::BTreeMap<String, u64>,
    /// Worker threads that make no progress, at most [`MAX_STUCK`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<StuckThread>,
    /// Open downstream connections of the other threads; only when some are stuck.
    #[serde(skip_serializing_if = "is_zero")]
    pub served: u64,
}

/// Most threads that are named in one message.
pub const MAX_STUCK: usize = 16;

/// A worker thread that spins or hangs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct StuckThread {
    /// Its number, 0 first.
    pub thread: u32,
    /// Time since it made progress last.
    pub for_ms: u64,
    /// Its open downstream connections.
    pub connections: u64,
    /// What it does and what it began last, for the log.
    pub text: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Numbers of connections by what they are used for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Kinds {
    /// HTTP/1, between or in requests.
    pub http1: u64,
    /// WebSocket and the like, CONNECT.
    pub upgraded: u64,
    /// TCP tunnels.
    pub tcp: u64,
}

impl Kinds {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.http1.saturating_add(self.upgraded).saturating_add(self.tcp)
    }

    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            http1: self.http1.saturating_add(other.http1),
            upgraded: self.upgraded.saturating_add(other.upgraded),
            tcp: self.tcp.saturating_add(other.tcp),
        }
    }

    /// What came in addition to `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            http1: self.http1.saturating_sub(before.http1),
            upgraded: self.upgraded.saturating_sub(before.upgraded),
            tcp: self.tcp.saturating_sub(before.tcp),
        }
    }
}

/// Downstream connections by the reason they ended for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Ended {
    /// The client ended it.
    pub client: u64,
    /// The upstream ended it.
    pub upstream: u64,
    /// A timeout.
    pub timeout: u64,
    /// It was announced and closed while draining.
    pub drained: u64,
    /// It lives on in another generation.
    pub migrated: u64,
    /// It was cut at a deadline.
    pub cut_by_deadline: u64,
    /// The process died.
    pub crash: u64,
}

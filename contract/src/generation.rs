//! Numbers and states of generations.

use serde::{Deserialize, Serialize};

/// The number of a worker generation: 0 for the first, one more for each start of a worker.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a generation is in its life.
///
/// ```text
/// STARTING → WARMING → READY → SERVING → HANDING_OFF → DRAINING → DEAD
///     └─────────┴────────┴→ FAILED          └── RESUME ──→ SERVING
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum State {
    /// Started, reads its configuration.
    Starting = 1,
    /// Configuration is good; resolves names, receives listeners.
    Warming = 2,
    /// Could serve at once; polls nothing yet.
    Ready = 3,
    /// Polls the listeners.
    Serving = 4,
    /// Stopped polling, keeps the listeners, can be resumed.
    HandingOff = 5,
    /// Finishes what it has.
    Draining = 6,
    /// Died or was refused before it ended cleanly.
    Failed = 7,
    /// Ended cleanly.
    Dead = 8,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Warming,
        Self::Ready,
        Self::Serving,
        Self::HandingOff,
        Self::Draining,
        Self::Failed,
        Self::Dead,
    ];

    /// The state with this number, as the segment has it.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u64 == number)
    }

    /// `HANDING_OFF`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Warming => "WARMING",
            Self::Ready => "READY",
            Self::Serving => "SERVING",
            Self::HandingOff => "HANDING_OFF",
            Self::Draining => "DRAINING",
            Self::Failed => "FAILED",
            Self::Dead => "DEAD",
        }
    }
}

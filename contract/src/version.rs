//! Versions of the handoff protocol, and how two processes agree on one.
//!
//! Each side names the lowest and the highest protocol it speaks; the highest common one is used.
//! Without a common one the generation is refused and the running one stays untouched.

use serde::{Deserialize, Serialize};

use crate::shm::LAYOUT_MAJOR;

/// Oldest protocol version this build speaks.
pub const PROTO_MIN: u16 = 1;
/// Newest protocol version this build speaks.
pub const PROTO_MAX: u16 = 1;

/// Debug builds only: `MIN..MAX`, the protocol versions this process says it speaks.
const TEST_PROTO: &str = "BATON_TEST_PROTO";
/// Debug builds only: the segment layout this process says it knows.
const TEST_SHM_LAYOUT: &str = "BATON_TEST_SHM_LAYOUT";

/// Layout of the shared-memory segment this process knows. A worker that knows another one than its
/// supervisor keeps its statistics to itself.
pub fn shm_layout() -> u32 {
    for_tests(TEST_SHM_LAYOUT).and_then(|text| text.parse().ok()).unwrap_or(LAYOUT_MAJOR)
}

/// What `--hot-restart-version` and the admin interface show: two programs with the same text can
/// hand over to each other and share a segment.
pub fn hot_restart_version() -> String {
    format!("baton.{PROTO_MAX}.{LAYOUT_MAJOR}")
}

/// What a test says, so that one source makes builds of several versions.
pub(crate) fn for_tests(variable: &str) -> Option<String> {
    if cfg!(debug_assertions) { std::env::var(variable).ok() } else { None }
}

/// Features this build offers in HELLO and accepts in WELCOME. Both sides ignore unknown names.
pub const FEATURES: &[&str] = &[
    "listener-shards",
    "probation",
    "status",
    crate::peer::FEATURE,
    crate::message::ADDRESSES_FEATURE,
    crate::message::DRAIN_LISTENERS_FEATURE,
    crate::message::LIVE_LISTENERS_FEATURE,
    crate::message::RESOURCES_FEATURE,
];

/// The protocol versions one side speaks, both ends included.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProtoRange {
    /// Oldest version.
    pub min: u16,
    /// Newest version.
    pub max: u16,
}

impl ProtoRange {
    /// What this build speaks.
    pub fn ours() -> Self {
        let asked = for_tests(TEST_PROTO);
        let asked = asked.as_deref().and_then(|text| text.split_once(".."));
        asked
            .and_then(|(min, max)| Some(Self { min: min.parse().ok()?, max: max.parse().ok()? }))
            .unwrap_or(Self { min: PROTO_MIN, max: PROTO_MAX })
    }

    /// The newest version both sides speak.
    ///
    /// # Errors
    /// When there is none.
    pub fn negotiate(self, other: Self) -> Result<u16, NoCommonVersion> {
        let newest = self.max.min(other.max);
        let oldest = self.min.max(other.min);
        if newest < oldest {
            return Err(NoCommonVersion { ours: self, theirs: other });
        }
        Ok(newest)
    }
}

/// The two sides have no protocol version in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "no common handoff protocol: we speak {}..={}, the other side speaks {}..={}",
    ours.min, ours.max, theirs.min, theirs.max
)]
pub struct NoCommonVersion {
    /// What this side speaks.
    pub ours: ProtoRange,
    /// What the other side speaks.
    pub theirs: ProtoRange,
}

/// The features of `offered` this build knows, in our order.
pub fn common_features(offered: &[String]) -> Vec<String> {
    FEATURES
        .iter()
        .filter(|ours| offered.iter().any(|theirs| theirs == *ours))
        .map(|name| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_wins() {
        let check = |ours: (u16, u16), theirs: (u16, u16), expected: Option<u16>| {
            let ours = ProtoRange { min: ours.0, max: ours.1 };
            let theirs = ProtoRange { min: theirs.0, max: theirs.1 };
            assert_eq!(ours.negotiate(theirs).ok(), expected);
            assert_eq!(theirs.negotiate(ours).ok(), expected, "order must not matter");
        };
        check((1, 1), (1, 1), Some(1));
        check((1, 3), (2, 5), Some(3));
        check((1, 3), (1, 2), Some(2));
        check((1, 1), (2, 5), None);
    }

    #[test]
    fn unknown_features_are_ignored() {
        let offered = vec!["status".to_owned(), "teleport".to_owned()];
        assert_eq!(common_features(&offered), vec!["status".to_owned()]);
    }
}

//! What a generation accepted beside its configuration file: told by workers, kept by the supervisor as
//! bytes it does not look into, and given to the next worker, which begins with them.

use serde::{Deserialize, Serialize};

/// Name of the feature in HELLO and WELCOME. A worker without it tells nothing and is given nothing.
pub const RESOURCES_FEATURE: &str = "resources-1";
/// Most bytes of resources of one generation, as of its configuration.
pub const MAX_RESOURCES_LEN: u64 = 64 * 1024 * 1024;

/// RESOURCES: carries one descriptor, a sealed memfd.
///
/// A worker says it whenever what it accepted changed, all of it each time, and again after REATTACHED.
/// A new worker gets the last one of the generation that serves, or served last, between CONFIG and
/// LISTENERS; until it says another one, that one counts as its own.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Resources {
    /// Hash of the bytes, as the worker that said it counts; for the one that reads them.
    pub hash: String,
    /// Bytes in the memfd, at most [`MAX_RESOURCES_LEN`].
    pub size: u64,
}

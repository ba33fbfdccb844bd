//! Filters: network filters on connections, HTTP filters on streams, and the chains they form.
//!
//! What a filter is called in the configuration, and how its settings are decoded, is the
//! configuration's business; here a decoded filter becomes one that runs.

pub mod chain;
pub mod http;
pub mod network;

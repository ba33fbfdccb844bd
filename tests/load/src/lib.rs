//! What the load generator shares with other test programs.

pub mod latency;

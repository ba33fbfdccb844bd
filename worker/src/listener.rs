//! Listeners: accepting connections and choosing the filter chain for each.

pub mod filter_chain_match;

//! System calls that no dependency wraps.

pub mod fault;
pub mod send_queue;

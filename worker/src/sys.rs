//! System calls that no dependency wraps.

pub mod send_queue;

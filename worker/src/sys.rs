//! System calls that no dependency wraps.

pub mod fault;
pub mod heap;
pub mod receive_queue;
pub mod reserve;
pub mod send_queue;
pub mod tcp;

//! What baton's supervisor and its workers must agree on.
//!
//! Frames of the handoff channel, messages in them, the layout of the shared-memory segment, and
//! exit codes. There is no configuration type here, so a supervisor can start a worker whose
//! configuration has fields it never heard of.

pub mod channel;
pub mod clock;
pub mod control;
pub mod exit;
pub mod fault;
pub mod frame;
pub mod generation;
pub mod listener_key;
pub mod memfd;
pub mod message;
pub mod peer;
pub mod place;
pub mod record;
pub mod shm;
pub mod task;
pub mod version;
pub mod words;

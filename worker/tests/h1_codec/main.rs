//! The HTTP/1 codec against hostile input, against itself and against other parsers.
//!
//! Everything here is bytes in memory: no sockets, no clocks.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]
#![expect(clippy::too_many_lines, reason = "tables are as long as they must be")]

mod differential;
mod harness;
mod properties;
mod requests;
mod responses;
mod tables;

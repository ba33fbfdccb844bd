//! A connection as a whole: two scripts of bytes with pauses, one of the client and one of the upstream,
//! through a proxy with real sockets. What must hold is in `scripts.rs`, which the normal tests use too.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the normal tests use the rest")]

use libfuzzer_sys::fuzz_target;

#[path = "../../worker/tests/http1/client.rs"]
mod client;
#[path = "../../worker/tests/http1/harness.rs"]
mod harness;
#[path = "../../worker/tests/http1/message.rs"]
mod message;
#[path = "../../worker/tests/http1/scripts.rs"]
mod scripts;

fuzz_target!(|input: &[u8]| scripts::Scripts::parse(input).check());

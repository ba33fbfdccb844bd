//! Routing: which route a request takes, and what that route does to its head.
//!
//! Pure code: no input or output, no clock, and the random number comes from the caller. The
//! order of a request is [`RouteTable::find`], then for a forwarding route [`choose`] and
//! [`finalize_request`], and for its response [`headers::apply_response`]; for a redirect
//! [`redirect::location`].

pub mod headers;
pub mod matcher;
pub mod redirect;
pub mod retry;
pub mod rewrite;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod weighted;

pub use headers::Levels;
pub use rewrite::{EnvoyHeaders, auto_host, finalize_request};
pub use slot::RouteSlot;
pub use table::{Found, Matched, RouteId, RouteTable};
pub use weighted::{Choice, Target, choose};

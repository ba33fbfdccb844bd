//! Named points where a test can make this process die, stop, hang or wait. Debug builds only.
//!
//! What they do is in the contract, because the supervisor has such points too.

pub use baton_contract::fault::point;

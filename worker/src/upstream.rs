//! Connections to endpoints: how they are made and, above that, how they are kept and used again.

pub mod connect;
pub mod pool;

pub use crate::transport::Stream;

//! Connections to endpoints: how they are made and, above that, how they are kept and used again.

pub mod connect;
pub mod counted;
pub mod pool;
pub mod shortage;

pub use crate::transport::Stream;

//! Configuration: from Envoy's YAML or JSON to the immutable model the worker runs on.
//!
//! The model modules hold plain data. How text becomes the model lives beside them.

pub mod access_log;
pub mod cluster;
pub mod diagnostics;
pub mod hcm;
pub mod listener;
pub mod load;
pub mod model;
pub mod route;

//! Configuration: from Envoy's YAML or JSON to the immutable model the worker runs on.
//!
//! The model modules hold plain data. How text becomes the model lives beside them.

pub mod access_log;
pub mod cluster;
mod decode;
pub mod diagnostics;
mod dump;
pub mod hcm;
pub mod listener;
pub mod load;
mod lower;
mod message;
pub mod model;
mod overlay;
pub mod route;
mod rules;
mod schema;
mod source;
mod suggest;
mod support;
mod yaml;

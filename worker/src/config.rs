//! Configuration: from Envoy's YAML or JSON to the immutable model the worker runs on.
//!
//! The model modules hold plain data. How text becomes the model lives beside them.

pub mod access_log;
pub mod bundle;
pub mod cluster;
mod decode;
pub mod diagnostics;
mod dump;
pub mod extension;
mod foreign;
pub mod hcm;
pub mod kind;
pub mod listener;
pub mod load;
pub(crate) mod lower;
pub mod matcher;
pub(crate) mod message;
pub mod model;
pub mod names;
pub mod node;
mod overlay;
pub(crate) mod pattern;
pub mod resource;
pub mod retry;
pub mod route;
mod rules;
mod schema;
pub mod settings;
pub(crate) mod source;
pub mod subscription;
mod suggest;
pub(crate) mod support;
pub mod target;
mod yaml;

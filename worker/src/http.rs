//! HTTP as the data path sees it: heads, header lists, the HTTP/1 codec, path normalisation, and
//! what is known about one stream.

pub mod forwarded;
pub mod grpc;
pub mod h1;
pub mod head;
pub mod header_match;
pub mod headers;
pub mod local_reply;
pub mod path;
pub mod query;
pub mod stream_info;

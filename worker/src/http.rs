//! HTTP as the data path sees it: heads, header lists, and what is known about one stream.

pub mod forwarded;
pub mod head;
pub mod header_match;
pub mod headers;
pub mod local_reply;
pub mod stream_info;

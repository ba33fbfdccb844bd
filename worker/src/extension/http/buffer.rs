//! `envoy.filters.http.buffer`: a request goes on when its body is here whole, with a `content-length`.
//!
//! The body waits in the queue for the endpoint, which needs it anyhow. Meanwhile the connection stays in
//! this process.

use std::sync::Arc;

use super::{Making, Room};
use crate::{
    config::{
        extension::HttpExtension,
        lower::{Lower, common},
        message::Msg,
        settings::{SharedSettings, settings_of},
        support::{read, strict},
    },
    filter::http::{HttpFilter, Step, StreamContext},
    http::head::RequestHead,
};

const MESSAGE: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
const OF_ROUTE: &str = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";

/// Its entry in the list.
pub(super) const ROOM: Room = Room { known: &EXTENSION, make };

const EXTENSION: HttpExtension = HttpExtension {
    names: &["envoy.filters.http.buffer", "envoy.buffer"],
    message: MESSAGE,
    may_be_empty: false,
    is_terminal: false,
    tables: &[
        strict(
            MESSAGE,
            &[read(
                "max_request_bytes",
                "more is answered with 413, when the length is known at once",
            )],
        ),
        strict(OF_ROUTE, &[read("disabled", ""), read("buffer", "")]),
    ],
    skippable: &[],
    lower,
    per_route: Some((OF_ROUTE, lower_of_route)),
};

/// Most bytes of a body; `None` = it is not waited for.
#[derive(Debug)]
struct Settings {
    most: Option<usize>,
}

#[expect(clippy::unnecessary_wraps, reason = "others may find a mistake")]
fn lower(_: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    let most = common::size(message.uint("max_request_bytes").unwrap_or(0));
    Some(Arc::new(Settings { most: Some(most) }))
}

fn lower_of_route(lowered: &Lower<'_>, message: &Msg) -> Option<SharedSettings> {
    if message.flag("disabled") == Some(true) {
        return Some(Arc::new(Settings { most: None }));
    }
    lower(lowered, message.message("buffer")?)
}

fn make(settings: &SharedSettings, _: &Making<'_>) -> Option<Box<dyn HttpFilter>> {
    Some(Box::new(Buffer { settings: settings_of(settings)? }))
}

/// The filter. It keeps nothing of a stream.
#[derive(Debug)]
struct Buffer {
    settings: Arc<Settings>,
}

impl HttpFilter for Buffer {
    fn on_request(&self, _: &mut RequestHead, cx: &mut StreamContext<'_>) -> Step {
        match cx.settings_or(&*self.settings).most {
            Some(most) if !cx.is_whole => Step::Buffer(most),
            Some(_) | None => Step::Continue,
        }
    }
}

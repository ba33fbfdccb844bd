//! `/init_dump`: what is still waited for.

use std::collections::BTreeSet;

use serde_json::json;

use super::{AdminContext, Answer, query::Query};
use crate::config::kind::Kind;

/// Answers `/init_dump`. With `mask=listener` only what listeners wait for.
pub(super) fn answer(context: &AdminContext, query: &Query) -> Answer {
    let only_listeners = query.get("mask").is_some_and(|mask| mask == "listener");
    let view = context.shown.load();
    let awaited = view.files.iter().filter(|file| {
        file.is_awaited && (!only_listeners || file.kind == Kind::RouteConfiguration)
    });
    let names: BTreeSet<_> = awaited.map(|file| file.path.display().to_string()).collect();
    if names.is_empty() {
        return Answer::json(&json!({}));
    }
    let server = json!({ "name": "init manager Server", "target_names": names });
    Answer::json(&json!({ "unready_targets_dumps": [server] }))
}

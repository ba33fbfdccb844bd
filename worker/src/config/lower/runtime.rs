//! Runtime layers. The only values baton reads are limits of connections.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::{
    super::{
        message::{Msg, Value},
        source::At,
    },
    Lower,
};

/// Limits of connections.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Over all listeners.
    pub(super) global: Option<u64>,
    /// By the name of the listener.
    pub(super) listeners: HashMap<String, u64>,
}

impl Lower<'_> {
    /// Limits of connections; what a later layer says counts.
    pub(super) fn runtime(&self, root: &Msg) -> Limits {
        let mut limits = Limits::default();
        let layers = root.message("layered_runtime");
        for layer in layers.into_iter().flat_map(|layers| layers.messages("layers")) {
            let Some(set) = layer.get("static_layer") else { continue };
            if let Value::Json(json) = &set.item.value {
                self.values("", json, &set.item.at, &mut limits);
            }
        }
        limits
    }

    fn values(&self, prefix: &str, json: &Json, at: &At, limits: &mut Limits) {
        if let Json::Object(entries) = json
            && !entries.contains_key("numerator")
        {
            for (key, value) in entries {
                let dot = if prefix.is_empty() { "" } else { "." };
                self.values(&format!("{prefix}{dot}{key}"), value, at, limits);
            }
            return;
        }
        let global = prefix == "overload.global_downstream_max_connections";
        let listener = prefix
            .strip_prefix("envoy.resource_limits.listener.")
            .and_then(|rest| rest.strip_suffix(".connection_limit"));
        let number = json.as_u64().or_else(|| json.as_str().and_then(|text| text.parse().ok()));
        match (listener, number) {
            (Some(listener), Some(limit)) => {
                limits.listeners.insert(listener.to_owned(), limit);
            }
            (None, Some(limit)) if global => limits.global = Some(limit),
            (listener, None) if global || listener.is_some() => {
                self.report.error(at, format!("`{prefix}` must be a whole number"));
            }
            (_, _) => {
                self.report.warning(at, format!("the runtime value `{prefix}` has no effect"));
            }
        }
    }
}

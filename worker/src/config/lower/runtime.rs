//! Runtime layers. The only value baton reads is a listener's limit of connections.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::{
    super::{
        message::{Msg, Value},
        source::At,
    },
    Lower,
};

impl Lower<'_> {
    /// Limits of connections by the name of the listener.
    pub(super) fn runtime(&self, root: &Msg) -> HashMap<String, u64> {
        let mut limits = HashMap::new();
        let layers = root.message("layered_runtime");
        for layer in layers.into_iter().flat_map(|layers| layers.messages("layers")) {
            let Some(set) = layer.get("static_layer") else { continue };
            if let Value::Json(json) = &set.item.value {
                self.values("", json, &set.item.at, &mut limits);
            }
        }
        limits
    }

    fn values(&self, prefix: &str, json: &Json, at: &At, limits: &mut HashMap<String, u64>) {
        if let Json::Object(entries) = json
            && !entries.contains_key("numerator")
        {
            for (key, value) in entries {
                let dot = if prefix.is_empty() { "" } else { "." };
                self.values(&format!("{prefix}{dot}{key}"), value, at, limits);
            }
            return;
        }
        let listener = prefix
            .strip_prefix("envoy.resource_limits.listener.")
            .and_then(|rest| rest.strip_suffix(".connection_limit"));
        let number = json.as_u64().or_else(|| json.as_str().and_then(|text| text.parse().ok()));
        match (listener, number) {
            (Some(listener), Some(limit)) => {
                limits.insert(listener.to_owned(), limit);
            }
            (Some(_), None) => {
                self.report.error(at, format!("`{prefix}` must be a whole number"));
            }
            (None, _) if prefix == "overload.global_downstream_max_connections" => {
                let text = format!("`{prefix}` is not implemented by baton yet");
                let hint = "write `envoy.resource_limits.listener.NAME.connection_limit`";
                if self.allow_unimplemented {
                    self.report.warning(at, format!("{text}; it is left out")).hint(hint);
                } else {
                    self.report.error(at, text).hint(hint);
                }
            }
            (None, _) => {
                self.report.warning(at, format!("the runtime value `{prefix}` has no effect"));
            }
        }
    }
}

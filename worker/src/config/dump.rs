//! What `/config_dump` shows: the messages as protobuf's JSON, secrets redacted.

use serde_json::{Map, Value as Json, json};

use super::message::{Item, Msg, Value};

const PREFIX: &str = "type.googleapis.com/";

/// What stands in the place of a secret, as in Envoy.
const REDACTED: &str = "[redacted]";

/// The whole dump, in the shape of Envoy's `ConfigDump`.
pub(crate) fn config_dump(root: &Msg) -> Json {
    let resources = root.peek("static_resources").and_then(|set| set.item.message());
    let wrap = |name: &str, key: &str| -> Vec<Json> {
        let set = resources.and_then(|resources| resources.peek(name));
        let Some(Value::List(items)) = set.map(|set| &set.item.value) else { return Vec::new() };
        items.iter().filter_map(Item::message).map(|m| json!({ key: any(m) })).collect()
    };
    let mut routes = Vec::new();
    find_routes(root, &mut routes);
    let dump = |name: &str, key: &str, list: Vec<Json>| {
        let mut object = Map::new();
        object.insert("@type".into(), format!("{PREFIX}envoy.admin.v3.{name}").into());
        if !list.is_empty() {
            object.insert(key.into(), list.into());
        }
        Json::Object(object)
    };
    json!({
        "configs": [
            {
                "@type": format!("{PREFIX}envoy.admin.v3.BootstrapConfigDump"),
                "bootstrap": message(root),
            },
            dump("ClustersConfigDump", "static_clusters", wrap("clusters", "cluster")),
            dump("ListenersConfigDump", "static_listeners", wrap("listeners", "listener")),
            dump("RoutesConfigDump", "static_route_configs", routes),
            dump("SecretsConfigDump", "static_secrets", Vec::new()),
        ]
    })
}

/// One message.
pub(crate) fn message(message: &Msg) -> Json {
    Json::Object(fields(message, false))
}

/// One message with its `@type`.
fn any(message: &Msg) -> Json {
    let mut object = Map::new();
    object.insert("@type".into(), format!("{PREFIX}{}", message.ty.full_name).into());
    object.extend(fields(message, false));
    Json::Object(object)
}

fn fields(message: &Msg, secret: bool) -> Map<String, Json> {
    let mut object = Map::new();
    if message.type_url_span.is_some() {
        object.insert("@type".into(), format!("{PREFIX}{}", message.ty.full_name).into());
    }
    for set in &message.fields {
        let Some(field) = message.field(set) else { continue };
        object.insert(field.name.to_owned(), item(&set.item, secret || field.sensitive));
    }
    object
}

fn item(item_: &Item, secret: bool) -> Json {
    match &item_.value {
        Value::Text(_) | Value::Bytes(_) | Value::Json(_) if secret => REDACTED.into(),
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Double(value) => (*value).into(),
        Value::Text(text) => text.as_str().into(),
        Value::Bytes(bytes) => base64(bytes).into(),
        Value::Enum(_, name) => (*name).into(),
        Value::Duration(value) => value.to_text().into(),
        Value::Message(message) => Json::Object(fields(message, secret)),
        Value::List(items) => items.iter().map(|i| item(i, secret)).collect(),
        Value::Map(entries) => Json::Object(
            entries.iter().map(|(key, value)| (key.clone(), item(value, secret))).collect(),
        ),
        Value::Json(json) => json.clone(),
    }
}

/// Collects the route tables of all connection managers.
fn find_routes(message: &Msg, found: &mut Vec<Json>) {
    for set in &message.fields {
        let single = std::slice::from_ref(&set.item);
        let items = if let Value::List(items) = &set.item.value { items } else { single };
        for inner in items.iter().filter_map(Item::message) {
            if inner.ty.full_name == "envoy.config.route.v3.RouteConfiguration" {
                found.push(json!({ "route_config": any(inner) }));
            } else {
                find_routes(inner, found);
            }
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let index = (bits >> (18 - 6 * i) & 63) as usize;
            let used = i <= chunk.len();
            text.push(if used { ALPHABET.get(index).copied().unwrap_or(b'=').into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        assert_eq!(base64(b"hi"), "aGk=");
        assert_eq!(base64(b"h"), "aA==");
        assert_eq!(base64(b"hey"), "aGV5");
    }
}

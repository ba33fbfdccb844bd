//! Decodes `google.protobuf.Any`: the `@type` says which message the mapping is.

use std::rc::Rc;

use super::{
    super::{
        message::{Item, Msg, Set, Value},
        schema::MessageType,
        source::At,
        suggest, yaml,
        yaml::{Entry, Node},
    },
    Decoder, legacy, scalar,
};

/// What stands before the name in a type URL.
const PREFIX: &str = "type.googleapis.com/";

/// Messages that wrap another one by name and free-form data.
const TYPED_STRUCTS: &[&str] = &["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// True for `{}` and nothing.
fn is_empty(node: &Node) -> bool {
    match &node.value {
        yaml::Value::Null => true,
        yaml::Value::Mapping(entries) => entries.is_empty(),
        yaml::Value::Scalar { .. } | yaml::Value::Sequence(_) => false,
    }
}

/// True for the configuration of an extension, by its name of today or of API v2, that says nothing: it
/// counts as if it were not there.
pub(super) fn is_left_out(ty: &MessageType, entry: &Entry) -> bool {
    let of_extension = ty.position("typed_config").is_some() && ty.position("name").is_some();
    let key = entry.key.as_str();
    let is_config = matches!(key, "typed_config" | "typedConfig")
        || (key == "config" && ty.position("config").is_none());
    of_extension && is_config && is_empty(&entry.value)
}

/// The one message whose `Any` may be empty: a filter is switched on without a configuration.
const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

impl Decoder<'_> {
    /// The type of an extension by its name.
    pub(super) fn extension_type(&self, name: &str) -> Option<&'static str> {
        let known = self.schema.extensions.named(name).map(|known| known.message);
        known.or_else(|| legacy::extension_type(name))
    }

    /// True when an extension of this type needs no configuration.
    fn may_be_empty(&self, ty: &str) -> bool {
        let known = self.schema.extensions.http_filter(ty);
        known.map_or_else(|| legacy::may_be_empty(ty), |known| known.may_be_empty)
    }

    /// Decodes a mapping with an `@type`.
    pub(super) fn any(&self, node: &Node, at: At) -> Option<Msg> {
        let of_filter =
            self.parents.borrow().last().is_some_and(|ty| ty.full_name == FILTER_CONFIG);
        if of_filter && is_empty(node) {
            let ty = self.schema.message("google.protobuf.Empty")?;
            return Some(Msg {
                ty,
                at,
                fields: Vec::new(),
                broken: Vec::new(),
                type_url_span: None,
            });
        }
        let yaml::Value::Mapping(_) = &node.value else {
            let text = format!("expected a mapping with `@type`, found {}", node.describe());
            self.report.error(&at, text);
            return None;
        };
        let Some(entry) = node.get("@type") else {
            self.report
                .error(&at, "`@type` is missing")
                .hint(format!("add `\"@type\": {PREFIX}envoy.…`"));
            return None;
        };
        let type_at = At { span: entry.value.span, path: at.path.key("@type") };
        let yaml::Value::Scalar { text, .. } = &entry.value.value else {
            self.report.error(&type_at, format!("expected text, found {}", entry.value.describe()));
            return None;
        };
        if TYPED_STRUCTS.contains(&text.rsplit('/').next().unwrap_or("")) {
            return self.typed_struct(node, &at);
        }
        let ty = self.resolve(text, &type_at)?;
        let mut message = if scalar::well_known(&ty.full_name).is_some() {
            // Google's own types have their content in `value`.
            let empty = Node { value: yaml::Value::Null, span: node.span };
            self.message(&empty, &ty, at)?
        } else {
            self.message_without(node, &ty, at, &["@type"])?
        };
        message.type_url_span = Some(entry.value.span);
        Some(message)
    }

    /// Finds the message of a type URL.
    fn resolve(&self, url: &str, at: &At) -> Option<Rc<MessageType>> {
        let name = url.rsplit('/').next().unwrap_or(url);
        if let Some(ty) = self.schema.message(name) {
            if !url.contains('/') {
                self.report
                    .error(at, format!("`{}` is not a type URL", yaml::shorten(url)))
                    .hint(format!("write `{PREFIX}{name}`"));
            }
            return Some(ty);
        }
        let shown = yaml::shorten_to(name, 150);
        if !self.report.shows_error(at) {
            self.report.error(at, format!("baton knows no type `{shown}`"));
            return None;
        }
        if let Some(hint) = legacy::removed(name) {
            self.report.error(at, format!("baton knows no type `{shown}`")).hint(hint);
            return None;
        }
        if let Some(new) = self.schema.successor(name) {
            self.report
                .error(at, format!("`{shown}` is a type of an older API"))
                .hint(format!("write `{PREFIX}{new}`"));
            return None;
        }
        let is_old = name.contains(".v2.") || name.starts_with("envoy.api.");
        if name.starts_with("envoy.extensions.")
            && suggest::nearest(name, self.schema.names()).is_none()
        {
            // Envoy's contrib extensions and those newer than the descriptors.
            self.report
                .error(at, format!("`{shown}` is not known to baton"))
                .hint("it is not one of Envoy's own extensions, or it is newer than this baton");
            return None;
        }
        let added = self.report.error(at, format!("baton knows no type `{shown}`"));
        let last = name.rsplit('.').next().unwrap_or(name);
        let same_name = |candidate: &&str| candidate.rsplit('.').next() == Some(last);
        let mut twins: Vec<&str> =
            self.schema.names().filter(same_name).filter(|n| n.starts_with("envoy.")).collect();
        twins.sort_unstable();
        let near = match twins.as_slice() {
            [] => suggest::nearest(name, self.schema.names()).map(str::to_owned),
            [one] => Some((*one).to_owned()),
            [..] => suggest::nearest(name, twins.iter().copied()).map(str::to_owned),
        };
        match near {
            Some(name) => added.hint(format!("did you mean `{PREFIX}{name}`?")),
            None if is_old => added.hint("baton reads Envoy's API v3 only"),
            None => added.hint(format!("types start with `{PREFIX}envoy.`")),
        };
        None
    }

    /// `TypedStruct`: `type_url` names the message, `value` holds it.
    fn typed_struct(&self, node: &Node, at: &At) -> Option<Msg> {
        let url = node.get("type_url").or_else(|| node.get("typeUrl"));
        let Some(url) = url else {
            self.report.error(at, "`type_url` is missing");
            return None;
        };
        let type_at = At { span: url.value.span, path: at.path.key("type_url") };
        let yaml::Value::Scalar { text, .. } = &url.value.value else {
            self.report.error(&type_at, format!("expected text, found {}", url.value.describe()));
            return None;
        };
        let ty = self.resolve(text, &type_at)?;
        let empty = Node { value: yaml::Value::Null, span: node.span };
        let value = node.get("value").map_or(&empty, |entry| &entry.value);
        let inner = At { span: value.span, path: at.path.key("value") };
        let mut message = self.message(value, &ty, inner)?;
        message.type_url_span = Some(url.value.span);
        Some(message)
    }

    /// An extension without `typed_config`: the name says what it is, if it needs no more.
    pub(super) fn fill_typed_config(&self, message: &mut Msg) {
        let Some(index) = message.ty.position("typed_config") else { return };
        let given = |field: &str| message.peek(field).is_some();
        let known_fields =
            given("typed_config") || given("config_discovery") || message.broken.contains(&index);
        let is_any =
            message.ty.fields.get(index).is_some_and(|f| {
                f.kind == super::Kind::Message("google.protobuf.Any") && !f.repeated
            });
        if known_fields || !is_any {
            return;
        }
        let Some(set) = message.peek("name") else { return };
        let (name, at) = (set.item.text().to_owned(), set.item.at.clone());
        let Some(full_name) = self.extension_type(&name) else { return };
        if !self.may_be_empty(full_name) {
            self.report
                .error(&at, format!("`{name}` needs a `typed_config`"))
                .hint(format!("add `typed_config: {{ \"@type\": {PREFIX}{full_name}, … }}`"));
            message.broken.push(index);
            return;
        }
        let Some(ty) = self.schema.message(full_name) else { return };
        self.report
            .warning(&at, format!("`{name}` has no `typed_config`; Envoy refuses this"))
            .hint(format!("add `typed_config: {{ \"@type\": {PREFIX}{full_name} }}`"));
        let path = message.at.path.key("typed_config");
        let inner = At { span: at.span, path };
        let content = Msg {
            ty,
            at: inner.clone(),
            fields: Vec::new(),
            broken: Vec::new(),
            type_url_span: Some(at.span),
        };
        let item = Item { value: Value::Message(Box::new(content)), at: inner };
        message.fields.push(Set { index, key: at, item });
    }

    /// False when `typed_config` has content and no `@type`; the name next to it says which one it should be.
    pub(super) fn has_type(&self, node: &Node, at: &At) -> bool {
        let Some(config) = node.get("typed_config") else { return true };
        let is_mapping = matches!(config.value.value, yaml::Value::Mapping(_));
        if !is_mapping || is_empty(&config.value) || config.value.get("@type").is_some() {
            return true;
        }
        let name = match node.get("name").map(|entry| &entry.value.value) {
            Some(yaml::Value::Scalar { text, .. }) => text.as_str(),
            _ => "",
        };
        let at = At { span: config.key_span, path: at.path.key("typed_config") };
        let ty = self.extension_type(name).unwrap_or("envoy.…");
        self.report
            .error(&at, "`typed_config` has no `@type`")
            .hint(format!("add `\"@type\": {PREFIX}{ty}`"));
        false
    }
}

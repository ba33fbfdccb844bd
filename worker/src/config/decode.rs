//! The tree of a file becomes messages of Envoy's types.
//!
//! Takes everything Envoy takes: field names in both spellings, enum names in any case, one value
//! where a list is expected, durations as text or as a mapping, numbers as text, `null` for
//! "unset". Goes on after a mistake, so that one run names them all.

mod any;
mod legacy;
mod number;
mod place;
mod scalar;

use std::{cell::RefCell, rc::Rc};

use super::{
    message::{Item, Msg, Set, Value},
    rules,
    schema::{Field, Kind, MessageType, Schema},
    source::{At, Path, Report},
    suggest, yaml,
    yaml::{Entry, Node},
};

/// Stands in [`Msg::broken`] for a key that is no field.
const UNKNOWN: usize = usize::MAX;

/// What decoding needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'a> {
    /// Envoy's types.
    pub(crate) schema: &'a Schema,
    /// Where mistakes go.
    pub(crate) report: &'a Report,
    /// Types of the messages that are being decoded, outermost first.
    pub(crate) parents: &'a RefCell<Vec<Rc<MessageType>>>,
}

impl Decoder<'_> {
    /// Decodes a whole document.
    pub(crate) fn document(&self, node: &Node, ty: &Rc<MessageType>) -> Option<Msg> {
        let at = At { span: node.span, path: Path::default() };
        self.message(node, ty, at)
    }

    /// Decodes a resource: a mapping whose `@type` says which message it is.
    pub(crate) fn resource(&self, node: &Node, path: Path) -> Option<Msg> {
        self.any(node, At { span: node.span, path })
    }

    /// Decodes a mapping into a message.
    fn message(&self, node: &Node, ty: &Rc<MessageType>, at: At) -> Option<Msg> {
        self.message_without(node, ty, at, &[])
    }

    /// Like [`Self::message`], with keys that are not fields.
    fn message_without(
        &self,
        node: &Node,
        ty: &Rc<MessageType>,
        at: At,
        skip: &[&str],
    ) -> Option<Msg> {
        let mut message = Msg {
            ty: Rc::clone(ty),
            at,
            fields: Vec::new(),
            broken: Vec::new(),
            type_url_span: None,
        };
        match &node.value {
            yaml::Value::Null => {}
            yaml::Value::Mapping(entries) => {
                let untyped =
                    ty.position("typed_config").is_some() && !self.has_type(node, &message.at);
                self.parents.borrow_mut().push(Rc::clone(ty));
                for entry in entries {
                    let without_type =
                        (untyped && entry.key == "typed_config") || any::is_left_out(ty, entry);
                    if !without_type && !skip.contains(&entry.key.as_str()) {
                        self.entry(entry, &mut message);
                    }
                }
                self.parents.borrow_mut().pop();
                if untyped {
                    message.broken.extend(ty.position("typed_config"));
                }
            }
            yaml::Value::Scalar { .. } | yaml::Value::Sequence(_) => {
                self.not_a_mapping(node, &message);
                return None;
            }
        }
        self.oneofs(&message);
        self.fill_typed_config(&mut message);
        rules::check(&message, self.report);
        Some(message)
    }

    fn not_a_mapping(&self, node: &Node, message: &Msg) {
        let wanted = message.ty.short_name();
        let text = format!("expected a mapping (`{wanted}`), found {}", node.describe());
        let hint = match &node.value {
            yaml::Value::Sequence(_) => "this field takes one value: remove the `-`".to_owned(),
            yaml::Value::Scalar { text, plain: true } if text.contains(": ") => {
                "check the indentation, and the space after `:`".to_owned()
            }
            yaml::Value::Scalar { .. } | yaml::Value::Null | yaml::Value::Mapping(_) => {
                let fields: Vec<&str> = message.ty.fields.iter().map(|f| f.name).take(5).collect();
                format!("write fields of it, like: {}", fields.join(", "))
            }
        };
        self.report.error(&message.at.with_span(node.span), text).hint(hint);
    }

    fn entry(&self, entry: &Entry, message: &mut Msg) {
        let path = message.at.path.key(&entry.key);
        let key = At { span: entry.key_span, path };
        let Some(index) = find_field(&message.ty, &entry.key) else {
            let meant = self.unknown_field(entry, message, &key);
            message.broken.push(meant.unwrap_or(UNKNOWN));
            return;
        };
        if message.fields.iter().any(|set| set.index == index) {
            let text = format!("`{}` is set twice, in two spellings", entry.key);
            self.report.error(&key, text).hint("remove one of the two");
            return;
        }
        if matches!(entry.value.value, yaml::Value::Null)
            && !takes_null(message.ty.fields.get(index))
        {
            return;
        }
        let ty = Rc::clone(&message.ty);
        let Some(field) = ty.fields.get(index) else { return };
        let path = message.at.path.key(field.name);
        let at = At { span: entry.value.span, path };
        if let Some(item) = self.field(&entry.value, field, at) {
            message.fields.push(Set { index, key, item });
        } else {
            message.broken.push(index);
        }
    }

    /// Reports a key that is no field; returns the field that was probably meant.
    fn unknown_field(&self, entry: &Entry, message: &Msg, key: &At) -> Option<usize> {
        let at = At { span: key.span, path: message.at.path.clone() };
        let name = message.ty.short_name();
        let text = format!("`{name}` has no field `{}`", yaml::shorten(&entry.key));
        let is_shown = self.report.shows_error(&at);
        let added = self.report.error(&at, text);
        if !is_shown {
            return None;
        }
        if let Some(hint) = legacy::field_hint(&message.ty.full_name, &entry.key) {
            added.hint(hint);
            return None;
        }
        let names = message.ty.fields.iter().map(|field| field.name);
        let is_typing_mistake = suggest::nearest(&entry.key, names.clone()).is_some();
        if let Some(hint) = self.place_hint(&entry.key, message).filter(|_| !is_typing_mistake) {
            added.hint(hint);
            return None;
        }
        added.maybe_hint(suggest::hint(&entry.key, names.clone(), "its fields"));
        message.ty.position(suggest::nearest(&entry.key, names)?)
    }

    /// Decodes the value of a field, lists and maps included.
    fn field(&self, node: &Node, field: &Field, at: At) -> Option<Item> {
        if !field.repeated {
            return self.single(node, field.kind, at);
        }
        if let Kind::Message(name) = field.kind {
            let ty = self.schema.message(name)?;
            if ty.is_map_entry {
                return self.map(node, &ty, at);
            }
        }
        let items = match &node.value {
            yaml::Value::Sequence(nodes) => nodes
                .iter()
                .enumerate()
                .filter_map(|(i, node)| {
                    let at = At { span: node.span, path: at.path.index(i) };
                    if matches!(node.value, yaml::Value::Null) && !takes_null(Some(field)) {
                        self.report
                            .error(&at, "this element of the list is empty")
                            .hint("remove the `-`, or indent what belongs to it");
                        return None;
                    }
                    self.single(node, field.kind, at)
                })
                .collect(),
            // Envoy takes one value where a list is expected.
            yaml::Value::Null | yaml::Value::Scalar { .. } | yaml::Value::Mapping(_) => {
                let at = At { span: node.span, path: at.path.index(0) };
                self.single(node, field.kind, at).into_iter().collect()
            }
        };
        Some(Item { value: Value::List(items), at })
    }

    fn map(&self, node: &Node, entry_type: &MessageType, at: At) -> Option<Item> {
        let yaml::Value::Mapping(entries) = &node.value else {
            let text = format!("expected a mapping of names to values, found {}", node.describe());
            self.report.error(&at, text);
            return None;
        };
        let kind = entry_type.fields.get(1)?.kind;
        let values = entries
            .iter()
            .filter_map(|entry| {
                let at = At { span: entry.value.span, path: at.path.key(&entry.key) };
                Some((entry.key.clone(), self.single(&entry.value, kind, at)?))
            })
            .collect();
        Some(Item { value: Value::Map(values), at })
    }

    /// Decodes one value.
    fn single(&self, node: &Node, kind: Kind, at: At) -> Option<Item> {
        let value = match kind {
            Kind::Message("google.protobuf.Any") => {
                Value::Message(Box::new(self.any(node, at.clone())?))
            }
            Kind::Message(name) => {
                if let Some(known) = scalar::well_known(name) {
                    self.well_known(node, known, &at)?
                } else {
                    let ty = self.schema.message(name)?;
                    Value::Message(Box::new(self.message(node, &ty, at.clone())?))
                }
            }
            Kind::Bool
            | Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Float
            | Kind::Double
            | Kind::Text
            | Kind::Bytes
            | Kind::Enum(_) => self.scalar(node, kind, &at)?,
        };
        Some(Item { value, at })
    }

    fn oneofs(&self, message: &Msg) {
        for (index, oneof) in message.ty.oneofs.iter().enumerate() {
            let is_member = |set: &&Set| message.field(set).and_then(|f| f.oneof) == Some(index);
            let members: Vec<&Set> = message.fields.iter().filter(is_member).collect();
            let name_of = |set: &Set| message.field(set).map_or("", |field| field.name);
            if let [first, second, ..] = members.as_slice() {
                let text =
                    format!("`{}` and `{}` exclude each other", name_of(first), name_of(second));
                self.report
                    .error(&second.key, text)
                    .hint(format!("keep one of them (`{}`)", oneof.name));
            }
            let is_broken = message
                .broken
                .iter()
                .any(|i| message.ty.fields.get(*i).and_then(|f| f.oneof) == Some(index));
            if members.is_empty() && oneof.required && !is_broken {
                let fields = message.ty.fields.iter().filter(|f| f.oneof == Some(index));
                let table = message.ty.support;
                let usable: Vec<&Field> = fields
                    .filter(|f| !f.disallowed && !f.deprecated)
                    .filter(|f| table.is_none_or(|t| t.fields.iter().any(|g| g.name == f.name)))
                    .collect();
                let names: Vec<String> = usable.iter().map(|f| format!("`{}`", f.name)).collect();
                let example = usable.first().map(|f| format!("like `{}`", rules::example(f)));
                let name = message.ty.short_name();
                let text = format!("`{name}` needs one of {}", names.join(", "));
                self.report.error(&message.at, text).maybe_hint(example);
            }
        }
    }
}

/// True for the fields to which `null` is a value.
fn takes_null(field: Option<&Field>) -> bool {
    field.is_some_and(|field| field.kind == Kind::Message("google.protobuf.Value"))
}

/// Finds a field by either spelling of its name.
fn find_field(ty: &MessageType, key: &str) -> Option<usize> {
    ty.position(key).or_else(|| {
        let has_upper = key.chars().any(|c| c.is_ascii_uppercase());
        if !has_upper || key.contains('_') {
            return None;
        }
        ty.fields.iter().position(|field| camel(field.name) == key)
    })
}

/// `connect_timeout` becomes `connectTimeout`.
fn camel(name: &str) -> String {
    let mut upper = false;
    name.chars()
        .filter_map(|c| {
            if c == '_' {
                upper = true;
                return None;
            }
            let c = if upper { c.to_ascii_uppercase() } else { c };
            upper = false;
            Some(c)
        })
        .collect()
}

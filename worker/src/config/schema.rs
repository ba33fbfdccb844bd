//! Envoy's types: which messages there are and which fields they have.
//!
//! `envoy.descriptors` (made by `scripts/make-descriptors`) holds about 3,000 of them. A configuration
//! uses fifty, so only an index of names is built at the start; a message is read when it is
//! asked for.

pub(crate) mod wire;

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use wire::{Fields, Wire};

use super::{extension::Extensions, support::MessageSupport};

/// The `FileDescriptorSet`.
static DESCRIPTORS: &[u8] = include_bytes!("envoy.descriptors");

/// Numbers of fields in `descriptor.proto` and of the options that are read.
mod number {
    pub(super) const SET_FILE: u32 = 1;
    pub(super) const FILE_PACKAGE: u32 = 2;
    pub(super) const FILE_MESSAGE: u32 = 4;
    pub(super) const FILE_ENUM: u32 = 5;
    pub(super) const NAME: u32 = 1;
    pub(super) const MESSAGE_FIELD: u32 = 2;
    pub(super) const MESSAGE_NESTED: u32 = 3;
    pub(super) const MESSAGE_ENUM: u32 = 4;
    pub(super) const MESSAGE_OPTIONS: u32 = 7;
    pub(super) const MESSAGE_ONEOF: u32 = 8;
    pub(super) const FIELD_NUMBER: u32 = 3;
    pub(super) const FIELD_LABEL: u32 = 4;
    pub(super) const FIELD_TYPE: u32 = 5;
    pub(super) const FIELD_TYPE_NAME: u32 = 6;
    pub(super) const FIELD_OPTIONS: u32 = 8;
    pub(super) const FIELD_ONEOF: u32 = 9;
    pub(super) const FIELD_OPTIONAL: u32 = 17;
    pub(super) const ONEOF_OPTIONS: u32 = 2;
    pub(super) const ENUM_VALUE: u32 = 2;
    pub(super) const ENUM_VALUE_NUMBER: u32 = 2;
    pub(super) const OPTION_DEPRECATED: u32 = 3;
    pub(super) const OPTION_MAP_ENTRY: u32 = 7;
    /// `validate.rules` of fields, `validate.required` of oneofs, `validate.disabled` of messages.
    pub(super) const VALIDATE: u32 = 1071;
    /// `udpa.annotations.sensitive`.
    pub(super) const SENSITIVE: u32 = 76_569_463;
    /// `udpa.annotations.versioning`, whose field 1 is `previous_message_type`.
    pub(super) const VERSIONING: u32 = 7_881_811;
    /// `envoy.annotations.disallowed_by_default`.
    pub(super) const DISALLOWED: u32 = 189_503_207;
    pub(super) const LABEL_REPEATED: u64 = 3;
}

/// A message type.
#[derive(Debug)]
pub(crate) struct MessageType {
    /// With its package, like `envoy.config.cluster.v3.Cluster`.
    pub(crate) full_name: String,
    /// In the order of the `.proto` file.
    pub(crate) fields: Vec<Field>,
    /// Groups of fields of which at most one may be set.
    pub(crate) oneofs: Vec<Oneof>,
    /// The element of a map field.
    pub(crate) is_map_entry: bool,
    /// What is implemented of it.
    pub(crate) support: Option<&'static MessageSupport>,
}

impl MessageType {
    /// The last part of the name.
    pub(crate) fn short_name(&self) -> &str {
        self.full_name.rsplit('.').next().unwrap_or("")
    }

    /// The index of a field by its name in the `.proto` file.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// True when lowering may read the field.
    pub(crate) fn reads(&self, field: &str) -> bool {
        self.support.is_some_and(|table| table.fields.iter().any(|f| f.name == field))
    }
}

/// A group of fields of which at most one may be set.
#[derive(Debug)]
pub(crate) struct Oneof {
    /// Its name.
    pub(crate) name: &'static str,
    /// One must be set.
    pub(crate) required: bool,
}

/// A field of a message.
#[expect(clippy::struct_excessive_bools, reason = "they are independent options of a descriptor")]
#[derive(Debug)]
pub(crate) struct Field {
    /// As in the `.proto` file.
    pub(crate) name: &'static str,
    /// A list or a map.
    pub(crate) repeated: bool,
    /// Type of one element.
    pub(crate) kind: Kind,
    /// Index into [`MessageType::oneofs`].
    pub(crate) oneof: Option<usize>,
    /// Being unset differs from being zero.
    pub(crate) presence: bool,
    /// Envoy deprecates it.
    pub(crate) deprecated: bool,
    /// Envoy refuses it unless told otherwise.
    pub(crate) disallowed: bool,
    /// A secret.
    pub(crate) sensitive: bool,
    /// `validate.rules`, on the wire.
    pub(crate) rules: Option<&'static [u8]>,
}

/// The type of a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// `bool`.
    Bool,
    /// `int32`, `sint32`, `sfixed32`.
    Int32,
    /// `int64`, `sint64`, `sfixed64`.
    Int64,
    /// `uint32`, `fixed32`.
    Uint32,
    /// `uint64`, `fixed64`.
    Uint64,
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `string`.
    Text,
    /// `bytes`.
    Bytes,
    /// An enum, by full name.
    Enum(&'static str),
    /// A message, by full name.
    Message(&'static str),
}

/// An enum type.
#[derive(Debug)]
pub(crate) struct EnumType {
    /// Names and numbers.
    pub(crate) values: Vec<(&'static str, i32)>,
}

/// All types.
#[derive(Debug)]
pub(crate) struct Schema {
    messages: HashMap<String, &'static [u8]>,
    enums: HashMap<String, &'static [u8]>,
    message_cache: RefCell<HashMap<String, Rc<MessageType>>>,
    enum_cache: RefCell<HashMap<String, Rc<EnumType>>>,
    /// Extensions that a file may name.
    pub(crate) extensions: Extensions,
}

impl Schema {
    /// Builds the index of names.
    pub(crate) fn new(extensions: Extensions) -> Self {
        let mut messages = HashMap::with_capacity(4096);
        let mut enums = HashMap::with_capacity(512);
        for (_, file) in Fields(DESCRIPTORS).filter(|(n, _)| *n == number::SET_FILE) {
            let package = file.fields().find(number::FILE_PACKAGE).map_or("", Wire::text);
            for (n, item) in file.fields() {
                let map = match n {
                    number::FILE_MESSAGE => &mut messages,
                    number::FILE_ENUM => &mut enums,
                    _ => continue,
                };
                map.insert(format!("{package}.{}", name_of(item)), item.bytes());
            }
        }
        let (message_cache, enum_cache) = (RefCell::default(), RefCell::default());
        Self { messages, enums, message_cache, enum_cache, extensions }
    }

    /// A message by its full name.
    pub(crate) fn message(&self, full_name: &str) -> Option<Rc<MessageType>> {
        if let Some(found) = self.message_cache.borrow().get(full_name) {
            return Some(Rc::clone(found));
        }
        let bytes = self.locate(full_name)?;
        let message = Rc::new(MessageType {
            support: self.extensions.support(full_name),
            ..parse_message(full_name, bytes)
        });
        self.message_cache.borrow_mut().insert(full_name.to_owned(), Rc::clone(&message));
        Some(message)
    }

    /// An enum by its full name.
    pub(crate) fn enumeration(&self, full_name: &str) -> Option<Rc<EnumType>> {
        if let Some(found) = self.enum_cache.borrow().get(full_name) {
            return Some(Rc::clone(found));
        }
        let bytes = if let Some(bytes) = self.enums.get(full_name) {
            bytes
        } else {
            let (outer, name) = full_name.rsplit_once('.')?;
            nested(self.locate(outer)?, number::MESSAGE_ENUM, name)?
        };
        let values = Fields(bytes)
            .filter(|(n, _)| *n == number::ENUM_VALUE)
            .map(|(_, value)| {
                let number = value.fields().find(number::ENUM_VALUE_NUMBER);
                (name_of(value), number.map_or(0, Wire::int32))
            })
            .collect();
        let found = Rc::new(EnumType { values });
        self.enum_cache.borrow_mut().insert(full_name.to_owned(), Rc::clone(&found));
        Some(found)
    }

    /// Names of all messages that are not inside another one.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.messages.keys().map(String::as_str)
    }

    /// The v3 name of a message of an older API.
    pub(crate) fn successor(&self, old_name: &str) -> Option<&str> {
        let is_old = |bytes: &'static [u8]| {
            let options = Fields(bytes).find(number::MESSAGE_OPTIONS)?;
            let versioning = options.fields().find(number::VERSIONING)?;
            Some(versioning.fields().find(1)?.text() == old_name)
        };
        let found = self.messages.iter().find(|(_, bytes)| is_old(bytes) == Some(true))?;
        Some(found.0)
    }

    /// Finds the descriptor of a message, nested ones included.
    fn locate(&self, full_name: &str) -> Option<&'static [u8]> {
        if let Some(bytes) = self.messages.get(full_name) {
            return Some(bytes);
        }
        let (outer, name) = full_name.rsplit_once('.')?;
        // A package has no descriptor, so the recursion ends at the first upper-case parent.
        nested(self.locate(outer)?, number::MESSAGE_NESTED, name)
    }
}

fn nested(bytes: &'static [u8], kind: u32, name: &str) -> Option<&'static [u8]> {
    Fields(bytes).find_map(|(n, item)| (n == kind && name_of(item) == name).then_some(item.bytes()))
}

fn name_of(item: Wire<'static>) -> &'static str {
    item.fields().find(number::NAME).map_or("", Wire::text)
}

fn parse_message(full_name: &str, bytes: &'static [u8]) -> MessageType {
    let options = Fields(bytes).find(number::MESSAGE_OPTIONS);
    let option = |n| options.and_then(|o| o.fields().find(n));
    let mut message = MessageType {
        full_name: full_name.to_owned(),
        fields: Vec::new(),
        oneofs: Vec::new(),
        is_map_entry: option(number::OPTION_MAP_ENTRY).is_some_and(Wire::flag),
        support: None,
    };
    for (n, item) in Fields(bytes) {
        match n {
            number::MESSAGE_FIELD => message.fields.extend(parse_field(item)),
            number::MESSAGE_ONEOF => {
                let required = item
                    .fields()
                    .find(number::ONEOF_OPTIONS)
                    .and_then(|options| options.fields().find(number::VALIDATE))
                    .is_some_and(Wire::flag);
                message.oneofs.push(Oneof { name: name_of(item), required });
            }
            _ => {}
        }
    }
    message
}

fn parse_field(item: Wire<'static>) -> Option<Field> {
    let find = |n| item.fields().find(n);
    let options = find(number::FIELD_OPTIONS);
    let option = |n| options.and_then(|o: Wire<'static>| o.fields().find(n));
    let flag = |n| option(n).is_some_and(Wire::flag);
    let type_name = find(number::FIELD_TYPE_NAME).map_or("", Wire::text).trim_start_matches('.');
    let kind = parse_kind(find(number::FIELD_TYPE)?.int(), type_name)?;
    find(number::FIELD_NUMBER)?;
    let oneof = find(number::FIELD_ONEOF).and_then(|index| usize::try_from(index.int()).ok());
    // `optional` makes a oneof of one field, which is no group for the user.
    let optional = find(number::FIELD_OPTIONAL).is_some_and(Wire::flag);
    Some(Field {
        name: name_of(item),
        repeated: find(number::FIELD_LABEL).map(Wire::int) == Some(number::LABEL_REPEATED),
        kind,
        oneof: oneof.filter(|_| !optional),
        presence: oneof.is_some() || matches!(kind, Kind::Message(_)),
        deprecated: flag(number::OPTION_DEPRECATED),
        disallowed: flag(number::DISALLOWED),
        sensitive: flag(number::SENSITIVE),
        rules: option(number::VALIDATE).map(Wire::bytes),
    })
}

fn parse_kind(code: u64, type_name: &'static str) -> Option<Kind> {
    Some(match code {
        1 => Kind::Double,
        2 => Kind::Float,
        3 | 16 | 18 => Kind::Int64,
        4 | 6 => Kind::Uint64,
        5 | 15 | 17 => Kind::Int32,
        7 | 13 => Kind::Uint32,
        8 => Kind::Bool,
        9 => Kind::Text,
        11 => Kind::Message(type_name),
        12 => Kind::Bytes,
        14 => Kind::Enum(type_name),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_the_descriptors_can_be_read_and_its_types_exist() {
        let schema = Schema::new(Extensions::default());
        let mut names: Vec<String> = schema.names().map(str::to_owned).collect();
        assert!(names.len() > 1000, "{}", names.len());
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = names.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let message = schema.message(&name).unwrap_or_else(|| panic!("no {name}"));
            for field in &message.fields {
                assert!(!field.name.is_empty(), "{name}");
                if let Kind::Message(inner) = field.kind {
                    names.push(inner.to_owned());
                }
                if let Kind::Enum(inner) = field.kind {
                    let found = schema.enumeration(inner);
                    assert!(found.is_some_and(|e| !e.values.is_empty()), "{inner}");
                }
            }
        }
    }

    #[test]
    fn options_are_kept() {
        let schema = Schema::new(Extensions::default());
        let cluster = schema.message("envoy.config.cluster.v3.Cluster").unwrap();
        let field = |name| &cluster.fields[cluster.position(name).unwrap()];
        assert!(field("name").rules.is_some());
        assert!(field("http2_protocol_options").deprecated);
        let tls = schema.message("envoy.extensions.transport_sockets.tls.v3.TlsCertificate");
        let tls = tls.unwrap();
        assert!(tls.fields[tls.position("private_key").unwrap()].sensitive);
        assert_eq!(
            schema.successor("envoy.config.filter.http.router.v2.Router"),
            Some("envoy.extensions.filters.http.router.v3.Router")
        );
    }
}

//! A decoded message: values by field, each with its position.
//!
//! Lowering reads it by field names. Every name it reads must stand in the table of supported
//! fields; debug builds panic otherwise, so the table cannot claim less than the code does.

use std::{rc::Rc, time::Duration};

use super::{
    schema::{Field, MessageType},
    source::{At, Span},
};

/// A message and where it stands.
#[derive(Debug)]
pub(crate) struct Msg {
    /// Its type.
    pub(crate) ty: Rc<MessageType>,
    /// Its position.
    pub(crate) at: At,
    /// The fields that are set.
    pub(crate) fields: Vec<Set>,
    /// Fields that are there but could not be decoded, which was reported.
    pub(crate) broken: Vec<usize>,
    /// For the content of an `Any`: where `@type` stands.
    pub(crate) type_url_span: Option<Span>,
}

/// A field that is set.
#[derive(Debug)]
pub(crate) struct Set {
    /// Index into the fields of the type.
    pub(crate) index: usize,
    /// The name in the file.
    pub(crate) key: At,
    /// The value.
    pub(crate) item: Item,
}

/// A value and its position.
#[derive(Debug)]
pub(crate) struct Item {
    /// The value.
    pub(crate) value: Value,
    /// Its position.
    pub(crate) at: At,
}

/// A decoded value.
#[derive(Debug)]
pub(crate) enum Value {
    /// `bool` and `BoolValue`.
    Bool(bool),
    /// Signed numbers.
    Int(i64),
    /// Unsigned numbers.
    Uint(u64),
    /// `float`, `double`.
    Double(f64),
    /// `string`, `Timestamp`, `FieldMask`.
    Text(String),
    /// `bytes`.
    Bytes(Vec<u8>),
    /// An enum's number and name.
    Enum(i32, &'static str),
    /// `google.protobuf.Duration`.
    Duration(Span64),
    /// Any other message.
    Message(Box<Msg>),
    /// `repeated`.
    List(Vec<Item>),
    /// `map`.
    Map(Vec<(String, Item)>),
    /// `Struct`, `Value`, `ListValue`.
    Json(serde_json::Value),
}

/// A `google.protobuf.Duration`: both parts have the same sign.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Span64 {
    /// Whole seconds.
    pub(crate) seconds: i64,
    /// Nanoseconds of the rest.
    pub(crate) nanos: i32,
}

impl Span64 {
    /// As a duration; negative ones are zero.
    pub(crate) fn to_std(self) -> Duration {
        let seconds = u64::try_from(self.seconds).unwrap_or(0);
        Duration::new(seconds, u32::try_from(self.nanos).unwrap_or(0))
    }

    /// As in protobuf's JSON: `0.250s`.
    pub(crate) fn to_text(self) -> String {
        let sign = if self.seconds < 0 || self.nanos < 0 { "-" } else { "" };
        let (seconds, nanos) = (self.seconds.unsigned_abs(), self.nanos.unsigned_abs());
        match nanos {
            0 => format!("{sign}{seconds}s"),
            n if n % 1_000_000 == 0 => format!("{sign}{seconds}.{:03}s", n / 1_000_000),
            n if n % 1_000 == 0 => format!("{sign}{seconds}.{:06}s", n / 1_000),
            n => format!("{sign}{seconds}.{n:09}s"),
        }
    }
}

impl Msg {
    /// The description of a field that is set.
    pub(crate) fn field(&self, set: &Set) -> Option<&Field> {
        self.ty.fields.get(set.index)
    }

    /// A field, without the check of the table: for the decoder and the rules.
    pub(crate) fn peek(&self, name: &str) -> Option<&Set> {
        let index = self.ty.position(name)?;
        self.fields.iter().find(|set| set.index == index)
    }

    /// A field, if it is set.
    pub(crate) fn get(&self, name: &str) -> Option<&Set> {
        debug_assert!(
            self.ty.reads(name),
            "`{name}` of {} is read but is not in the table of supported fields",
            self.ty.full_name
        );
        self.peek(name)
    }

    /// True when the field is there, if only with a mistake that was reported.
    pub(crate) fn mentions(&self, name: &str) -> bool {
        let index = self.ty.position(name);
        self.has(name) || index.is_some_and(|index| self.broken.contains(&index))
    }

    /// True when the field is set.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Where the value of a field stands; where the message stands when it is not set.
    pub(crate) fn at_of(&self, name: &str) -> At {
        self.get(name).map_or_else(|| self.at.clone(), |set| set.item.at.clone())
    }

    /// A message field.
    pub(crate) fn message(&self, name: &str) -> Option<&Self> {
        self.get(name)?.item.message()
    }

    /// The elements of a list of messages.
    pub(crate) fn messages(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.items(name).iter().filter_map(Item::message)
    }

    /// The elements of a list.
    pub(crate) fn items(&self, name: &str) -> &[Item] {
        if let Some(Value::List(items)) = self.get(name).map(|set| &set.item.value) {
            items
        } else {
            &[]
        }
    }

    /// A text; empty when it is not set.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).map_or("", |set| set.item.text())
    }

    /// A boolean, if it is set.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        if let Value::Bool(value) = self.get(name)?.item.value { Some(value) } else { None }
    }

    /// An unsigned number, if it is set.
    pub(crate) fn uint(&self, name: &str) -> Option<u64> {
        if let Value::Uint(value) = self.get(name)?.item.value { Some(value) } else { None }
    }

    /// An unsigned 32-bit number, if it is set.
    pub(crate) fn uint32(&self, name: &str) -> Option<u32> {
        self.uint(name).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// A signed number, if it is set.
    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        if let Value::Int(value) = self.get(name)?.item.value { Some(value) } else { None }
    }

    /// A duration, if it is set.
    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        let Value::Duration(value) = self.get(name)?.item.value else { return None };
        Some(value.to_std())
    }

    /// The number of an enum's value, if it is set and fits.
    pub(crate) fn number(&self, name: &str) -> Option<u16> {
        let Value::Enum(number, _) = self.get(name)?.item.value else { return None };
        u16::try_from(number).ok()
    }

    /// The name of an enum's value, if it is set.
    pub(crate) fn choice(&self, name: &str) -> Option<&'static str> {
        if let Value::Enum(_, name) = self.get(name)?.item.value { Some(name) } else { None }
    }
}

impl Item {
    /// The message, when it is one.
    pub(crate) fn message(&self) -> Option<&Msg> {
        if let Value::Message(message) = &self.value { Some(message) } else { None }
    }

    /// The text; empty when it is none.
    pub(crate) fn text(&self) -> &str {
        if let Value::Text(text) = &self.value { text } else { "" }
    }
}

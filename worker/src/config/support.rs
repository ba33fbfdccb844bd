//! Which fields of Envoy's messages baton implements.
//!
//! The tables below are the one place that says so. A field that is set and not listed is reported;
//! nothing is left out in silence. `docs/CONFIG.md` is made from the tables, and lowering cannot
//! read a field that is not in them.

mod access_log;
mod bootstrap;
mod cluster;
#[cfg(test)]
mod document;
mod http;
mod listener;
mod matchers;
mod route;
mod skip;

use super::{
    extension::Extensions,
    load::LoadOptions,
    message::{Item, Msg, Set, Value},
    source::{At, Report},
};

/// A message and the fields of it that mean something to baton.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageSupport {
    /// Full name.
    pub(crate) name: &'static str,
    /// Leaving out a field of it would let traffic through that it holds back, or send it elsewhere,
    /// so a field that is not listed is an error even when unimplemented fields are allowed.
    pub(crate) strict: bool,
    /// The fields.
    pub(crate) fields: &'static [FieldSupport],
}

/// A field that may be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldSupport {
    /// Its name in the `.proto` file.
    pub(crate) name: &'static str,
    /// What baton does with it.
    pub(crate) effect: Effect,
    /// For the documentation: the default and what is special.
    pub(crate) note: &'static str,
}

/// What baton does with a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// It does what Envoy's documentation says.
    Read,
    /// It changes nothing, and nobody would expect it to change how traffic is handled.
    Harmless,
    /// It changes nothing and the user is told.
    Ignored,
}

pub(crate) const fn read(name: &'static str, note: &'static str) -> FieldSupport {
    FieldSupport { name, effect: Effect::Read, note }
}

pub(crate) const fn harmless(name: &'static str, note: &'static str) -> FieldSupport {
    FieldSupport { name, effect: Effect::Harmless, note }
}

pub(crate) const fn no_effect(name: &'static str, note: &'static str) -> FieldSupport {
    FieldSupport { name, effect: Effect::Ignored, note }
}

pub(crate) const fn message(name: &'static str, fields: &'static [FieldSupport]) -> MessageSupport {
    MessageSupport { name, strict: false, fields }
}

pub(crate) const fn strict(name: &'static str, fields: &'static [FieldSupport]) -> MessageSupport {
    MessageSupport { name, strict: true, fields }
}

/// All tables, in the order of the documentation.
pub(crate) const TABLES: &[(&str, &[MessageSupport])] = &[
    ("Bootstrap and admin", bootstrap::TABLE),
    ("Listeners and network filters", listener::TABLE),
    ("HTTP", http::TABLE),
    ("Routes", route::TABLE),
    ("Matchers", matchers::TABLE),
    ("Clusters", cluster::TABLE),
    ("Access logs", access_log::TABLE),
];

/// True when a field may be left out.
pub(crate) fn may_skip(message: &str, field: &str) -> bool {
    skip::field(message, field)
}

/// The table of a message that is not an extension's.
pub(crate) fn find(full_name: &str) -> Option<&'static MessageSupport> {
    TABLES.iter().flat_map(|(_, table)| *table).find(|message| message.name == full_name)
}

/// Reports every field that is set and not implemented.
pub(crate) fn check(root: &Msg, options: &LoadOptions, report: &Report) {
    let LoadOptions { allow_unimplemented, extensions, .. } = *options;
    Check { allow_unimplemented, extensions, report }.message(root);
}

#[derive(Clone, Copy)]
struct Check<'a> {
    allow_unimplemented: bool,
    extensions: Extensions,
    report: &'a Report,
}

impl Check<'_> {
    fn message(self, message: &Msg) {
        let Some(table) = message.ty.support else {
            if message.ty.full_name != "google.protobuf.Empty" {
                self.extension(message);
            }
            return;
        };
        self.named_only(table, message);
        for set in &message.fields {
            let Some(field) = message.field(set) else { continue };
            match table.fields.iter().find(|f| f.name == field.name) {
                None => self.unimplemented(table, field.name, set),
                Some(FieldSupport { effect: Effect::Read, .. }) => self.item(&set.item),
                Some(FieldSupport { effect: Effect::Harmless, .. }) => {}
                Some(FieldSupport { effect: Effect::Ignored, note, .. }) => {
                    let text = format!("`{}` has no effect: {note}", field.name);
                    self.report.warning(&set.key, text);
                }
            }
        }
    }

    /// A transport socket or a listener filter without content: what it is cannot be told, and without it
    /// connections would not be what was wanted. Other extensions are missed where they are lowered.
    fn named_only(self, table: &MessageSupport, message: &Msg) {
        const NAMED: &[&str] =
            &["envoy.config.core.v3.TransportSocket", "envoy.config.listener.v3.ListenerFilter"];
        let is_empty = message.peek("typed_config").is_none() && message.broken.is_empty();
        if NAMED.contains(&table.name) && is_empty && message.peek("config_discovery").is_none() {
            let name = message.peek("name").map_or("", |set| set.item.text());
            self.report.error(&message.at, format!("`{name}` needs a `typed_config`"));
        }
    }

    fn item(self, item: &Item) {
        match &item.value {
            Value::Message(message) => self.message(message),
            Value::List(items) => items.iter().for_each(|item| self.item(item)),
            Value::Map(entries) => entries.iter().for_each(|(_, item)| self.item(item)),
            Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Text(_)
            | Value::Bytes(_)
            | Value::Enum(..)
            | Value::Duration(_)
            | Value::Json(_) => {}
        }
    }

    fn unimplemented(self, table: &MessageSupport, name: &str, set: &Set) {
        // What says "off" needs no implementation.
        if is_nothing(&set.item.value) {
            return;
        }
        let text = format!("`{name}` is not implemented by baton yet");
        let always = table.strict || !self.extensions.may_skip(table.name, name);
        self.say(always, &set.key, text);
    }

    fn extension(self, message: &Msg) {
        let name = &message.ty.full_name;
        let at = message.at.with_span(message.type_url_span.unwrap_or(message.at.span));
        let text = if name.starts_with("envoy.extensions.transport_sockets.tls.")
            || name.starts_with("envoy.extensions.transport_sockets.starttls.")
        {
            format!("TLS is not implemented by baton yet (`{}`)", message.ty.short_name())
        } else {
            format!("`{name}` is not implemented by baton yet")
        };
        match skip::extension(name) {
            Some(known) if self.allow_unimplemented => {
                self.report.warning(&at, format!("{text}; it is left out: {}", known.lost));
            }
            known => self.say(known.is_none(), &at, text),
        }
    }

    fn say(self, always: bool, at: &At, text: String) {
        match (self.allow_unimplemented, always) {
            (true, false) => self.report.warning(at, format!("{text}; it is left out")),
            (true, true) => self
                .report
                .error(at, text)
                .hint("leaving it out could let through what it holds back, or send it elsewhere"),
            (false, true) => self.report.error(at, text),
            (false, false) => {
                self.report.error(at, text).hint("`--allow-unimplemented` leaves it out")
            }
        };
    }
}

/// True for values that change nothing: `false`, an empty list, an empty text.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Text(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Bytes(_)
        | Value::Enum(..)
        | Value::Duration(_)
        | Value::Message(_)
        | Value::Json(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::schema::{Kind, Schema},
        *,
    };
    use crate::extension;

    fn tables() -> impl Iterator<Item = &'static MessageSupport> {
        let of_filters = extension::ALL.http.iter().flat_map(|known| known.tables);
        TABLES.iter().flat_map(|(_, table)| *table).chain(of_filters)
    }

    fn reads(message: &str, field: &str) -> bool {
        let table = extension::ALL.support(message);
        table.is_some_and(|table| table.fields.iter().any(|f| f.name == field))
    }

    #[test]
    fn every_entry_exists_and_every_message_that_is_read_has_a_table() {
        let schema = Schema::new(extension::ALL);
        for message in tables() {
            let ty = schema.message(message.name).unwrap_or_else(|| panic!("{}", message.name));
            for entry in message.fields {
                let index = ty.position(entry.name);
                let index = index.unwrap_or_else(|| panic!("{}.{}", message.name, entry.name));
                let inner = message_of(ty.fields[index].kind, &schema);
                if let Some(inner) = inner.filter(|_| entry.effect == Effect::Read) {
                    let google = inner.starts_with("google.protobuf.");
                    assert!(
                        google || extension::ALL.support(inner).is_some(),
                        "no table for {inner}"
                    );
                }
            }
        }
    }

    /// The message a field or the values of a map are.
    fn message_of(kind: Kind, schema: &Schema) -> Option<&'static str> {
        let Kind::Message(name) = kind else { return None };
        let ty = schema.message(name).unwrap();
        if ty.is_map_entry { message_of(ty.fields[1].kind, schema) } else { Some(name) }
    }

    #[test]
    fn what_may_be_left_out_exists_and_is_not_implemented() {
        let schema = Schema::new(extension::ALL);
        let of_filters = extension::ALL.http.iter().flat_map(|known| known.skippable);
        for (message, fields) in skip::FIELDS.iter().chain(of_filters) {
            let table = extension::ALL.support(message).unwrap_or_else(|| panic!("{message}"));
            assert!(!table.strict, "{message}");
            for field in *fields {
                assert!(!reads(message, field), "{message}.{field}");
                assert!(schema.message(message).unwrap().position(field).is_some(), "{field}");
            }
        }
        for known in skip::EXTENSIONS {
            let mut names = schema.names().filter(|name| name.starts_with(known.prefix));
            assert!(names.next().is_some(), "{}", known.prefix);
            assert!(names.all(|name| extension::ALL.support(name).is_none()), "{}", known.prefix);
        }
    }

    /// Every extension of Envoy's that is known, wherever it may stand, is either read, or on the list of
    /// what may be left out, or refused.
    #[test]
    fn what_holds_traffic_back_is_never_left_out() {
        for name in [
            "http.admission_control",
            "http.adaptive_concurrency",
            "http.bandwidth_limit",
            "http.cdn_loop",
            "http.composite",
            "http.csrf",
            "http.ext_authz",
            "http.file_system_buffer",
            "http.jwt_authn",
            "http.lua",
            "http.rate_limit_quota",
            "http.ratelimit",
            "http.rbac",
            "http.stateful_session",
            "http.wasm",
            "network.connection_limit",
            "network.ext_authz",
            "network.local_ratelimit",
            "network.ratelimit",
            "network.rbac",
            "network.sni_cluster",
            "network.wasm",
            "listener.tls_inspector",
            "listener.local_ratelimit",
            "http.nobody_knows_it",
        ] {
            let full_name = format!("envoy.extensions.filters.{name}.v3.Any");
            assert!(skip::extension(&full_name).is_none(), "{name}");
        }
        for (message, field) in [
            ("envoy.config.bootstrap.v3.Bootstrap", "overload_manager"),
            ("envoy.config.cluster.v3.Cluster", "circuit_breakers"),
            ("envoy.config.core.v3.HttpProtocolOptions", "max_stream_duration"),
            ("envoy.config.core.v3.HttpProtocolOptions", "max_response_headers_kb"),
            ("envoy.config.route.v3.RouteAction", "max_stream_duration"),
            ("envoy.config.route.v3.RouteAction", "rate_limits"),
            ("envoy.config.route.v3.VirtualHost", "rate_limits"),
            ("envoy.config.route.v3.VirtualHost", "matcher"),
        ] {
            assert!(!skip::field(message, field) && !reads(message, field), "{message}.{field}");
        }
    }

    #[test]
    fn no_message_has_two_tables() {
        let mut names: Vec<&str> = tables().map(|message| message.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

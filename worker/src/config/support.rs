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

use super::{
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

const fn read(name: &'static str, note: &'static str) -> FieldSupport {
    FieldSupport { name, effect: Effect::Read, note }
}

const fn harmless(name: &'static str, note: &'static str) -> FieldSupport {
    FieldSupport { name, effect: Effect::Harmless, note }
}

const fn no_effect(name: &'static str, note: &'static str) -> FieldSupport {
    FieldSupport { name, effect: Effect::Ignored, note }
}

const fn message(name: &'static str, fields: &'static [FieldSupport]) -> MessageSupport {
    MessageSupport { name, strict: false, fields }
}

const fn strict(name: &'static str, fields: &'static [FieldSupport]) -> MessageSupport {
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

/// Extensions without which traffic is less protected. Leaving one out is never acceptable.
const PROTECTING: &[&str] = &[
    "envoy.extensions.transport_sockets.",
    "envoy.extensions.filters.http.api_key_auth.",
    "envoy.extensions.filters.http.basic_auth.",
    "envoy.extensions.filters.http.credential_injector.",
    "envoy.extensions.filters.http.csrf.",
    "envoy.extensions.filters.http.ext_authz.",
    "envoy.extensions.filters.http.ext_proc.",
    "envoy.extensions.filters.http.jwt_authn.",
    "envoy.extensions.filters.http.oauth2.",
    "envoy.extensions.filters.http.rbac.",
    "envoy.extensions.filters.network.ext_authz.",
    "envoy.extensions.filters.network.rbac.",
    "envoy.extensions.filters.listener.",
];

/// Fields that decide where traffic goes or who is let in, in messages that are not strict.
const DECIDING: &[(&str, &str)] = &[
    ("HttpConnectionManager", "rds"),
    ("HttpConnectionManager", "scoped_routes"),
    ("HttpConnectionManager", "original_ip_detection_extensions"),
    ("RouteConfiguration", "vhds"),
    ("RouteConfiguration", "vhost_header"),
    ("RouteConfiguration", "ignore_port_in_host_matching"),
    ("RouteConfiguration", "ignore_path_parameters_in_path_matching"),
    ("VirtualHost", "matcher"),
    ("RouteAction", "cluster_specifier_plugin"),
    ("RouteAction", "inline_cluster_specifier_plugin"),
    ("RouteAction", "metadata_match"),
    ("Cluster", "cluster_type"),
    ("Cluster", "transport_socket_matches"),
    ("Cluster", "transport_socket_matcher"),
    ("Cluster", "lb_subset_config"),
    ("TcpProxy", "tunneling_config"),
];

/// The table of a message.
pub(crate) fn find(full_name: &str) -> Option<&'static MessageSupport> {
    TABLES.iter().flat_map(|(_, table)| *table).find(|message| message.name == full_name)
}

/// True when lowering may read the field.
pub(crate) fn reads(full_name: &str, field: &str) -> bool {
    find(full_name).is_some_and(|message| message.fields.iter().any(|f| f.name == field))
}

/// Reports every field that is set and not implemented.
pub(crate) fn check(root: &Msg, allow_unimplemented: bool, report: &Report) {
    Check { allow_unimplemented, report }.message(root);
}

#[derive(Clone, Copy)]
struct Check<'a> {
    allow_unimplemented: bool,
    report: &'a Report,
}

impl Check<'_> {
    fn message(self, message: &Msg) {
        let Some(table) = find(&message.ty.full_name) else {
            self.extension(message);
            return;
        };
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
        let message = table.name.rsplit('.').next().unwrap_or("");
        let always = table.strict || DECIDING.contains(&(message, name));
        self.say(always, &set.key, text);
    }

    fn extension(self, message: &Msg) {
        let name = &message.ty.full_name;
        let at = message.at.with_span(message.type_url_span.unwrap_or(message.at.span));
        let protecting = PROTECTING.iter().any(|prefix| name.starts_with(prefix));
        let text = if name.starts_with("envoy.extensions.transport_sockets.tls.")
            || name.starts_with("envoy.extensions.transport_sockets.starttls.")
        {
            format!("TLS is not implemented by baton yet (`{}`)", message.ty.short_name())
        } else {
            format!("`{name}` is not implemented by baton yet")
        };
        self.say(protecting, &at, text);
    }

    fn say(self, always: bool, at: &At, text: String) {
        match (self.allow_unimplemented, always) {
            (true, false) => self.report.warning(at, format!("{text}; it is left out")),
            (true, true) => self
                .report
                .error(at, text)
                .hint("leaving it out would change who is let in or where traffic goes"),
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

    #[test]
    fn every_entry_exists_and_every_message_that_is_read_has_a_table() {
        let schema = Schema::new();
        for message in TABLES.iter().flat_map(|(_, table)| *table) {
            let ty = schema.message(message.name).unwrap_or_else(|| panic!("{}", message.name));
            for entry in message.fields {
                let index = ty.position(entry.name);
                let index = index.unwrap_or_else(|| panic!("{}.{}", message.name, entry.name));
                let inner = message_of(ty.fields[index].kind, &schema);
                if let Some(inner) = inner.filter(|_| entry.effect == Effect::Read) {
                    let google = inner.starts_with("google.protobuf.");
                    assert!(google || find(inner).is_some(), "no table for {inner}");
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
    fn every_deciding_field_exists_and_is_in_no_table() {
        let schema = Schema::new();
        for (short, field) in DECIDING {
            let tables = TABLES.iter().flat_map(|(_, table)| *table);
            let suffix = format!(".{short}");
            let found = tables.filter(|m| m.name.ends_with(&suffix)).any(|m| {
                assert!(!reads(m.name, field), "{short}.{field}");
                schema.message(m.name).unwrap().position(field).is_some()
            });
            assert!(found, "{short}.{field}");
        }
    }

    #[test]
    fn no_message_has_two_tables() {
        let mut names: Vec<&str> =
            TABLES.iter().flat_map(|(_, table)| *table).map(|message| message.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

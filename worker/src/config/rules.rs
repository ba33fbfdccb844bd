//! Envoy's own validation rules (`validate.rules` in its `.proto` files), read from the descriptors.
//!
//! The numbers are those of `validate.proto` of protoc-gen-validate.

use std::{cell::RefCell, collections::HashMap};

use regex::Regex;

use super::{
    message::{Item, Msg, Set, Span64, Value},
    schema::{
        Field, Kind,
        wire::{Fields, Wire},
    },
    source::{At, Report},
    yaml::shorten,
};

/// Numbers of `FieldRules` that are not those of a number type.
mod kind {
    pub(super) const STRING: u32 = 14;
    pub(super) const BYTES: u32 = 15;
    pub(super) const ENUM: u32 = 16;
    pub(super) const MESSAGE: u32 = 17;
    pub(super) const REPEATED: u32 = 18;
    pub(super) const MAP: u32 = 19;
    pub(super) const ANY: u32 = 20;
    pub(super) const DURATION: u32 = 21;
    pub(super) const TIMESTAMP: u32 = 22;
}

/// Checks the fields of one message; its messages were checked when they were decoded.
pub(crate) fn check(message: &Msg, report: &Report) {
    let checker = Checker { report };
    for (index, field) in message.ty.fields.iter().enumerate() {
        let Some(rules) = field.rules else { continue };
        match message.fields.iter().find(|set| set.index == index) {
            Some(set) => checker.set_field(field, set, rules),
            // A member of a oneof is only needed when it is the one that is set.
            None if field.oneof.is_some() || message.broken.contains(&index) => {}
            None => checker.unset_field(field, message, rules),
        }
    }
}

#[derive(Clone, Copy)]
struct Checker<'a> {
    report: &'a Report,
}

impl Checker<'_> {
    fn set_field(self, field: &Field, set: &Set, rules: &[u8]) {
        for (n, rule) in Fields(rules) {
            self.item(&set.item, n, rule, field.name);
        }
    }

    /// A field that is not set breaks a rule when its zero value does.
    fn unset_field(self, field: &Field, message: &Msg, rules: &[u8]) {
        for (n, rule) in Fields(rules) {
            let find = |number| rule.fields().find(number);
            let required = match n {
                kind::MESSAGE => find(2).is_some_and(Wire::flag),
                kind::ANY | kind::DURATION | kind::TIMESTAMP => find(1).is_some_and(Wire::flag),
                kind::REPEATED | kind::MAP => {
                    let ignore = find(if n == kind::MAP { 6 } else { 5 }).is_some_and(Wire::flag);
                    !ignore && find(1).is_some_and(|least| least.int() > 0)
                }
                kind::STRING if !field.presence => {
                    let ignore = find(26).is_some_and(Wire::flag);
                    let short = [2, 4].iter().any(|n| find(*n).is_some_and(|v| v.int() > 0));
                    !ignore && short
                }
                _ if field.presence || field.repeated || n > 12 => false,
                _ => {
                    let ignore = find(8).is_some_and(Wire::flag);
                    !ignore && number_rule(n, rule, 0.0).is_some()
                }
            };
            if required {
                let name = message.ty.short_name();
                self.report
                    .error(&message.at, format!("`{name}` needs `{}`", field.name))
                    .hint(format!("add `{}`", example(field)));
                return;
            }
        }
    }

    fn item(self, item: &Item, n: u32, rule: Wire<'_>, name: &str) {
        match (&item.value, n) {
            (Value::List(items), kind::REPEATED) => self.list(items, &item.at, rule, name),
            (Value::Map(entries), kind::MAP) => self.map(entries, &item.at, rule, name),
            (Value::Text(text), kind::STRING) => self.text(text, &item.at, rule, name),
            (Value::Bytes(bytes), kind::BYTES) => {
                self.size(bytes.len(), rule, (2, 3), (&item.at, name, "bytes"));
            }
            (Value::Enum(number, text), kind::ENUM) => {
                self.enumeration((*number, text), &item.at, rule, name);
            }
            (Value::Duration(value), kind::DURATION) => {
                self.duration(*value, &item.at, rule, name);
            }
            (Value::Bool(value), 13)
                if rule.fields().find(1).is_some_and(|wanted| wanted.flag() != *value) =>
            {
                self.report.error(&item.at, format!("`{name}` must be `{}`", !value));
            }
            (value, 1..=12) => {
                if let Some(number) = as_number(value)
                    && let Some(problem) = number_rule(n, rule, number)
                    && !(number == 0.0 && rule.fields().find(8).is_some_and(Wire::flag))
                {
                    self.report.error(&item.at, format!("`{name}` is {number}, but {problem}"));
                }
            }
            _ => {}
        }
    }

    fn size(self, size: usize, rule: Wire<'_>, bounds: (u32, u32), of: (&At, &str, &str)) {
        let (at, name, unit) = of;
        let bound =
            |n| rule.fields().find(n).map(|v| usize::try_from(v.int()).unwrap_or(usize::MAX));
        if let Some(least) = bound(bounds.0).filter(|least| size < *least) {
            let text = match least {
                1 => format!("`{name}` must not be empty"),
                _ => format!("`{name}` has {size} {unit}, at least {least} are needed"),
            };
            self.report.error(at, text);
        }
        if let Some(most) = bound(bounds.1).filter(|most| size > *most) {
            self.report
                .error(at, format!("`{name}` has {size} {unit}, at most {most} are allowed"));
        }
    }

    fn list(self, items: &[Item], at: &At, rule: Wire<'_>, name: &str) {
        let ignore = rule.fields().find(5).is_some_and(Wire::flag);
        if !(items.is_empty() && ignore) {
            self.size(items.len(), rule, (1, 2), (at, name, "elements"));
        }
        if rule.fields().find(3).is_some_and(Wire::flag) {
            self.unique(items, name);
        }
        if let Some(inner) = rule.fields().find(4) {
            for item in items {
                for (n, rule) in inner.fields() {
                    self.item(item, n, rule, name);
                }
            }
        }
    }

    fn unique(self, items: &[Item], name: &str) {
        let mut seen = std::collections::HashSet::new();
        for item in items {
            let number = as_number(&item.value).map(|n| n.to_string());
            let name_of = if let Value::Enum(_, name) = item.value { name } else { "" };
            let key = number.unwrap_or_else(|| format!("{}{name_of}", item.text()));
            if key.is_empty() {
                continue;
            }
            if !seen.insert(key.clone()) {
                let text = format!("`{}` stands twice in `{name}`", shorten(&key));
                self.report.error(&item.at, text);
            }
        }
    }

    fn map(self, entries: &[(String, Item)], at: &At, rule: Wire<'_>, name: &str) {
        self.size(entries.len(), rule, (1, 2), (at, name, "entries"));
        for (key, item) in entries {
            for (n, inner) in rule.fields().find(4).into_iter().flat_map(Wire::fields) {
                if n == kind::STRING {
                    self.text(key, &item.at, inner, "the key");
                }
            }
            for (n, inner) in rule.fields().find(5).into_iter().flat_map(Wire::fields) {
                self.item(item, n, inner, name);
            }
        }
    }

    fn text(self, text: &str, at: &At, rule: Wire<'_>, name: &str) {
        if text.is_empty() && rule.fields().find(26).is_some_and(Wire::flag) {
            return;
        }
        if text.is_empty() && rule.fields().any(|(n, v)| matches!(n, 2 | 4) && v.int() > 0) {
            self.report.error(at, format!("`{name}` must not be empty"));
            return;
        }
        self.size(text.chars().count(), rule, (2, 3), (at, name, "characters"));
        self.size(text.len(), rule, (4, 5), (at, name, "bytes"));
        let shown = shorten(text);
        for (n, value) in rule.fields() {
            let wanted = value.text();
            let problem = match n {
                1 if text != wanted => format!("be `{wanted}`"),
                6 if !matches_pattern(wanted, text) => format!("match `{wanted}`"),
                7 if !text.starts_with(wanted) => format!("start with `{wanted}`"),
                8 if !text.ends_with(wanted) => format!("end with `{wanted}`"),
                9 if !text.contains(wanted) => format!("contain `{wanted}`"),
                11 if text == wanted => "be something else".to_owned(),
                23 if text.contains(wanted) => format!("not contain `{wanted}`"),
                24 => match well_known_problem(text, value.int(), rule) {
                    Some(problem) => problem,
                    None => continue,
                },
                _ => continue,
            };
            self.report.error(at, format!("`{name}` is `{shown}`, but must {problem}"));
        }
        let allowed: Vec<&str> =
            rule.fields().filter(|(n, _)| *n == 10).map(|(_, v)| v.text()).collect();
        if !allowed.is_empty() && !allowed.contains(&text) {
            self.report
                .error(at, format!("`{name}` is `{shown}`, which is not allowed"))
                .hint(format!("allowed: {}", allowed.join(", ")));
        }
    }

    fn enumeration(self, value: (i32, &str), at: &At, rule: Wire<'_>, name: &str) {
        let numbers = |n| rule.fields().filter(move |(m, _)| *m == n).map(|(_, v)| v.int32());
        let allowed: Vec<i32> = numbers(3).collect();
        let refused = numbers(4).any(|n| n == value.0);
        if refused || (!allowed.is_empty() && !allowed.contains(&value.0)) {
            self.report.error(at, format!("`{}` is not allowed for `{name}`", value.1));
        }
    }

    fn duration(self, value: Span64, at: &At, rule: Wire<'_>, name: &str) {
        for (n, bound) in rule.fields() {
            let limit = decode_duration(bound);
            let problem = match n {
                3 if value >= limit => "less than",
                4 if value > limit => "at most",
                5 if value <= limit => "more than",
                6 if value < limit => "at least",
                _ => continue,
            };
            let (value, limit) = (value.to_text(), limit.to_text());
            self.report.error(at, format!("`{name}` is {value}, but must be {problem} {limit}"));
        }
    }
}

/// How a field is written.
pub(crate) fn example(field: &Field) -> String {
    let name = field.name;
    let value = match (name, field.kind) {
        ("domains", _) => "[\"*\"]",
        ("stat_prefix", _) => "ingress_http",
        ("prefix", Kind::Text) => "\"/\"",
        ("route", Kind::Message("envoy.config.route.v3.RouteAction")) => "{ cluster: NAME }",
        ("cluster", Kind::Text) => "NAME",
        ("socket_address", _) => "{ address: 127.0.0.1, port_value: 8080 }",
        ("match", _) => "{ prefix: \"/\" }",
        ("address", Kind::Message("envoy.config.core.v3.Address")) => {
            "{ socket_address: { address: 127.0.0.1, port_value: 8080 } }"
        }
        ("typed_config", _) => "{ \"@type\": type.googleapis.com/envoy.… }",
        (_, _) if field.repeated => "[ … ]",
        (_, Kind::Message("google.protobuf.Duration")) => "1s",
        (_, Kind::Message(_)) => "{ … }",
        (_, _) => "…",
    };
    format!("{name}: {value}")
}

fn matches_pattern(pattern: &str, text: &str) -> bool {
    thread_local! {
        // There are a few dozen patterns, and a large configuration has thousands of fields.
        static COMPILED: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let known = compiled.get(pattern).cloned();
        let regex = known.unwrap_or_else(|| {
            let regex = Regex::new(pattern).ok();
            compiled.insert(pattern.to_owned(), regex.clone());
            regex
        });
        // A pattern this crate cannot read is Envoy's business, not the user's.
        regex.is_none_or(|regex| regex.is_match(text))
    })
}

/// `well_known_regex`: 1 is a header's name, 2 a header's value; `strict` (25) is on by default.
fn well_known_problem(text: &str, which: u64, rule: Wire<'_>) -> Option<String> {
    let strict = rule.fields().find(25).is_none_or(Wire::flag);
    let bad = |c: char| match (which, strict) {
        (_, false) => matches!(c, '\0' | '\r' | '\n'),
        (1, true) => !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_|~`".contains(c)),
        (_, true) => c.is_ascii_control() && c != '\t',
    };
    let body = if which == 1 { text.strip_prefix(':').unwrap_or(text) } else { text };
    let what = if which == 1 { "be a header's name" } else { "be a header's value" };
    body.chars().any(bad).then(|| what.to_owned())
}

fn as_number(value: &Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "the limits in the rules are small numbers")]
    match value {
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        Value::Double(n) => Some(*n),
        Value::Bool(_)
        | Value::Text(_)
        | Value::Bytes(_)
        | Value::Enum(..)
        | Value::Duration(_)
        | Value::Message(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::Json(_) => None,
    }
}

/// The number in a rule for the number type `n`.
fn rule_number(n: u32, value: Wire<'_>) -> f64 {
    let number: Option<f64> = match (n, value) {
        (1, Wire::Fixed32(bits)) => Some(f32::from_bits(bits).into()),
        (2, Wire::Fixed64(bits)) => Some(f64::from_bits(bits)),
        _ => None,
    };
    #[expect(clippy::cast_precision_loss, reason = "the limits in the rules are small numbers")]
    number.unwrap_or_else(|| value.int().cast_signed() as f64)
}

/// What a number breaks, if it does. `n` is the number type.
fn number_rule(n: u32, rule: Wire<'_>, number: f64) -> Option<String> {
    let mut allowed = Vec::new();
    for (which, value) in rule.fields() {
        let limit = rule_number(n, value);
        let problem = match which {
            #[expect(clippy::float_cmp, reason = "the rule wants exactly this number")]
            1 if number != limit => "",
            2 if number >= limit => "less than ",
            3 if number > limit => "at most ",
            4 if number <= limit => "more than ",
            5 if number < limit => "at least ",
            6 => {
                allowed.push(limit);
                continue;
            }
            #[expect(clippy::float_cmp, reason = "the rule forbids exactly this number")]
            7 if number == limit => "anything but ",
            _ => continue,
        };
        return Some(format!("must be {problem}{limit}"));
    }
    if allowed.is_empty() || allowed.contains(&number) {
        return None;
    }
    let list: Vec<String> = allowed.iter().map(f64::to_string).collect();
    Some(format!("must be one of {}", list.join(", ")))
}

fn decode_duration(wire: Wire<'_>) -> Span64 {
    let seconds = wire.fields().find(1).map_or(0, |v| v.int().cast_signed());
    Span64 { seconds, nanos: wire.fields().find(2).map_or(0, Wire::int32) }
}

//! Decodes single values: numbers, text, enums, durations and Google's well-known types.

use serde_json::Value as Json;

use super::{
    super::{
        message::{Span64, Value},
        schema::Kind,
        source::At,
        suggest,
        yaml::{self, Node},
    },
    Decoder, number,
};

/// Google's types that have their own form in JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    /// A scalar that can be unset.
    Wrapper(Kind),
    /// `Duration`.
    Duration,
    /// `Timestamp` and `FieldMask`: kept as text.
    Text,
    /// `Value`.
    Any,
    /// `Struct`.
    Object,
    /// `ListValue`.
    List,
}

/// Recognises one of Google's types.
pub(super) fn well_known(name: &str) -> Option<Known> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "BoolValue" => Known::Wrapper(Kind::Bool),
        "UInt32Value" => Known::Wrapper(Kind::Uint32),
        "UInt64Value" => Known::Wrapper(Kind::Uint64),
        "Int32Value" => Known::Wrapper(Kind::Int32),
        "Int64Value" => Known::Wrapper(Kind::Int64),
        "DoubleValue" => Known::Wrapper(Kind::Double),
        "FloatValue" => Known::Wrapper(Kind::Float),
        "StringValue" => Known::Wrapper(Kind::Text),
        "BytesValue" => Known::Wrapper(Kind::Bytes),
        "Duration" => Known::Duration,
        "Timestamp" | "FieldMask" => Known::Text,
        "Value" => Known::Any,
        "Struct" => Known::Object,
        "ListValue" => Known::List,
        _ => return None,
    })
}

impl Decoder<'_> {
    /// Decodes one of Google's types.
    pub(super) fn well_known(&self, node: &Node, known: Known, at: &At) -> Option<Value> {
        match known {
            Known::Wrapper(kind) => self.scalar(node, kind, at),
            Known::Duration => self.duration(node, at),
            Known::Text => self.scalar(node, Kind::Text, at),
            Known::Any => Some(Value::Json(to_json(node))),
            Known::Object => {
                let ok = matches!(node.value, yaml::Value::Mapping(_) | yaml::Value::Null);
                self.json(node, ok, "a mapping", at)
            }
            Known::List => {
                self.json(node, matches!(node.value, yaml::Value::Sequence(_)), "a list", at)
            }
        }
    }

    fn json(&self, node: &Node, ok: bool, wanted: &str, at: &At) -> Option<Value> {
        if !ok {
            self.report.error(at, format!("expected {wanted}, found {}", node.describe()));
            return None;
        }
        Some(Value::Json(to_json(node)))
    }

    /// Decodes a number, a boolean, a text, bytes or an enum.
    pub(super) fn scalar(&self, node: &Node, kind: Kind, at: &At) -> Option<Value> {
        let yaml::Value::Scalar { text, plain } = &node.value else {
            let wanted = describe(kind);
            let added =
                self.report.error(at, format!("expected {wanted}, found {}", node.describe()));
            if matches!(node.value, yaml::Value::Sequence(_)) {
                added.hint("this field takes one value: remove the `-`");
            }
            return None;
        };
        match kind {
            Kind::Bool => self.boolean(text, at),
            Kind::Int32 => self.integer((text, *plain), i32::MIN.into(), i32::MAX.into(), at),
            Kind::Int64 => self.integer((text, *plain), i64::MIN.into(), i64::MAX.into(), at),
            Kind::Uint32 => self.integer((text, *plain), 0, u32::MAX.into(), at),
            Kind::Uint64 => self.integer((text, *plain), 0, u64::MAX.into(), at),
            Kind::Float | Kind::Double => {
                let parsed = number::float(text, *plain);
                if parsed.is_none() {
                    self.wrong(kind, text, at);
                }
                parsed.map(Value::Double)
            }
            Kind::Text | Kind::Message(_) => Some(Value::Text(text.clone())),
            Kind::Bytes => {
                let decoded = base64(text);
                if decoded.is_none() {
                    self.wrong(kind, text, at);
                }
                decoded.map(Value::Bytes)
            }
            Kind::Enum(name) => self.enumeration(text, *plain, name, at),
        }
    }

    fn wrong(&self, kind: Kind, text: &str, at: &At) {
        let message = format!("expected {}, found `{}`", describe(kind), yaml::shorten(text));
        self.report.error(at, message).maybe_hint(placeholder_hint(text));
    }

    fn boolean(&self, text: &str, at: &At) -> Option<Value> {
        // Envoy reads booleans as YAML 1.1 does.
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(Value::Bool(true)),
            "false" | "no" | "off" | "n" => Some(Value::Bool(false)),
            _ => {
                let shown = yaml::shorten(text);
                self.report
                    .error(at, format!("expected `true` or `false`, found `{shown}`"))
                    .maybe_hint(placeholder_hint(text));
                None
            }
        }
    }

    fn integer(
        &self,
        (text, plain): (&str, bool),
        low: i128,
        high: i128,
        at: &At,
    ) -> Option<Value> {
        let digits = text.trim();
        match number::integer(digits, plain) {
            Some(number) if (low..=high).contains(&number) => match u64::try_from(number) {
                Ok(number) if low == 0 => Some(Value::Uint(number)),
                _ => i64::try_from(number).ok().map(Value::Int),
            },
            Some(_) => {
                let shown = yaml::shorten(text);
                self.report
                    .error(at, format!("{shown} is out of range: it must be {low}..={high}"));
                None
            }
            None => {
                let shown = yaml::shorten(text);
                let added = self
                    .report
                    .error(at, format!("expected a whole number, found `{shown}`"))
                    .maybe_hint(placeholder_hint(text));
                if digits.ends_with(['s', 'm', 'h', 'k', 'K', 'M', 'G', 'B', 'b']) {
                    added.hint("write the number alone, without a unit");
                }
                None
            }
        }
    }

    fn enumeration(&self, text: &str, plain: bool, name: &str, at: &At) -> Option<Value> {
        let ty = self.schema.enumeration(name)?;
        let by_name = ty.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let number = text.parse().ok();
        let number = if plain { number::based(text).or(number) } else { number };
        let by_number = || ty.values.iter().find(|(_, n)| Some(i128::from(*n)) == number);
        if let Some((name, number)) = by_name.or_else(by_number) {
            return Some(Value::Enum(*number, name));
        }
        let names = ty.values.iter().map(|(name, _)| *name);
        let short = name.rsplit('.').next().unwrap_or(name);
        let is_shown = self.report.shows_error(at);
        let near = is_shown.then(|| suggest::nearest(text, names.clone())).flatten();
        let allowed: Vec<&str> = names.collect();
        let shown = yaml::shorten(text);
        self.report
            .error(at, format!("`{shown}` is not a value of `{short}`"))
            .maybe_hint(placeholder_hint(text))
            .maybe_hint(near.map(|name| format!("did you mean `{name}`?")))
            .hint(format!("allowed: {}", allowed.join(", ")));
        None
    }

    fn duration(&self, node: &Node, at: &At) -> Option<Value> {
        match &node.value {
            yaml::Value::Scalar { text, .. } => {
                let duration = parse_duration(text.trim());
                if duration.is_none() {
                    let shown = yaml::shorten(text);
                    self.report
                        .error(at, format!("expected a duration in seconds, found `{shown}`"))
                        .hint(placeholder_hint(text).unwrap_or_else(|| duration_hint(text.trim())));
                }
                duration.map(Value::Duration)
            }
            yaml::Value::Mapping(_) => {
                let ty = self.schema.message("google.protobuf.Duration")?;
                let message = self.message(node, &ty, at.clone())?;
                let part = |name| match message.peek(name).map(|set| &set.item.value) {
                    Some(Value::Int(value)) => *value,
                    Some(Value::Uint(value)) => i64::try_from(*value).unwrap_or(i64::MAX),
                    _ => 0,
                };
                let nanos = i32::try_from(part("nanos")).unwrap_or(0);
                Some(Value::Duration(Span64 { seconds: part("seconds"), nanos }))
            }
            yaml::Value::Null | yaml::Value::Sequence(_) => {
                let found = node.describe();
                self.report
                    .error(at, format!("expected a duration in seconds, found {found}"))
                    .hint("write it like `0.25s`");
                None
            }
        }
    }
}

/// What helps when a variable stands where a value should.
fn placeholder_hint(text: &str) -> Option<String> {
    if text.contains("${") {
        return Some("`--expand-env` replaces it by the environment variable".to_owned());
    }
    if text.contains("{{") {
        return Some("this is a template: it must be rendered first".to_owned());
    }
    let name = text.strip_prefix('$')?;
    Some(format!("write `${{{name}}}` and use `--expand-env`"))
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "`true` or `false`",
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => "a whole number",
        Kind::Float | Kind::Double => "a number",
        Kind::Text => "text",
        Kind::Bytes => "base64",
        Kind::Enum(_) => "a name",
        Kind::Message(_) => "a mapping",
    }
}

/// Protobuf's JSON form: seconds with up to nine decimals and an `s`.
fn parse_duration(text: &str) -> Option<Span64> {
    /// About 10,000 years, protobuf's own limit, seconds.
    const MAX_SECONDS: i64 = 315_576_000_000;
    let number = text.strip_suffix('s')?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (seconds, decimals) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let shaped = all_digits(seconds) && all_digits(decimals) && decimals.len() <= 9;
    if !shaped || (seconds.is_empty() && decimals.is_empty()) {
        return None;
    }
    let mut seconds: i64 = if seconds.is_empty() { 0 } else { seconds.parse().ok()? };
    let mut nanos: i32 = format!("{decimals:0<9}").parse().ok()?;
    if seconds > MAX_SECONDS {
        return None;
    }
    if negative {
        (seconds, nanos) = (-seconds, -nanos);
    }
    Some(Span64 { seconds, nanos })
}

/// How to write what was probably meant.
fn duration_hint(text: &str) -> String {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split).unwrap_or((text, ""));
    let factor = match unit.trim() {
        "ms" => Some(1e-3),
        "us" | "µs" => Some(1e-6),
        "ns" => Some(1e-9),
        "" | "s" | "sec" | "second" | "seconds" => Some(1.0),
        "m" | "min" | "minute" | "minutes" => Some(60.0),
        "h" | "hour" | "hours" => Some(3600.0),
        "d" | "day" | "days" => Some(86_400.0),
        _ => None,
    };
    let seconds = number.parse::<f64>().ok().zip(factor).map(|(number, factor)| number * factor);
    match seconds {
        Some(seconds) => {
            let text = format!("{seconds:.9}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            format!("write it in seconds with an `s`: `{text}s`")
        }
        None => "write it in seconds with an `s`, like `0.25s`".to_owned(),
    }
}

/// Free-form data. Plain text gets the type that YAML gives it.
fn to_json(node: &Node) -> Json {
    match &node.value {
        yaml::Value::Null => Json::Null,
        yaml::Value::Scalar { text, plain: true } => plain_json(text),
        yaml::Value::Scalar { text, plain: false } => Json::String(text.clone()),
        yaml::Value::Sequence(items) => Json::Array(items.iter().map(to_json).collect()),
        yaml::Value::Mapping(entries) => {
            Json::Object(entries.iter().map(|e| (e.key.clone(), to_json(&e.value))).collect())
        }
    }
}

fn plain_json(text: &str) -> Json {
    let boolean = match text {
        "true" | "True" | "TRUE" | "yes" | "on" => Some(true),
        "false" | "False" | "FALSE" | "no" | "off" => Some(false),
        _ => None,
    };
    let number = || {
        if let Some(number) = number::based(text) {
            return i64::try_from(number).ok().map(Into::into);
        }
        let starts =
            text.trim_start_matches(['-', '+', '.']).starts_with(|c: char| c.is_ascii_digit());
        let float = || text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
        starts.then(|| text.parse::<i64>().ok().map(Into::into).or_else(float)).flatten()
    };
    boolean
        .map(Json::Bool)
        .or_else(|| number().map(Json::Number))
        .unwrap_or_else(|| Json::String(text.to_owned()))
}

/// Both alphabets, padding optional, as protobuf's JSON allows.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut buffer, mut bits) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes().filter(|b| !b.is_ascii_whitespace()) {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        buffer = buffer << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(buffer >> bits & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_protobuf_does() {
        let check = |text, expected: Option<(i64, i32)>| {
            let expected = expected.map(|(seconds, nanos)| Span64 { seconds, nanos });
            assert_eq!(parse_duration(text), expected, "{text}");
        };
        check("0.25s", Some((0, 250_000_000)));
        check("15s", Some((15, 0)));
        check(".5s", Some((0, 500_000_000)));
        check("-1.5s", Some((-1, -500_000_000)));
        check("250ms", None);
        check("s", None);
        check("15", None);
        check("1.0000000001s", None);
        check("99999999999999s", None);
    }

    #[test]
    fn a_wrong_duration_is_rewritten() {
        assert!(duration_hint("250ms").ends_with("`0.25s`"));
        assert!(duration_hint("5m").ends_with("`300s`"));
        assert!(duration_hint("15").ends_with("`15s`"));
        assert!(duration_hint("soon").ends_with("`0.25s`"));
    }

    #[test]
    fn base64_takes_both_alphabets() {
        assert_eq!(base64("aGk="), Some(b"hi".to_vec()));
        assert_eq!(base64("-_-_"), base64("+/+/"));
        assert_eq!(base64("a b!"), None);
    }
}

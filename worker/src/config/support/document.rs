//! `docs/CONFIG.md` is made from the tables and the descriptors. The test fails when it is stale;
//! `BLESS=1 cargo test -p baton-worker documentation_is_current` writes it anew.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{
    super::schema::{Field, Kind, Schema},
    Effect, MessageSupport, TABLES,
};

const INTRODUCTION: &str = "\
# Configuration

baton reads Envoy's v3 bootstrap in YAML or JSON. This page lists every field it knows what to do
with; it is generated from the table that the loader itself uses, so it cannot promise more than the
code does. What a field means is said in [Envoy's documentation][envoy]; notes tell what differs.

A field of Envoy's that is **not listed here** is not implemented: `baton validate` names it with
its line, and baton does not start, unless `--allow-unimplemented` turns that into a warning. Even
then it stays an error where leaving the field out would let traffic through that it holds back, or
send it elsewhere; such messages are marked *strict*.

How text is read:

- Field names in `snake_case` or `camelCase`; enum names in any case; one value where a list is
  expected; `null` for \"unset\"; numbers and booleans in quotes.
- Durations in seconds, like `0.25s`, or as `{ seconds: 1, nanos: 0 }`.
- Anchors, aliases and `<<` merge keys; `!ignore` drops an entry. A key that stands twice and a
  second document are errors.
- `typed_config` may be left out where it would be empty (the router, for example); there is a
  warning, because Envoy refuses that.
- `${VAR}` and `${VAR:-default}` are replaced by environment variables with `--expand-env` only;
  `$${` is a plain `${`.
- All mistakes are reported in one run, at most 50, as `path:line:column: error: …`; as JSON with
  `baton validate --json`.

Effects: *read*: it works. *harmless*: accepted, changes nothing that anybody would notice. *no
effect*: accepted with a warning.

Why it is read this way: [decision 2](decisions/0002-descriptor-driven-configuration.md).

[envoy]: https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
";

fn document() -> String {
    let schema = Schema::new();
    let mut text = INTRODUCTION.to_owned();
    for (title, table) in TABLES {
        writeln!(text, "\n## {title}").unwrap();
        for message in *table {
            write_message(&mut text, message, &schema);
        }
    }
    text
}

fn write_message(text: &mut String, message: &MessageSupport, schema: &Schema) {
    let strict = if message.strict { " (strict)" } else { "" };
    writeln!(text, "\n### `{}`{strict}\n", message.name).unwrap();
    if message.fields.is_empty() {
        writeln!(text, "No fields.").unwrap();
        return;
    }
    let ty = schema.message(message.name).unwrap();
    writeln!(text, "| field | type | effect | note |\n|---|---|---|---|").unwrap();
    for entry in message.fields {
        let field = &ty.fields[ty.position(entry.name).unwrap()];
        let effect = match entry.effect {
            Effect::Read => "read",
            Effect::Harmless => "harmless",
            Effect::Ignored => "no effect",
        };
        let (name, ty) = (entry.name, type_name(field, schema));
        writeln!(text, "| `{name}` | {ty} | {effect} | {} |", entry.note).unwrap();
    }
}

fn type_name(field: &Field, schema: &Schema) -> String {
    let short = |name: &str| name.rsplit('.').next().unwrap().to_owned();
    let name = match field.kind {
        Kind::Message(name) => {
            let inner = schema.message(name).unwrap();
            if inner.is_map_entry {
                return "map".to_owned();
            }
            match short(name).as_str() {
                "BoolValue" => "bool".to_owned(),
                "UInt32Value" => "uint32".to_owned(),
                "Duration" => "duration".to_owned(),
                other => other.to_owned(),
            }
        }
        Kind::Enum(name) => short(name),
        Kind::Text => "string".to_owned(),
        Kind::Bool
        | Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Float
        | Kind::Double
        | Kind::Bytes => format!("{:?}", field.kind).to_lowercase(),
    };
    if field.repeated { format!("list of {name}") } else { name }
}

#[test]
fn documentation_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIG.md");
    let text = document();
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(current == text, "docs/CONFIG.md is stale: run this test with BLESS=1");
}

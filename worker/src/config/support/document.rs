//! `docs/CONFIG.md` is made from the tables and the descriptors. The test fails when it is stale;
//! `BLESS=1 cargo test -p baton-worker documentation_is_current` writes it anew.

use std::{fmt::Write as _, fs, path::PathBuf};

use crate::extension;

use super::{
    super::schema::{Field, Kind, Schema},
    Effect, MessageSupport, TABLES, skip,
};

const INTRODUCTION: &str = "\
# Configuration

baton reads Envoy's v3 bootstrap in YAML or JSON. This page lists every field it knows what to do
with; it is generated from the table that the loader itself uses, so it cannot promise more than the
code does. What a field means is said in [Envoy's documentation][envoy]; the notes say what differs.

A field of Envoy's that is **not listed here** is not implemented: `baton validate` names it with
its line, and baton does not start. `--allow-unimplemented` leaves out what is listed under
[What may be left out](#what-may-be-left-out), with a warning. Everything else stays an error even then,
because leaving it out could let traffic through that it holds back, or send it elsewhere: filters of
every kind, transport sockets, limits, and what baton does not know. In a message marked *strict* no
field may be left out.

How text is read:

- Field names in `snake_case` or `camelCase`; enum names in any case; one value where a list is
  expected; `null` for \"unset\"; numbers and booleans in quotes.
- Integers as Envoy reads YAML's: `0440` without quotes is octal, `0x1ff` hexadecimal; in quotes
  `\"0440\"` is decimal.
- Durations in seconds, like `0.25s`, or as `{ seconds: 1, nanos: 0 }`.
- Anchors, aliases and `<<` merge keys; `!ignore` drops an entry. A key that occurs twice and a
  second document are errors.
- `typed_config` may be left out, or be `{}`, where it would be empty (the router, for example);
  there is a warning, because Envoy refuses that.
- Regular expressions have RE2's syntax and match bytes, as Envoy's do: `é` is two bytes, `\\d` is ten
  digits. Compiled, one may take 10 MiB of memory.
- `${VAR}` and `${VAR:-default}` are replaced by environment variables with `--expand-env` only;
  `$${` is a plain `${`.
- A file may have 64 MiB, and it must be a regular file; `-` is standard input for `baton validate`.
  What is made of YAML's aliases is at most 200,000 values, and nothing is nested more than 96 levels
  deep.
- Whatever would make a start fail is a mistake in the configuration, too: an access log that cannot be
  written, a Unix socket whose path has more than 107 bytes or whose directory is missing, an address
  that two listeners want. `baton validate --check-bind` also tries to bind the ports.
- All mistakes are reported in one run, at most 50, as `path:line:column: error: …`; as JSON with
  `baton validate --json`.

Effects: *read*: it works. *harmless*: accepted, and nobody would notice a difference. *no
effect*: accepted with a warning.

Why it is read this way: [decision 2](decisions/0002-descriptor-driven-configuration.md).

[envoy]: https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
";

/// What a table cannot say.
const DIFFERENCES: &str = include_str!("differences.md");

const FIXED: &str = "
## Limits without a field

These limits are fixed, so that no message and no connection can use memory or time without a bound:

| what | limit | beyond it |
|---|---|---|
| request target | as large as a head (`max_request_headers_kb`) | 414 |
| method | 32 bytes | 400 |
| empty lines before a request | 2 | 400 |
| name of a protocol in `upgrade` | 31 bytes | the offer is ignored; in a 101: 502 |
| size of a chunk | 255 digits, leading zeros among them, and 64 bits | 400; a response is cut |
| blanks behind the size of a chunk | 4 KiB | 400; a response is cut |
| extensions of the chunks of a body | 4 KiB in all | 400; a response is cut |
| trailers | 16 KiB, 100 lines | 400; a response is cut |
| head of a response from an endpoint | 60 KiB, 100 lines | 502 |
| interim responses (1xx) before a response | 10 | 502 |
| further choices of an endpoint for a retry (`host_selection_retry_max_attempts`) | 100 | the last choice stands |
| idle connections to one endpoint | 1024 for each worker thread | closed |
| after our end of a connection | what the client still sends is read, for at most 30 s and 64 MiB, and until it is silent for `delayed_close_timeout` | closed |
| a connection that is to end and has no request, at a stop, after `max_connection_duration` or when its listener is gone | 1 s of silence; a request that comes before is served and its response says `connection: close` | our end is sent |
| a cut response to HTTP/1.0 without a length | 5 s for the client to take what came | reset |
| connections to the admin interface | 100 | they wait |
| configuration file | 64 MiB, 96 levels, 200,000 nodes from aliases | an error |
| file that a configuration names | 8 MiB | an error |

There is no minimum rate: a body may come as slowly as `stream_idle_timeout` and `request_timeout` allow.
";

fn document() -> String {
    let schema = Schema::new(extension::ALL);
    let mut text = [INTRODUCTION, DIFFERENCES].concat();
    for (title, table) in TABLES {
        writeln!(text, "\n## {title}").unwrap();
        for message in *table {
            write_message(&mut text, message, &schema);
        }
        if *title == "HTTP" {
            writeln!(text, "\n## HTTP filters").unwrap();
            for message in extension::ALL.http.iter().flat_map(|known| known.tables) {
                write_message(&mut text, message, &schema);
            }
        }
    }
    write_skippable(&mut text);
    text.push_str(FIXED);
    text
}

fn write_skippable(text: &mut String) {
    text.push_str(
        "\n## What may be left out\n\nWith `--allow-unimplemented` these extensions and fields are \
         left out, with a warning. None of them\nholds traffic back.\n\n| extension | without it \
         |\n|---|---|\n",
    );
    for known in skip::EXTENSIONS {
        writeln!(text, "| `{}` | {} |", known.prefix.trim_end_matches('.'), known.lost).unwrap();
    }
    text.push_str("\n| message | fields |\n|---|---|\n");
    let of_filters = extension::ALL.http.iter().flat_map(|known| known.skippable);
    for (message, fields) in skip::FIELDS.iter().chain(of_filters) {
        let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
        writeln!(text, "| `{message}` | {} |", fields.join(", ")).unwrap();
    }
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

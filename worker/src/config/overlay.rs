//! Changes to the tree before it is decoded: `--config-yaml` over the file, `${VAR}`.

use super::{
    source::{At, Path, Report},
    yaml::{Entries, Entry, Node, Value},
};

/// Lays one tree over another: mappings are merged, lists are appended, the rest is replaced, as
/// protobuf's merge does and thus Envoy.
pub(crate) fn merge(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::Mapping(entries), Value::Mapping(more)) => {
            let mut entries = Entries::from(entries);
            for entry in more {
                match entries.find(&entry.key) {
                    None => entries.push(entry),
                    Some(old) => {
                        let null = Node { value: Value::Null, span: old.value.span };
                        let value = merge(std::mem::replace(&mut old.value, null), entry.value);
                        *old = Entry { value, ..entry };
                    }
                }
            }
            Node { value: Value::Mapping(entries.into_list()), span: base.span }
        }
        (Value::Sequence(mut items), Value::Sequence(more)) => {
            items.extend(more);
            Node { value: Value::Sequence(items), span: base.span }
        }
        (value, Value::Null) => Node { value, span: base.span },
        (_, value) => Node { value, span: over.span },
    }
}

/// Replaces `${VAR}` and `${VAR:-default}` in all values; `$${` stands for `${`.
pub(crate) fn expand(node: &mut Node, path: &Path, report: &Report) {
    let at = At { span: node.span, path: path.clone() };
    match &mut node.value {
        Value::Null => {}
        Value::Scalar { text, .. } => {
            if text.contains("${") {
                *text = expand_text(text, |name| std::env::var(name).ok(), &at, report);
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &path.index(index), report);
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                expand(&mut entry.value, &path.key(&entry.key), report);
            }
        }
    }
}

fn expand_text(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
    at: &At,
    report: &Report,
) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            report
                .error(at, "`${` without `}`")
                .hint("write `$${` when no environment variable is meant");
            return out;
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(legal) {
            report.error(at, format!("`{name}` is not the name of an environment variable"));
        } else {
            // As in a shell, `:-` also replaces an empty value.
            let value = lookup(name).filter(|value| default.is_none() || !value.is_empty());
            match (value, default) {
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => {
                    report
                        .error(at, format!("the environment variable `{name}` is not set"))
                        .hint(format!("set it, or give a default: `${{{name}:-value}}`"));
                }
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_and_missing_ones_reported() {
        let check = |text: &str, expected: &str, errors: usize| {
            let report = Report::default();
            let lookup = |name: &str| match name {
                "A" => Some("1".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            };
            assert_eq!(expand_text(text, lookup, &At::default(), &report), expected, "{text}");
            assert_eq!(report.peek().len(), errors, "{text}");
        };
        check("x${A}y", "x1y", 0);
        check("${A:-2}${B:-2}", "12", 0);
        check("${EMPTY:-d}${EMPTY}", "d", 0);
        check("$${A} $A", "${A} $A", 0);
        check("${B}", "", 1);
        check("${A", "", 1);
        check("${a b}", "", 1);
    }
}

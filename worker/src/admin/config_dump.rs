//! `/config_dump`: what this generation runs, in Envoy's shape, secrets redacted.

use hyper::StatusCode;
use regex::bytes::Regex;
use serde_json::{Map, Value, json};

use super::{AdminContext, Answer, config_sections as sections, query::Query};
use crate::config::pattern;

/// Answers `/config_dump`.
pub(super) fn answer(context: &AdminContext, query: &Query) -> Answer {
    let Ok(names) = query.get("name_regex").map(pattern::search).transpose() else {
        return Answer::error(StatusCode::BAD_REQUEST, "Invalid re2 regex\n");
    };
    let mut sections = sections::all(context, query.get("include_eds").is_some());
    if let Some(resource) = query.get("resource") {
        let Some(found) = list(&sections, resource) else {
            let text = format!("{resource} not found in config dump\n");
            return Answer::error(StatusCode::NOT_FOUND, text);
        };
        sections = found;
        sections.retain(|item| names.as_ref().is_none_or(|regex| is_named(item, regex)));
    } else if let Some(names) = &names {
        for section in &mut sections {
            let lists = section.as_object_mut().into_iter().flat_map(Map::values_mut);
            for list in lists.filter_map(Value::as_array_mut) {
                list.retain(|item| is_named(item, names));
            }
        }
    }
    if let Some(mask) = query.get("mask") {
        for section in &mut sections {
            *section = masked(section, mask);
        }
    }
    Answer::json(&json!({ "configs": sections }))
}

/// The items of one list, each with its type; `None` when no section has such a list.
fn list(sections: &[Value], name: &str) -> Option<Vec<Value>> {
    let known = sections::LISTS.iter().find(|known| known.name == name)?;
    let ty = sections::type_url(known.section);
    let section = sections.iter().find(|section| section["@type"] == ty)?;
    let items = section.get(name).and_then(Value::as_array).into_iter().flatten();
    let with_type = items.filter_map(Value::as_object).map(|item| {
        let mut object = Map::new();
        object.insert("@type".into(), format!("{ty}.{}", known.item).into());
        object.extend(item.clone());
        Value::Object(object)
    });
    Some(with_type.collect())
}

/// True when the item, or what it wraps, has a name that matches.
fn is_named(item: &Value, regex: &Regex) -> bool {
    let matches = |value: &Value| {
        let name = value.get("name").or_else(|| value.get("cluster_name"));
        name.and_then(Value::as_str).is_some_and(|name| regex.is_match(name.as_bytes()))
    };
    matches(item) || item.as_object().is_some_and(|fields| fields.values().any(matches))
}

/// Keeps the fields of a mask, `bootstrap.node,static_clusters`, and `@type`.
fn masked(value: &Value, mask: &str) -> Value {
    let mut kept = Value::Object(Map::new());
    for path in mask.split(',').filter(|path| !path.is_empty()) {
        keep(value, path, &mut kept);
    }
    kept
}

fn keep(value: &Value, path: &str, kept: &mut Value) {
    let (Some(from), Some(to)) = (value.as_object(), kept.as_object_mut()) else { return };
    if let Some(ty) = from.get("@type") {
        to.entry("@type").or_insert_with(|| ty.clone());
    }
    let (first, rest) =
        path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(found) = from.get(first) else { return };
    match rest {
        None => {
            to.insert(first.to_owned(), found.clone());
        }
        Some(rest) => {
            let inner = to.entry(first).or_insert_with(|| Value::Object(Map::new()));
            keep(found, rest, inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_its_fields_and_types() {
        let value = json!({"@type": "t", "a": {"b": 1, "c": 2, "@type": "u"}, "d": 3, "e": 4});
        assert_eq!(
            masked(&value, "a.b,d,x.y"),
            json!({"@type": "t", "a": {"@type": "u", "b": 1}, "d": 3})
        );
    }
}

//! A file that is cut gives the same as one that is parsed as a whole.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{
    super::{
        source::Report,
        yaml::{Node, Value},
    },
    content::{self, Item},
};

/// Header and items with their positions, as text that can be compared. `None` = it cannot be cut.
fn by_cutting(text: &str) -> Option<(String, Vec<String>)> {
    let report = Report::default();
    let content = content::cut(text, 0, &report)?;
    let mut items = Vec::new();
    for item in content.items {
        let Item::Text(piece) = item else { panic!("{item:?}") };
        match content::item(text, &piece, 0, &report) {
            Ok(node) => items.push(show(&node, true)),
            Err(content::NoNode::Ignored) => {}
            Err(content::NoNode::Broken) => return None,
        }
    }
    Some((show(&content.header, false), items))
}

fn as_a_whole(text: &str) -> Option<(String, Vec<String>)> {
    let report = Report::default();
    let content = content::whole(text, 0, &report)?;
    let tree = |item: Item| {
        let Item::Tree(node, reported) = item else { panic!("{item:?}") };
        assert!(reported.is_empty(), "{reported:?}");
        show(&node, true)
    };
    assert!(!report.has_errors());
    Some((show(&content.header, false), content.items.into_iter().map(tree).collect()))
}

/// A tree as text. Positions in a header that was cut are not those of the file.
fn show(node: &Node, with_positions: bool) -> String {
    // What is empty may have the position of what comes next.
    let is_nowhere = match &node.value {
        Value::Null => true,
        Value::Scalar { text, .. } => text.is_empty(),
        Value::Sequence(_) | Value::Mapping(_) => false,
    };
    let has_position = with_positions && !is_nowhere;
    let position = if has_position { format!("{:?}", node.span) } else { String::new() };
    let content = match &node.value {
        Value::Null => "null".to_owned(),
        Value::Scalar { text, plain } => format!("{text:?} {plain}"),
        Value::Sequence(items) => {
            items.iter().map(|item| show(item, with_positions) + ";").collect()
        }
        Value::Mapping(entries) => {
            let mut text = String::new();
            for entry in entries {
                let key_span = if with_positions && entry.key != "null" {
                    format!("{:?}", entry.key_span)
                } else {
                    String::new()
                };
                write!(text, "{}{key_span}={};", entry.key, show(&entry.value, with_positions))
                    .unwrap();
            }
            text
        }
    };
    format!("({position}{content})")
}

/// Whether a text can be cut; if it can, both ways must give the same.
fn is_cut_rightly(text: &str) -> bool {
    let Some(cut) = by_cutting(text) else { return false };
    assert_eq!(Some(cut), as_a_whole(text), "{text:?}");
    true
}

#[test]
fn files_as_people_write_them_are_cut() {
    for text in [
        "resources: []\n---\n",
        "version_info: 'x'\nresources:\n- {a: 1}\n- [b]\n- c\n-\n- - d\n  - e\n",
        "resources:\n  # first\n  - a: |\n      - b\n    c: >-\n      d\n\n  # second\n  - e: \"f\n      g\"\n\nnonce: x\n",
        "---\n# comment\nresources:   # here\n- a: &x {b: 1}\n  c: *x\n  d: {<<: *x, e: 2}\n- f:\n  - g\n  - h: i\n",
        "resources:\r\n- a: 1\r\n  b: |\r\n    c\r\n- d\r\ncanary: true\r\n",
        "resources:\n- a: |+\n    b\n\n\n- !ignore {c: d}\n- e: !ignore f\n",
        "resources:\n- a: 1\n  - b\n- c\n",
    ] {
        let is_well_formed = as_a_whole(text).is_some();
        let can_be_cut = !text.contains("[]") && is_well_formed;
        assert_eq!(is_cut_rightly(text), can_be_cut, "{text:?}");
    }
    for text in [
        "{\"resources\":[]}",
        "{\"version_info\":\"1\",\n \"resources\": [\n  {\"a\": [1, 2.5e3, null, true, \"\\\"}]\\\\\"]},\n  {\"b\": {}}, {\"c\":{\"d\":[[],{}]}}\n ],\n \"nonce\": {\"e\": 1}}\n",
    ] {
        assert!(is_cut_rightly(text), "{text:?}");
    }
}

#[test]
fn an_item_that_reaches_into_another_one_is_not_cut() {
    for text in [
        "resources:\n- &x a\n- *x\n",
        "x: &x 1\nresources:\n- *x\n",
        "version_info: \"a\nresources:\n- x\nb\"\n",
        "version_info: {a: 1,\nresources:\n- x\n}\n",
        "resources:\n- \"a\n- b\"\n",
        "resources:\n- {a: 1,\n- b}\n",
        "resources:\n- 'a\nx: b'\n",
        "--- |\nresources:\n- x\n",
        "resources:\n- a\nresources:\n- b\n",
        "resources:\n- a: 1\n  a: 2\n",
        "resources:\n- !unknown a\n",
    ] {
        assert!(!is_cut_rightly(text), "{text:?}");
    }
}

/// A value in flow or block style, indented by so many blanks when it has several lines.
fn value(indent: usize) -> impl Strategy<Value = String> {
    let blanks = " ".repeat(indent);
    prop_oneof![
        "[a-z]{0,4}",
        Just("\"x # y\"".to_owned()),
        Just("'it''s - x: {'".to_owned()),
        Just("{a: [1, {b: c}], d: \"}\"}".to_owned()),
        Just("[x, 'y', \"z\"]".to_owned()),
        Just(format!("|\n{blanks}  - text\n\n{blanks}  # no comment\n{blanks}   resources:")),
        Just(format!(">-\n{blanks}  folded\n{blanks}  text")),
        Just(format!("\"over\n{blanks}  lines\"")),
        Just(format!("plain over\n{blanks}  lines")),
        Just(format!("\n{blanks}- p\n{blanks}- q: r")),
        Just(format!("\n{blanks}  s: t\n{blanks}  u:\n{blanks}  - v")),
        Just(format!("{{a: 1,\n{blanks}  b: 2}} # end")),
    ]
}

prop_compose! {
    fn item(indent: usize)(
        values in prop::collection::vec(value(indent + 2), 1..4),
        tail in prop_oneof![Just(""), Just("\n"), Just("# between\n"), Just("      # deep\n\n")],
    ) -> String {
        let blanks = " ".repeat(indent);
        let mut text = String::new();
        for (number, value) in values.iter().enumerate() {
            let dash = if number == 0 { "- " } else { "  " };
            writeln!(text, "{blanks}{dash}k{number}: {value}").unwrap();
        }
        text + tail
    }
}

fn file() -> impl Strategy<Value = String> {
    let top = prop_oneof![
        Just(""),
        Just("version_info: 'a'\n"),
        Just("---\nversion_info: |\n  b\n"),
        Just("# text\n\nnonce: {a: 1}\n"),
    ];
    let end =
        prop_oneof![Just(""), Just("canary: true\n"), Just("control_plane:\n  identifier: x\n")];
    (0_usize..3).prop_flat_map(move |indent| {
        let items = prop::collection::vec(item(indent), 0..6);
        (top.clone(), items, end.clone())
            .prop_map(|(top, items, end)| format!("{top}resources:\n{}{end}", items.concat()))
    })
}

proptest! {
    #[test]
    fn a_generated_file_is_cut_rightly(text in file()) {
        prop_assert_eq!(is_cut_rightly(&text), as_a_whole(&text).is_some(), "{}", text);
    }

    /// Characters that mean something to YAML, anywhere.
    #[test]
    fn a_damaged_file_is_never_cut_wrongly(
        text in file(),
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select("-:#{}[]\"'|>&*!,\n \t\r?%a".chars().collect::<Vec<_>>())),
            1..4,
        ),
    ) {
        let mut characters: Vec<char> = text.chars().collect();
        for (place, character) in damage {
            let place = place.index(characters.len() + 1);
            characters.insert(place, character);
        }
        let text: String = characters.into_iter().collect();
        let Some(cut) = by_cutting(&text) else { return Ok(()) };
        let report = Report::default();
        let whole = content::whole(&text, 0, &report);
        prop_assert!(whole.is_some() && !report.has_errors(), "{:?}", text);
        prop_assert_eq!(Some(cut), as_a_whole(&text), "{:?}", text);
    }

    #[test]
    fn json_is_cut_rightly(value in json(4), pretty in any::<bool>()) {
        let response = serde_json::json!({ "version_info": "1", "resources": [{ "a": value }, {}], "x": [] });
        let text = if pretty {
            serde_json::to_string_pretty(&response).unwrap()
        } else {
            response.to_string()
        };
        prop_assert!(is_cut_rightly(&text), "{}", text);
    }
}

fn json(depth: u32) -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "[a-z\"\\\\{}\\[\\]:,#\n\té-]{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(depth, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("[a-z\"{ ]{0,4}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

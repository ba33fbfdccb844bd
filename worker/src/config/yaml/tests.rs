//! What the reader of YAML takes and what it says about the rest.

use super::*;

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut report = Report::default();
    let source = report.add_source("t".into(), text);
    let node = parse(text, source, &report);
    let list = report.finish();
    (node, list.iter().map(|d| format!("{}:{}: {}", d.line, d.column, d.message)).collect())
}

fn show(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Scalar { text, plain: true } => text.clone(),
        Value::Scalar { text, plain: false } => format!("{text:?}"),
        Value::Sequence(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(","))
        }
        Value::Mapping(entries) => {
            let entries = entries.iter().map(|e| format!("{}:{}", e.key, show(&e.value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
    }
}

fn check(text: &str, expected: &str) {
    let (node, errors) = read(text);
    assert!(errors.is_empty(), "{text}: {errors:?}");
    assert_eq!(show(&node.unwrap()), expected, "{text}");
}

fn check_error(text: &str, expected: &str) {
    let (_, errors) = read(text);
    let joined = errors.join("\n");
    assert!(joined.starts_with(expected), "{text}\n{joined}");
}

#[test]
fn yaml_and_json_become_the_same_tree() {
    check("a: 1\nb: [x, 'y', null, ~]\n", "{a:1,b:[x,\"y\",null,null]}");
    check("{\"a\": 1, \"b\": [true, \"\\u00e9\", \"a\\/b\"]}", "{a:1,b:[true,\"é\",\"a/b\"]}");
    check("{\n\t\"a\": {\n\t\t\"b\": []\n\t}\n}\n", "{a:{b:[]}}");
    check("", "null");
    check("# only a comment\n", "null");
    check("\u{feff}a: b\n", "{a:b}");
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    check("a: &x {k: 1}\nb: *x\n", "{a:{k:1},b:{k:1}}");
    check("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\n", "{a:{k:1,l:2},b:{k:3,l:2}}");
    check("- &x {k: 1}\n- &y {l: 2}\n- <<: [*x, *y]\n", "[{k:1},{l:2},{k:1,l:2}]");
}

#[test]
fn ignore_drops_the_entry() {
    check("!ignore a: &x {k: 1}\nb: *x\n", "{b:{k:1}}");
    check("a: !ignore {k: 1}\nb: 2\n", "{b:2}");
    check("a: !!str 12\n", "{a:\"12\"}");
}

#[test]
fn mistakes_have_positions() {
    check_error("a: 1\nb: 2\na: 3\n", "3:1: `a` stands twice in this mapping, first on line 1");
    check_error("a: 1\n---\nb: 2\n", "2:1: a second document starts here");
    check_error("a: *nope\n", "1:4: not valid YAML");
    check_error("a:\n\tb: 1\n", "2:1: a tab is used for indentation");
    check_error("a: !secret x\n", "1:4: unknown tag `!secret`");
    check_error("a: [1, 2\n", "1:");
    check_error("? [a]\n: b\n", "1:3: a key must be text");
}

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..9 {
        let list = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.extend([format!("a{i}: &a{i} [{list}]\n")]);
    }
    let (_, errors) = read(&bomb);
    assert!(errors.join("").contains("aliases add more than"), "{errors:?}");
    let (_, errors) = read(&"[".repeat(5000));
    assert!(errors.join("").contains("levels deep"), "{errors:?}");
}

#[test]
fn json_escapes_of_two_halves_are_one_character() {
    check(r#"{"a": "\ud83d\ude00 \"q\" \\ \t"}"#, "{a:\"😀 \\\"q\\\" \\\\ \\t\"}");
    check(r#"{"a": -1.5e3, "b": "", "c": {}}"#, "{a:-1.5e3,b:\"\",c:{}}");
}

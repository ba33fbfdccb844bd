//! The admin interface.

use crate::harness::lab::free_address;
use crate::harness::{Lab, client};
use serde_json::Value;
use std::collections::BTreeMap;

#[test]
fn every_page_answers() {
    let lab = Lab::new();
    let program = lab.start();
    program.reload();
    let pages = [
        "/",
        "/help",
        "/ready",
        "/server_info",
        "/stats",
        "/stats?format=json",
        "/stats?format=prometheus",
        "/stats?filter=downstream",
        "/stats?usedonly",
        "/stats/prometheus",
        "/clusters",
        "/clusters?format=json",
        "/listeners",
        "/listeners?format=json",
        "/config_dump",
        "/config_dump?include_eds",
        "/init_dump",
        "/certs",
        "/generations",
        "/hot_restart_version",
    ];
    for page in pages {
        let response = client::get(lab.config.admin, page);
        assert_eq!(response.status, 200, "{page}: {}", response.body);
        assert!(!response.body.is_empty(), "{page} is empty");
    }
    assert_eq!(client::get(lab.config.admin, "/ready").body.trim(), "LIVE");
    assert_eq!(client::get(lab.config.admin, "/nowhere").status, 404);
}

#[test]
fn json_pages_are_json() {
    let lab = Lab::new();
    let _program = lab.start();
    for page in [
        "/server_info",
        "/stats?format=json",
        "/clusters?format=json",
        "/listeners?format=json",
        "/config_dump",
        "/certs",
    ] {
        let body = client::get(lab.config.admin, page).body;
        let parsed: Result<Value, _> = serde_json::from_str(&body);
        assert!(parsed.is_ok(), "{page}: {body}");
    }
}

#[test]
fn changes_need_a_post_and_a_permission() {
    let lab = Lab::new();
    let program = lab.start();
    assert_eq!(client::get(lab.config.admin, "/quitquitquit").status, 405);
    assert_eq!(client::post(lab.config.admin, "/quitquitquit").status, 403);
    assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
    drop(program);

    let lab = Lab { config: baton_torture::EnvoyConfig { admin: free_address(), ..lab.config } };
    let mut program = lab.start_with(&["--admin-allow-mutations"]);
    assert_eq!(client::post(lab.config.admin, "/healthcheck/fail").status, 200);
    assert_eq!(client::post(lab.config.admin, "/healthcheck/ok").status, 200);
    assert_eq!(client::post(lab.config.admin, "/quitquitquit").status, 200);
    assert_eq!(program.wait().code(), Some(0));
}

/// One line of the Prometheus text format: a name, labels in braces, a number.
fn parse_sample(line: &str) -> Result<(String, f64), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = line.find(|c| !is_name(c)).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("name `{name}`"));
    }
    let rest = match rest.strip_prefix('{') {
        Some(labels) => labels_end(labels)?,
        None => rest,
    };
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let value = value.replace("+Inf", "inf").parse().map_err(|_| format!("value `{value}`"))?;
    Ok((name.to_owned(), value))
}

/// Checks `name="value",…}` and returns what follows.
fn labels_end(mut text: &str) -> Result<&str, String> {
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, rest) = text.split_once("=\"").ok_or("a label without a value")?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("label `{name}`"));
        }
        let mut escaped = false;
        let end = rest
            .char_indices()
            .find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            })
            .ok_or("a label value without an end")?;
        text = rest.get(end.0 + 1..).unwrap_or_default();
        text = text.strip_prefix(',').unwrap_or(text);
    }
}

#[test]
fn prometheus_text_is_well_formed() {
    let lab = Lab::new();
    let program = lab.start();
    client::get(lab.config.http, "/echo/2/10");
    program.reload();
    let response = client::get(lab.config.admin, "/stats/prometheus");
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut samples = 0;
    for line in response.body.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type line has two words");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) = parse_sample(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|base| types.contains_key(*base)))
            .unwrap_or(&name);
        assert!(types.contains_key(family), "no type before {line}");
        assert!(value >= 0.0, "{line}");
        samples += 1;
    }
    assert!(samples > 50, "only {samples} samples");
}

//! Envoy's spelling of routes, as the test data has it, to the model.

use regex::bytes::Regex;
use serde_json::Value;

use crate::config::{
    matcher::{HeaderCondition, HeaderMatcher, QueryMatcher, StringMatcher, StringPattern},
    model::ClusterIndex,
    route::{
        Action, AppendAction, ClusterTarget, HeaderAdd, HeaderChanges, HostRewrite, PathMatcher,
        PathRewrite, Redirect, RedirectPath, Route, RouteAction, RouteMatch,
    },
};

pub(super) struct Case;

impl Case {
    /// A route that forwards everything.
    pub(super) fn route(name: String) -> Route {
        Route {
            name,
            matches: RouteMatch {
                path: PathMatcher::Prefix("/".to_owned()),
                case_sensitive: true,
                headers: Vec::new(),
                query_parameters: Vec::new(),
                grpc_only: false,
                fraction_ppm: None,
            },
            action: host_action(&Value::Null),
            headers: HeaderChanges::default(),
            filters: None,
        }
    }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(super) fn text(value: &Value, name: &str) -> Option<String> {
    value[name].as_str().map(str::to_owned)
}

/// `[["name", "value"], ...]`; a value may be a number.
pub(super) fn pairs(value: &Value) -> impl Iterator<Item = (String, String)> {
    list(value).map(|pair| {
        let text =
            |at: usize| pair[at].as_str().map_or_else(|| pair[at].to_string(), str::to_owned);
        (text(0), text(1))
    })
}

fn regex(value: &Value) -> Option<Regex> {
    value["regex"].as_str().map(|text| Regex::new(text).unwrap())
}

fn anchored(value: &Value) -> Option<Regex> {
    value["regex"].as_str().map(|text| Regex::new(&format!("^(?:{text})$")).unwrap())
}

/// `\1` is `${1}` in the `regex` crate.
fn substitution(value: &Value) -> Option<(Regex, String)> {
    let digit = regex::Regex::new(r"\\(\d)").unwrap();
    let text = digit.replace_all(value["substitution"].as_str()?, "$${$1}").into_owned();
    Some((regex(&value["pattern"])?, text))
}

fn string(value: &Value) -> Option<StringMatcher> {
    let value = value.get("string_match")?;
    let ignore_case = value["ignore_case"].as_bool().unwrap_or(false);
    let text =
        |name| text(value, name).map(|text| if ignore_case { text.to_lowercase() } else { text });
    let pattern = None
        .or_else(|| text("exact").map(StringPattern::Exact))
        .or_else(|| text("prefix").map(StringPattern::Prefix))
        .or_else(|| text("suffix").map(StringPattern::Suffix))
        .or_else(|| text("contains").map(StringPattern::Contains))
        .or_else(|| anchored(&value["safe_regex"]).map(StringPattern::Regex))?;
    Some(StringMatcher { pattern, ignore_case })
}

fn header(value: &Value) -> HeaderMatcher {
    let range = value.get("range_match").map(|range| {
        HeaderCondition::Range(range["start"].as_i64().unwrap(), range["end"].as_i64().unwrap())
    });
    HeaderMatcher {
        name: value["name"].as_str().unwrap().to_lowercase(),
        condition: range
            .or_else(|| string(value).map(HeaderCondition::Text))
            .unwrap_or(HeaderCondition::Present(value["present_match"].as_bool().unwrap_or(true))),
        invert: value["invert_match"].as_bool().unwrap_or(false),
        missing_as_empty: value["treat_missing_header_as_empty"].as_bool().unwrap_or(false),
    }
}

pub(super) fn matching(case: &Value) -> RouteMatch {
    let value = &case["match"];
    let path = None
        .or_else(|| text(value, "prefix").map(PathMatcher::Prefix))
        .or_else(|| text(value, "path").map(PathMatcher::Exact))
        .or_else(|| text(value, "path_separated_prefix").map(PathMatcher::SeparatedPrefix))
        .or_else(|| anchored(&value["safe_regex"]).map(PathMatcher::Regex))
        .unwrap();
    let query =
        |value: &Value| QueryMatcher { name: text(value, "name").unwrap(), value: string(value) };
    RouteMatch {
        path,
        case_sensitive: value["case_sensitive"].as_bool().unwrap_or(true),
        headers: list(&value["headers"]).map(header).collect(),
        query_parameters: list(&value["query_parameters"]).map(query).collect(),
        grpc_only: value.get("grpc").is_some(),
        fraction_ppm: None,
    }
}

pub(super) fn redirect(value: &Value) -> Redirect {
    let regex = substitution(&value["regex_rewrite"]);
    let path = None
        .or_else(|| text(value, "path_redirect").map(RedirectPath::Replace))
        .or_else(|| text(value, "prefix_rewrite").map(RedirectPath::Prefix))
        .or_else(|| regex.map(|(pattern, text)| RedirectPath::Regex(pattern, text)))
        .unwrap_or(RedirectPath::Keep);
    let https = value["https_redirect"].as_bool().unwrap_or(false).then(|| "https".to_owned());
    Redirect {
        status: 301,
        scheme: text(value, "scheme_redirect").or(https),
        host: text(value, "host_redirect"),
        port: value["port_redirect"].as_u64().map(|port| u16::try_from(port).unwrap()),
        path,
        strip_query: value["strip_query"].as_bool().unwrap_or(false),
    }
}

pub(super) fn host_action(value: &Value) -> Action {
    let pattern = substitution(&value["regex_rewrite"]);
    let host_pattern = substitution(&value["host_rewrite_path_regex"]);
    Action::Forward(Box::new(RouteAction {
        rewrite: text(value, "prefix_rewrite")
            .map(PathRewrite::Prefix)
            .or_else(|| pattern.map(|(pattern, text)| PathRewrite::Regex(pattern, text))),
        host_rewrite: text(value, "host_rewrite_literal")
            .map(HostRewrite::Literal)
            .or_else(|| text(value, "host_rewrite_header").map(HostRewrite::Header))
            .or_else(|| host_pattern.map(|(pattern, text)| HostRewrite::PathRegex(pattern, text))),
        append_x_forwarded_host: value["append_x_forwarded_host"].as_bool().unwrap_or(false),
        timeout: None,
        ..RouteAction::to(ClusterTarget::Cluster(ClusterIndex(0)))
    }))
}

pub(super) fn changes(value: &Value) -> HeaderChanges {
    let add = |value: &Value| HeaderAdd {
        name: value["header"]["key"].as_str().unwrap().to_lowercase(),
        value: crate::format::parse(value["header"]["value"].as_str().unwrap()).unwrap(),
        action: match value["append_action"].as_str() {
            Some("OVERWRITE_IF_EXISTS_OR_ADD") => AppendAction::OverwriteIfExistsOrAdd,
            Some("OVERWRITE_IF_EXISTS") => AppendAction::OverwriteIfExists,
            Some("ADD_IF_ABSENT") => AppendAction::AddIfAbsent,
            _ => AppendAction::AppendIfExistsOrAdd,
        },
        keep_empty: value["keep_empty_value"].as_bool().unwrap_or(false),
    };
    let adds = |name: &str| list(&value[name]).map(add).collect();
    let removes =
        |name: &str| list(&value[name]).map(|name| name.as_str().unwrap().to_lowercase()).collect();
    HeaderChanges {
        request_add: adds("request_headers_to_add"),
        request_remove: removes("request_headers_to_remove"),
        response_add: adds("response_headers_to_add"),
        response_remove: removes("response_headers_to_remove"),
    }
}

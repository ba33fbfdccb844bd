//! What a forwarding route does to the head of a request before it goes upstream.

use regex::bytes::Regex;

use super::{Matched, headers};
use crate::{
    config::route::{
        Action, HostRewrite, PathMatcher, PathRewrite, RouteAction, RouteMatch, WeightedCluster,
    },
    http::{head::RequestHead, stream_info::LogContext},
};

/// Whether `x-envoy-*` headers are added (`suppress_envoy_headers` of the router filter).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EnvoyHeaders {
    /// Yes.
    Add,
    /// No.
    Suppress,
}

/// Applies header changes, host rewrite and path rewrite, in Envoy's order. `auto_host_rewrite`
/// has to wait for the endpoint: see [`auto_host`].
pub fn finalize_request(
    head: &mut RequestHead,
    matched: &Matched<'_>,
    weighted: Option<&WeightedCluster>,
    cx: &LogContext<'_>,
    envoy_headers: EnvoyHeaders,
) {
    let levels = matched.levels().with_weighted(weighted);
    headers::apply_request(head, &levels, cx);
    if let Action::Forward(action) = &matched.route.action {
        host(head, action, weighted, envoy_headers);
        if let Some(rewrite) = &action.rewrite {
            rewrite_path(head, &matched.route.matches, rewrite, envoy_headers);
        }
    }
}

/// `auto_host_rewrite`: the authority becomes the endpoint's name, or what the client asked for again
/// when this one has none. So it may be done again for another endpoint.
pub fn auto_host(
    head: &mut RequestHead,
    action: &RouteAction,
    endpoint_name: &[u8],
    envoy_headers: EnvoyHeaders,
) {
    if !matches!(action.host_rewrite, Some(HostRewrite::Auto)) {
        return;
    }
    if endpoint_name.is_empty() {
        if let Some(asked_for) = head.asked_for.take() {
            head.authority = asked_for;
        }
        return;
    }
    if head.asked_for.is_none() {
        note_host(head, action, envoy_headers);
    }
    let before = std::mem::replace(&mut head.authority, endpoint_name.to_vec());
    head.asked_for.get_or_insert(before);
}

fn host(
    head: &mut RequestHead,
    action: &RouteAction,
    weighted: Option<&WeightedCluster>,
    envoy_headers: EnvoyHeaders,
) {
    if let Some(name) = weighted.and_then(|entry| entry.host_rewrite.as_deref()) {
        set_host(head, action, name.as_bytes(), envoy_headers);
        return;
    }
    let name = match &action.host_rewrite {
        None | Some(HostRewrite::Auto) => return,
        Some(HostRewrite::Literal(name)) => name.as_bytes().to_vec(),
        Some(HostRewrite::Header(name)) => match head.get(name.as_bytes()) {
            Some(value) if !value.is_empty() => value.to_vec(),
            Some(_) | None => return,
        },
        Some(HostRewrite::PathRegex(pattern, substitution)) => {
            let mut name = Vec::new();
            regex(head.path_only(), pattern, substitution, &mut name);
            name
        }
    };
    set_host(head, action, &name, envoy_headers);
}

fn set_host(
    head: &mut RequestHead,
    action: &RouteAction,
    name: &[u8],
    envoy_headers: EnvoyHeaders,
) {
    note_host(head, action, envoy_headers);
    head.authority.clear();
    head.authority.extend_from_slice(name);
}

/// Notes in headers what the authority was before it changes.
fn note_host(head: &mut RequestHead, action: &RouteAction, envoy_headers: EnvoyHeaders) {
    if action.append_x_forwarded_host {
        append_forwarded_host(head);
    }
    if envoy_headers == EnvoyHeaders::Add && !head.authority.is_empty() {
        head.headers.set(b"x-envoy-original-host", &head.authority);
    }
}

/// Adds the authority to the list in `x-forwarded-host`, unless it is the last one already.
fn append_forwarded_host(head: &mut RequestHead) {
    const FORWARDED: &[u8] = b"x-forwarded-host";
    let mut list = Vec::new();
    for line in head.headers.get_all(FORWARDED) {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(line);
    }
    let last = list.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if head.authority.is_empty() || last == head.authority {
        return;
    }
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(&head.authority);
    head.headers.set(FORWARDED, &list);
}

fn rewrite_path(
    head: &mut RequestHead,
    matches: &RouteMatch,
    rewrite: &PathRewrite,
    envoy_headers: EnvoyHeaders,
) {
    let mut path = Vec::with_capacity(head.path.len() + 32);
    match rewrite {
        PathRewrite::Prefix(new) => prefix(matches, &head.path, new, &mut path),
        PathRewrite::Regex(pattern, substitution) => {
            regex(&head.path, pattern, substitution, &mut path);
        }
    }
    if path.first() != Some(&b'/') {
        // A request line needs one.
        path.insert(0, b'/');
    }
    if envoy_headers == EnvoyHeaders::Add {
        head.headers.set(b"x-envoy-original-path", &head.path);
    }
    head.path = path;
}

/// Writes `path` with the part that the route matched replaced by `new`.
pub(super) fn prefix(matches: &RouteMatch, path: &[u8], new: &str, out: &mut Vec<u8>) {
    let matched = match &matches.path {
        PathMatcher::Prefix(text)
        | PathMatcher::Exact(text)
        | PathMatcher::SeparatedPrefix(text) => text.len(),
        PathMatcher::Regex(_) | PathMatcher::Connect => query_start(path),
    };
    out.extend_from_slice(new.as_bytes());
    out.extend_from_slice(path.get(matched..).unwrap_or_default());
}

/// Writes `path` with every match of `pattern` in it replaced, and its query as it was.
pub(super) fn regex(path: &[u8], pattern: &Regex, substitution: &str, out: &mut Vec<u8>) {
    let (before, query) = path.split_at(query_start(path));
    out.extend_from_slice(&pattern.replace_all(before, substitution.as_bytes()));
    out.extend_from_slice(query);
}

/// Where the query begins, its `?` included; the length when there is none.
pub(super) fn query_start(path: &[u8]) -> usize {
    memchr::memchr(b'?', path).unwrap_or(path.len())
}

//! Whether one route matches one request.

use crate::{
    config::{
        matcher::QueryMatcher,
        route::{PathMatcher, RouteMatch},
    },
    http::{head::RequestHead, header_match},
};

/// Parts of a whole in `runtime_fraction`.
const MILLION: u64 = 1_000_000;

/// Whether everything a route asks for holds. `random` decides about its share of the traffic.
pub fn matches(wanted: &RouteMatch, head: &RequestHead, random: u64) -> bool {
    path(wanted, head) && rest(wanted, head, random)
}

/// Whether the path is as the route wants it.
pub fn path(wanted: &RouteMatch, head: &RequestHead) -> bool {
    if matches!(wanted.path, PathMatcher::Connect) {
        return head.method == b"CONNECT";
    }
    // CONNECT has no path and takes no other route.
    let path = head.path_only();
    if path.is_empty() {
        return false;
    }
    let equal = |part: &[u8], text: &str| {
        if wanted.case_sensitive {
            part == text.as_bytes()
        } else {
            part.eq_ignore_ascii_case(text.as_bytes())
        }
    };
    let begins = |text: &str| path.get(..text.len()).is_some_and(|start| equal(start, text));
    match &wanted.path {
        PathMatcher::Prefix(text) => begins(text),
        PathMatcher::Exact(text) => equal(path, text),
        PathMatcher::SeparatedPrefix(text) => {
            begins(text) && path.get(text.len()).is_none_or(|next| *next == b'/')
        }
        PathMatcher::Regex(regex) => regex.is_match(path),
        PathMatcher::Connect => false,
    }
}

/// Whether everything but the path is as the route wants it.
fn rest(wanted: &RouteMatch, head: &RequestHead, random: u64) -> bool {
    wanted.fraction_ppm.is_none_or(|share| random % MILLION < u64::from(share))
        && (!wanted.grpc_only || head.is_grpc())
        && header_match::all(&wanted.headers, head)
        && wanted.query_parameters.iter().all(|parameter| query(parameter, head))
}

/// Whether the first query parameter of that name is as wanted. Nothing is percent-decoded.
fn query(wanted: &QueryMatcher, head: &RequestHead) -> bool {
    let query = memchr::memchr(b'?', &head.path).and_then(|at| head.path.get(at + 1..));
    let found = query.unwrap_or_default().split(|byte| *byte == b'&').find_map(|pair| {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(end)?;
        (name == wanted.name.as_bytes() && !pair.is_empty())
            .then(|| value.get(1..).unwrap_or_default())
    });
    found.is_some_and(|value| {
        wanted.value.as_ref().is_none_or(|wanted| header_match::string(wanted, value))
    })
}

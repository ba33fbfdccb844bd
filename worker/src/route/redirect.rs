//! The `location` of redirects.

use super::rewrite;
use crate::{
    config::route::{Redirect, RedirectPath, RouteMatch},
    http::head::RequestHead,
};

/// Where a redirect route sends the client.
pub fn location(redirect: &Redirect, matches: &RouteMatch, head: &RequestHead) -> Vec<u8> {
    let current = head.get(b":scheme").unwrap_or(b"http");
    let scheme = redirect.scheme.as_deref().map_or(current, str::as_bytes);
    let mut out = Vec::with_capacity(head.path.len() + head.authority.len() + 32);
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"://");
    match &redirect.host {
        Some(host) => out.extend_from_slice(host.as_bytes()),
        None => out.extend_from_slice(host_without_stale_port(redirect, head, scheme, current)),
    }
    if let Some(port) = redirect.port {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    let start = out.len();
    path(redirect, matches, &head.path, &mut out);
    if out.get(start) != Some(&b'/') {
        out.insert(start, b'/');
    }
    out
}

/// Where a virtual host with `require_tls` sends a plain request.
pub fn to_https(head: &RequestHead) -> Vec<u8> {
    [b"https://", &*head.authority, &*head.path].concat()
}

/// The request's host, without a port that the redirect replaces or that was the default of the
/// scheme it leaves.
fn host_without_stale_port<'a>(
    redirect: &Redirect,
    head: &'a RequestHead,
    scheme: &[u8],
    current: &[u8],
) -> &'a [u8] {
    let host = &*head.authority;
    // Inside the brackets of an IPv6 address a colon is no port.
    let colon = memchr::memrchr(b':', host)
        .filter(|at| !host.starts_with(b"[") || host.get(at - 1) == Some(&b']'));
    let Some((name, port)) = colon.and_then(|at| host.split_at_checked(at)) else { return host };
    let default =
        (current == b"https" && port == b":443") || (current == b"http" && port == b":80");
    if redirect.port.is_some() || (scheme != current && default) { name } else { host }
}

fn path(redirect: &Redirect, matches: &RouteMatch, path: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    match &redirect.path {
        RedirectPath::Replace(new) => {
            out.extend_from_slice(new.as_bytes());
            if new.contains('?') {
                // A query the configuration gives is the one that counts.
                return;
            }
            out.extend_from_slice(path.get(rewrite::query_start(path)..).unwrap_or_default());
        }
        RedirectPath::Keep => out.extend_from_slice(path),
        RedirectPath::Prefix(new) => rewrite::prefix(matches, path, new, out),
        RedirectPath::Regex(regex, substitution) => {
            rewrite::regex(path, regex, substitution, out);
        }
    }
    if redirect.strip_query {
        let written = out.get(start..).unwrap_or_default();
        let end = start + rewrite::query_start(written);
        out.truncate(end);
    }
}

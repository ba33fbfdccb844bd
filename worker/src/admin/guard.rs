//! Keeps web pages out: a browser on the machine must not become a remote control.
//!
//! A page of another site shows itself by `Origin` or `Sec-Fetch-Site`. A page whose name was made
//! to point here (DNS rebinding) shows itself by `Host`: it is a public name, while people and
//! scrapers use an address, `localhost`, or a name of one label from their own network. Scrapers
//! that use a longer name may read statistics.

use std::net::{IpAddr, Ipv6Addr};

use hyper::{HeaderMap, Request, header};

use super::Peer;

/// What may be read under any name.
const FOR_SCRAPERS: &[&str] = &["/ready", "/stats", "/stats/prometheus"];

/// Lets a request through, or says why not.
pub(super) fn check<B>(request: &Request<B>, peer: Peer) -> Result<(), &'static str> {
    if peer == Peer::Unix {
        return Ok(());
    }
    let host = text(request.headers(), header::HOST.as_str());
    if let Some(origin) = text(request.headers(), header::ORIGIN.as_str()) {
        let origin_host = origin.split_once("://").map(|(_, host)| host);
        if origin_host.is_none() || origin_host != host {
            return Err("requests from web pages of other sites are refused\n");
        }
    }
    if matches!(text(request.headers(), "sec-fetch-site"), Some("cross-site" | "same-site")) {
        return Err("requests from web pages of other sites are refused\n");
    }
    let known = host.is_none_or(|host| is_local_name(without_port(host)));
    if known || FOR_SCRAPERS.contains(&request.uri().path()) {
        return Ok(());
    }
    Err("the `host` header is a public name; hint: use the address or `localhost`\n")
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // A value that is not text is no name either.
    headers.get(name).map(|value| value.to_str().unwrap_or("."))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_local_name(name: &str) -> bool {
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<IpAddr>().is_ok() || !name.contains('.'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap(), Peer::Tcp).is_ok()
    }

    #[test]
    fn people_and_scrapers_get_in_and_web_pages_do_not() {
        for host in ["127.0.0.1:9901", "[::1]:9901", "[::1]", "localhost:9901", "proxy:9901", ""] {
            assert!(check_with("/config_dump", &[("host", host)]), "{host}");
        }
        assert!(check_with("/config_dump", &[]));
        for host in
            ["evil.example", "evil.example:9901", "127.0.0.1.evil.example", "[evil.example]"]
        {
            assert!(!check_with("/config_dump", &[("host", host)]), "{host}");
        }
        assert!(check_with("/stats/prometheus", &[("host", "proxy.prod.example:9901")]));
        let local = ("host", "127.0.0.1:9901");
        assert!(check_with("/", &[local, ("origin", "http://127.0.0.1:9901")]));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8000"] {
            assert!(!check_with("/stats", &[local, ("origin", origin)]), "{origin}");
        }
        assert!(!check_with("/quitquitquit", &[local, ("sec-fetch-site", "cross-site")]));
        assert!(check_with("/", &[local, ("sec-fetch-site", "none")]));
    }
}

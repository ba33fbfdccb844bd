//! Who is believed what, in each way to stand behind and before other proxies.

use std::sync::Arc;

use super::*;
use crate::config::{
    listener::NetworkFilter,
    load::{Source, load},
};

/// A connection manager with these fields more.
fn manager(fields: &str) -> Arc<HttpConnectionManager> {
    let text = format!(
        r#"{{ static_resources: {{ listeners: [{{ name: l, address: {{ socket_address: {{
            address: 127.0.0.1, port_value: 0 }} }}, filter_chains: [{{ filters: [{{ name: h,
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
            stat_prefix: h, {fields}{comma} {routes} http_filters: [{{ name: r, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}]
            }} }}] }}] }}] }} }}"#,
        comma = if fields.is_empty() { "" } else { "," },
        routes = if fields.contains("route_config") { "" } else { "route_config: {}," },
    );
    let source = Source { path: "envoy.yaml".into(), bytes: text.into_bytes() };
    let loaded = load(&source, &crate::extension::load_options())
        .unwrap_or_else(|list| panic!("{}", crate::config::diagnostics::render(&list)));
    let filter = &loaded.bootstrap.listeners[0].filter_chains[0].filters[0];
    let NetworkFilter::HttpConnectionManager(manager) = filter else { panic!("{filter:?}") };
    Arc::clone(manager)
}

/// The client's address and the lines that leave, without `x-request-id`.
fn pass(fields: &str, peer: &str, lines: &[(&str, &str)]) -> (String, Vec<String>) {
    let mut head = RequestHead::default();
    for (name, value) in lines {
        head.headers.append(name.as_bytes(), value.as_bytes());
    }
    let peer = (!peer.is_empty()).then(|| SocketAddr::new(peer.parse().unwrap(), 99));
    let manager = manager(fields);
    let own = manager.routes.fixed().map_or(&[][..], |table| &table.internal_only_headers);
    let client = mutate(&manager, &Node::default(), peer, 0, own, &mut head);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let lines = head.headers.iter().filter(|(name, _)| *name != b"x-request-id");
    let lines = lines.map(|(name, value)| format!("{}: {}", text(name), text(value))).collect();
    (client.map_or_else(|| "-".to_owned(), |client| client.ip().to_string()), lines)
}

const EDGE: &str = "use_remote_address: true";
const BEHIND_ONE: &str = "use_remote_address: true, xff_num_trusted_hops: 1";
const BEHIND_TWO: &str = "use_remote_address: true, xff_num_trusted_hops: 2";
const INNER: &str = "use_remote_address: false";
const INNER_BEHIND_ONE: &str = "xff_num_trusted_hops: 1";

/// Checks the client's address and `x-forwarded-for` as it leaves.
#[track_caller]
fn check(fields: &str, received: &[&str], client: &str, sent: &[&str]) {
    let lines: Vec<_> = received.iter().map(|line| ("x-forwarded-for", *line)).collect();
    let (address, lines) = pass(fields, "192.0.2.7", &lines);
    let left: Vec<_> = lines.iter().filter_map(|l| l.strip_prefix("x-forwarded-for: ")).collect();
    assert_eq!((&*address, &*left), (client, sent), "{fields} {received:?}");
}

#[test]
fn all_lines_of_x_forwarded_for_are_one_list() {
    let two = ["1.1.1.1", "203.0.113.77"];
    check(EDGE, &two, "192.0.2.7", &["1.1.1.1,203.0.113.77,192.0.2.7"]);
    check(BEHIND_ONE, &two, "203.0.113.77", &["1.1.1.1,203.0.113.77,192.0.2.7"]);
    check(BEHIND_TWO, &two, "1.1.1.1", &["1.1.1.1,203.0.113.77,192.0.2.7"]);
    check(INNER, &two, "203.0.113.77", &["1.1.1.1,203.0.113.77"]);
    check(INNER_BEHIND_ONE, &two, "1.1.1.1", &["1.1.1.1,203.0.113.77"]);
    check(
        BEHIND_ONE,
        &["1.1.1.1", "2.2.2.2, 3.3.3.3"],
        "3.3.3.3",
        &["1.1.1.1,2.2.2.2, 3.3.3.3,192.0.2.7"],
    );
    check(BEHIND_ONE, &["", "1.1.1.1"], "1.1.1.1", &["1.1.1.1,192.0.2.7"]);
    check(BEHIND_ONE, &["1.1.1.1", ""], "1.1.1.1", &["1.1.1.1,192.0.2.7"]);
    check(EDGE, &[""], "192.0.2.7", &["192.0.2.7"]);
    check(EDGE, &[], "192.0.2.7", &["192.0.2.7"]);
    check(
        "use_remote_address: true, skip_xff_append: true",
        &two,
        "192.0.2.7",
        &["1.1.1.1,203.0.113.77"],
    );
}

#[test]
fn what_is_no_address_is_not_believed() {
    for garbage in ["x", "1.1.1.1:80", "[2001:db8::1]:80", "1.1.1.1;x", "10.1", "1.1.1.1,", "\""] {
        let sent = format!("{garbage},192.0.2.7");
        check(BEHIND_ONE, &[garbage], "192.0.2.7", &[&sent]);
        check(INNER, &[garbage], "192.0.2.7", &[garbage]);
    }
    // Only the element that counts has to be one.
    check(BEHIND_ONE, &["\u{e9}, 1.1.1.1"], "1.1.1.1", &["\u{e9}, 1.1.1.1,192.0.2.7"]);
    check(INNER, &["x \t, \t2001:DB8::1\t"], "2001:db8::1", &["x \t, \t2001:DB8::1\t"]);
    // Fewer elements than hops.
    check(BEHIND_TWO, &["1.1.1.1"], "192.0.2.7", &["1.1.1.1,192.0.2.7"]);
    check(INNER_BEHIND_ONE, &["1.1.1.1"], "192.0.2.7", &["1.1.1.1"]);
}

/// A request with every header of Envoy's that means something, all `77`; the names that remain.
fn control(fields: &str, peer: &str, lines: &[(&str, &str)]) -> Vec<String> {
    let names: Vec<_> = FROM_INTERNAL_ONLY
        .iter()
        .chain(FROM_PROXIES_ONLY)
        .map(|name| std::str::from_utf8(name).unwrap())
        .chain(["internal", "attempt-count"])
        .map(|name| format!("x-envoy-{name}"))
        .chain(["x-forwarded-client-cert".to_owned(), "x-mine".to_owned()])
        .collect();
    let mut sent = lines.to_vec();
    sent.extend(names.iter().map(|name| (&**name, "77")));
    let (_, mut left) = pass(fields, peer, &sent);
    left.retain(|line| !line.starts_with("x-forwarded-"));
    left.sort();
    left
}

const WITH_INTERNAL: &str = "route_config: { internal_only_headers: [X-Mine] }, \
    internal_address_config: { unix_sockets: true, cidr_ranges: [\
    { address_prefix: 10.0.0.0, prefix_len: 8 }, { address_prefix: \"fd00::\", prefix_len: 8 }] }";

#[test]
fn nobody_is_internal_unless_the_configuration_says_so() {
    for peer in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1", "8.8.8.8"] {
        let external = format!("x-envoy-external-address: {peer}");
        let left = control(EDGE, peer, &[]);
        assert_eq!(left, ["x-envoy-attempt-count: 77", &external, "x-mine: 77"], "{peer}");
    }
    for line in ["10.0.0.1", "127.0.0.1", "8.8.8.8", "fd00::1"] {
        let left = control(INNER, "127.0.0.1", &[("x-forwarded-for", line)]);
        let kept = FROM_PROXIES_ONLY.iter().map(|name| std::str::from_utf8(name).unwrap());
        let mut kept: Vec<_> = kept.map(|name| format!("x-envoy-{name}: 77")).collect();
        kept.extend(["x-envoy-attempt-count: 77".to_owned(), "x-mine: 77".to_owned()]);
        kept.sort();
        assert_eq!(left, kept, "{line}");
    }
}

#[test]
fn internal_clients_are_those_of_the_configuration() {
    let edge = format!("{EDGE}, {WITH_INTERNAL}");
    let count = FROM_INTERNAL_ONLY.len() + FROM_PROXIES_ONLY.len() + 3;
    let is_internal = |fields: &str, peer, lines: &[(&str, &str)]| {
        let left = control(fields, peer, lines);
        let internal = left.contains(&"x-envoy-internal: true".to_owned());
        assert_eq!(left.len() == count, internal, "{left:?}");
        assert_eq!(left.contains(&"x-mine: 77".to_owned()), internal, "{left:?}");
        internal
    };
    for (peer, internal) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("11.0.0.1", false),
        ("127.0.0.1", false),
        ("", true),
    ] {
        assert_eq!(is_internal(&edge, peer, &[]), internal, "{peer}");
    }
    // Whoever comes by way of another proxy is not internal at the edge.
    assert!(!is_internal(&edge, "10.1.2.3", &[("x-forwarded-for", "10.1.2.3")]));
    assert!(!is_internal(&edge, "10.1.2.3", &[("x-forwarded-for", "")]));
    let inner = format!("{INNER}, {WITH_INTERNAL}");
    for (line, internal) in
        [("10.1.2.3", true), ("fd00::1", true), ("8.8.8.8", false), ("10.0.0.1, 10.0.0.2", false)]
    {
        assert_eq!(
            is_internal(&inner, "8.8.8.8", &[("x-forwarded-for", line)]),
            internal,
            "{line}"
        );
    }
    let lines = [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")];
    assert!(!is_internal(&inner, "10.0.0.1", &lines));
    assert!(!is_internal(&inner, "10.0.0.1", &[]));
    let quiet = "route_config: { internal_only_headers: [x-mine] }, \
        internal_address_config: { cidr_ranges: [] }, use_remote_address: true";
    assert!(!is_internal(quiet, "", &[]));
}

#[test]
fn the_address_of_an_edge_client_is_told_and_not_taken_from_it() {
    let told = |fields: &str, lines: &[(&str, &str)]| {
        let mut sent = vec![("x-envoy-external-address", "9.9.9.9")];
        sent.extend(lines);
        let (_, left) = pass(fields, "192.0.2.7", &sent);
        let found = left.iter().filter_map(|l| l.strip_prefix("x-envoy-external-address: "));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(EDGE, &[]), ["192.0.2.7"]);
    assert_eq!(told(EDGE, &[("x-forwarded-for", "1.1.1.1")]), ["192.0.2.7"]);
    assert_eq!(told(BEHIND_ONE, &[("x-forwarded-for", "1.1.1.1")]), ["1.1.1.1"]);
    assert_eq!(told(BEHIND_ONE, &[("x-forwarded-for", "x")]), ["192.0.2.7"]);
    assert_eq!(told("use_remote_address: true, skip_xff_append: true", &[]), ["192.0.2.7"]);
    // A proxy behind others passes on what they said.
    assert_eq!(told(INNER, &[]), ["9.9.9.9"]);
}

#[test]
fn the_scheme_is_what_a_believed_proxy_says() {
    let proto = |fields: &str, lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-proto", *line)).collect();
        let (_, left) = pass(fields, "192.0.2.7", &lines);
        let found = left.iter().filter_map(|l| l.strip_prefix("x-forwarded-proto: "));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(proto(EDGE, &["https"]), ["http"]);
    assert_eq!(proto(EDGE, &["https", "https"]), ["http"]);
    assert_eq!(proto(BEHIND_ONE, &["https"]), ["https"]);
    assert_eq!(proto(BEHIND_ONE, &["https", "http"]), ["https,http"]);
    assert_eq!(proto(INNER, &["https"]), ["https"]);
    assert_eq!(proto(INNER, &[""]), ["http"]);
    assert_eq!(proto(INNER, &[]), ["http"]);
}

#[test]
fn via_is_added_to_all_that_came() {
    let lines = [("via", "1.1 a"), ("x", "1"), ("via", "1.1 b, 1.1 c")];
    let (_, left) = pass("via: edge", "192.0.2.7", &lines);
    assert_eq!(left[..2], ["via: 1.1 a,1.1 b, 1.1 c, edge", "x: 1"]);
}

#[test]
fn retries_and_timeouts_are_not_passed_on() {
    let mut headers = Headers::default();
    for name in CONSUMED {
        headers.append(&[ENVOY, name].concat(), b"1");
    }
    headers.append(b"x-envoy-expected-rq-timeout-ms", b"1");
    headers.append(b"x-envoy-decorator-operation", b"1");
    remove_consumed(&mut headers);
    assert_eq!(headers.len(), 2);
    assert!(CONSUMED.iter().all(|name| FROM_INTERNAL_ONLY.contains(name)));
}

#[test]
fn a_uuid_carries_version_and_variant() {
    assert_eq!(&uuid4(0), b"00000000-0000-4000-8000-000000000000");
    assert_eq!(&uuid4(u128::MAX), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
}

//! Compares routing with Envoy 1.40 on the cases of `tests/envoy.json`, whose `expected` values
//! are its answers, and the index with walking the list.

mod lower;
mod property;

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use serde_json::Value;

use self::lower::{Case, changes, host_action, list, matching, pairs, redirect, text};
use super::*;
use crate::{
    clock,
    config::{
        model::{ClusterIndex, Node},
        route::{Action, ClusterTarget, Route, RouteConfiguration, VirtualHost, WeightedCluster},
    },
    http::{
        head::{RequestHead, ResponseHead, Version},
        stream_info::{ConnectionInfo, LogContext, ResponseFlags, StreamInfo, UpstreamInfo},
    },
};

fn cases() -> Value {
    serde_json::from_str(include_str!("tests/envoy.json")).unwrap()
}

fn request(case: &Value) -> RequestHead {
    let mut head = RequestHead {
        method: case["method"].as_str().unwrap_or("GET").into(),
        path: text(case, "path").unwrap_or_else(|| "/p?q=1".to_owned()).into(),
        authority: text(case, "host").unwrap_or_else(|| "x".to_owned()).into(),
        ..RequestHead::default()
    };
    for (name, value) in pairs(&case["headers"]).chain(pairs(&case["request"])) {
        head.headers.append(name.as_bytes(), value.trim().as_bytes());
    }
    head
}

fn info() -> StreamInfo {
    let address: SocketAddr = "127.0.0.1:1000".parse().unwrap();
    StreamInfo {
        connection: Rc::new(ConnectionInfo {
            id: 1,
            peer: Some(address),
            local: Some(address),
            path: None,
            listener: "l".into(),
            filter_chain: "".into(),
        }),
        remote: Some(address),
        protocol: Some(Version::Http11),
        started_at: clock::wall(),
        started: clock::now(),
        request_received: None,
        upstream_first_sent: None,
        upstream_first_received: None,
        upstream_last_received: None,
        ended: None,
        status: 0,
        details: "".into(),
        flags: ResponseFlags::default(),
        bytes_received: 0,
        bytes_sent: 0,
        upstream: None,
        route_name: "".into(),
        virtual_host: "".into(),
        health_check: false,
    }
}

fn with_context<T>(info: &StreamInfo, run: impl FnOnce(&LogContext<'_>) -> T) -> T {
    let node = Node::default();
    run(&LogContext {
        info,
        request: None,
        response: None,
        trailers: None,
        now: clock::now(),
        node: &node,
    })
}

fn table(configuration: RouteConfiguration) -> RouteTable {
    RouteTable::new(&Arc::new(configuration))
}

fn single(route: Route) -> RouteTable {
    table(RouteConfiguration {
        virtual_hosts: vec![VirtualHost {
            domains: vec!["*".to_owned()],
            routes: vec![Arc::new(route)],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    })
}

#[test]
fn redirects_go_where_envoy_sends_them() {
    for case in list(&cases()["redirects"]) {
        let location =
            redirect::location(&redirect(&case["redirect"]), &matching(case), &request(case));
        let location = String::from_utf8(location).unwrap();
        assert_eq!(Some(&*location), case["expected"].as_str(), "{case}");
    }
}

#[test]
fn routes_match_what_they_match_in_envoy() {
    for case in list(&cases()["matches"]) {
        let matched = matcher::matches(&matching(case), &request(case), 0);
        assert_eq!(Some(matched), case["expected"].as_bool(), "{case}");
    }
}

#[test]
fn virtual_hosts_are_chosen_as_in_envoy() {
    let cases = cases();
    let hosts = list(&cases["virtual_hosts"]["domains"]).enumerate().map(|(at, domains)| {
        let names = list(domains).map(|name| name.as_str().unwrap().to_lowercase());
        let route = Case::route(at.to_string());
        VirtualHost {
            name: format!("v{at}"),
            domains: names.collect(),
            routes: vec![Arc::new(route)],
            ..VirtualHost::default()
        }
    });
    let table = table(RouteConfiguration { virtual_hosts: hosts.collect(), ..Default::default() });
    for expected in list(&cases["virtual_hosts"]["expected"]) {
        let head = RequestHead {
            method: b"GET".into(),
            path: b"/".into(),
            authority: expected[0].as_str().unwrap().into(),
            ..RequestHead::default()
        };
        let Found::Route(found) = table.find(&head, 0) else { panic!("{expected}") };
        assert_eq!(Some(&**found.virtual_host_name), expected[1].as_str(), "{expected}");
    }
}

#[test]
fn requests_are_rewritten_as_in_envoy() {
    for case in list(&cases()["rewrites"]) {
        let mut route = Case::route(String::new());
        route.matches = matching(case);
        route.action = host_action(&case["route"]);
        let table = single(route);
        let mut head = request(case);
        let Found::Route(found) = table.find(&head, 0) else { panic!("{case}") };
        with_context(&info(), |cx| {
            finalize_request(&mut head, &found, None, cx, EnvoyHeaders::Add);
        });
        let expected = &case["expected"];
        for (name, value) in [
            ("path", Some(&*head.path)),
            ("host", Some(&*head.authority)),
            ("x-envoy-original-path", head.headers.get(b"x-envoy-original-path")),
            ("x-envoy-original-host", head.headers.get(b"x-envoy-original-host")),
            ("x-forwarded-host", head.headers.get(b"x-forwarded-host")),
        ] {
            let value = value.map(String::from_utf8_lossy);
            assert_eq!(value.as_deref(), expected[name].as_str(), "{name}: {case}");
        }
    }
}

#[test]
fn headers_change_in_the_order_of_envoy() {
    for case in list(&cases()["headers"]) {
        let levels = &case["levels"];
        let weighted = levels.get("weighted").map(|weighted| WeightedCluster {
            target: crate::config::target::WeightedTarget { cluster: ClusterIndex(0), weight: 1 },
            headers: changes(weighted),
            host_rewrite: None,
            filters: None,
        });
        let (route, virtual_host, configuration) = (
            changes(&levels["route"]),
            changes(&levels["virtual_host"]),
            changes(&levels["configuration"]),
        );
        let levels = Levels {
            weighted: None,
            route: &route,
            virtual_host: &virtual_host,
            configuration: &configuration,
            most_specific_wins: case["most_specific_wins"].as_bool().unwrap_or(false),
        }
        .with_weighted(weighted.as_ref());
        let mut head = request(case);
        let mut response = ResponseHead { status: 200, ..ResponseHead::default() };
        response.headers.append(b"x-up", b"one");
        response.headers.append(b"x-up2", b"two");
        let mut info = info();
        info.upstream = Some(UpstreamInfo {
            address: info.remote,
            connected: true,
            local: info.remote,
            ..UpstreamInfo::new(&"up".into())
        });
        with_context(&info, |cx| headers::apply_request(&mut head, &levels, cx));
        info.status = 200;
        info.details = "via_upstream".into();
        with_context(&info, |cx| {
            let cx = LogContext { request: Some(&head), ..*cx };
            headers::apply_response(&mut response, &levels, &cx);
        });
        for (name, headers) in [("request", &head.headers), ("response", &response.headers)] {
            let have: Vec<_> = headers
                .iter()
                .map(|(name, value)| {
                    [name, value].map(|text| String::from_utf8_lossy(text).into_owned())
                })
                .collect();
            let want: Vec<_> =
                pairs(&case["expected"][name]).map(|(n, v)| [n, v.trim().to_owned()]).collect();
            assert_eq!(have, want, "{name}: {case}");
        }
    }
}

#[test]
fn weights_share_the_requests() {
    let entry = |cluster, weight| WeightedCluster {
        target: crate::config::target::WeightedTarget { cluster: ClusterIndex(cluster), weight },
        headers: crate::config::route::HeaderChanges::default(),
        host_rewrite: None,
        filters: None,
    };
    let Action::Forward(mut action) = host_action(&Value::Null) else { panic!() };
    action.target = ClusterTarget::Weighted(vec![entry(0, 1), entry(1, 0), entry(2, 3)]);
    let head = RequestHead::default();
    let chosen: Vec<_> =
        (0..8).map(|random| choose(&action, &head, random).unwrap().target).collect();
    let target = |cluster| Target::Index(ClusterIndex(cluster));
    assert_eq!(chosen[..4], [target(0), target(2), target(2), target(2)]);
    assert_eq!(chosen[..4], chosen[4..]);
}

#[test]
fn framing_headers_and_the_host_are_out_of_reach() {
    let add = |name: &str| serde_json::json!({"header": {"key": name, "value": "9"}});
    let route = changes(&serde_json::json!({
        "request_headers_to_add": [add("host"), add("content-length"), add("transfer-encoding")],
        "request_headers_to_remove": ["content-length"],
    }));
    let none = crate::config::route::HeaderChanges::default();
    let levels = Levels {
        weighted: None,
        route: &route,
        virtual_host: &none,
        configuration: &none,
        most_specific_wins: false,
    };
    let mut head = RequestHead::default();
    head.headers.append(b"content-length", b"5");
    with_context(&info(), |cx| headers::apply_request(&mut head, &levels, cx));
    let left: Vec<_> = head.headers.iter().collect();
    assert_eq!(left, [(&b"content-length"[..], &b"5"[..])]);
}

#[test]
fn a_virtual_host_that_requires_tls_redirects_plain_requests() {
    let mut configuration = RouteConfiguration::default();
    configuration.virtual_hosts.push(VirtualHost {
        domains: vec!["*".to_owned()],
        routes: vec![Arc::new(Case::route(String::new()))],
        require_tls: crate::config::route::RequireTls::ExternalOnly,
        ..VirtualHost::default()
    });
    let table = table(configuration);
    let mut head = RequestHead { path: b"/".into(), authority: b"h".into(), ..Default::default() };
    assert!(matches!(table.find(&head, 0), Found::RequireTls));
    assert_eq!(redirect::to_https(&head), b"https://h/");
    head.headers.append(b"x-envoy-internal", b"true");
    assert!(matches!(table.find(&head, 0), Found::Route(_)));
}

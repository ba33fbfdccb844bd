//! What it costs to find a route and to format a line: `cargo bench -p baton-worker`.
//!
//! Not a test: nothing is asserted about time.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::expect_used, reason = "the inputs are written below")]

mod measure;

use std::{hint::black_box, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use baton_worker::{
    clock,
    config::{
        model::Node,
        route::{
            Action, HeaderChanges, PathMatcher, Route, RouteConfiguration, RouteMatch, VirtualHost,
        },
    },
    format,
    http::{
        head::{RequestHead, ResponseHead, Version},
        stream_info::{ConnectionInfo, LogContext, ResponseFlags, StreamInfo, UpstreamInfo},
    },
    route::RouteTable,
};
use measure::measure;

/// Makes the path matcher of a route from its number.
type MakePath = fn(usize) -> PathMatcher;

fn main() {
    for routes in [10, 100, 1_000, 10_000] {
        find_routes(routes);
        find_hosts(routes);
    }
    format_line();
}

fn find_routes(routes: usize) {
    let kinds: [(&str, MakePath); 3] = [
        ("prefix", |at| PathMatcher::Prefix(format!("/service-{at}/"))),
        ("exact path", |at| PathMatcher::Exact(format!("/service-{at}/v1/items"))),
        ("separated prefix", |at| PathMatcher::SeparatedPrefix(format!("/service-{at}"))),
    ];
    for (kind, path) in kinds {
        for (which, case_sensitive) in [("", true), (", any case", false)] {
            let table = table(vec![VirtualHost {
                name: "all".to_owned(),
                domains: vec!["*".to_owned()],
                routes: (0..routes).map(|at| route(at, path(at), case_sensitive)).collect(),
                ..VirtualHost::default()
            }]);
            let head = request(&format!("/service-{}/v1/items", routes - 1));
            measure(&format!("find the last of {routes} routes by {kind}{which}"), || {
                black_box(table.find(black_box(&head), 0));
            });
        }
    }
}

fn find_hosts(hosts: usize) {
    for (kind, domain) in [("name", "host-#.example.com"), ("suffix", "*.host-#.example.com")] {
        let host = |at: usize| VirtualHost {
            name: format!("host {at}"),
            domains: vec![domain.replace('#', &at.to_string())],
            routes: vec![route(at, PathMatcher::Prefix("/".to_owned()), true)],
            ..VirtualHost::default()
        };
        let table = table((0..hosts).map(host).collect());
        let mut head = request("/v1/items");
        let authority = domain.replace('#', &(hosts - 1).to_string()).replace('*', "www");
        head.authority = authority.as_bytes().into();
        measure(&format!("find the last of {hosts} virtual hosts by {kind}"), || {
            black_box(table.find(black_box(&head), 0));
        });
    }
}

fn format_line() {
    let line = format::parse(format::DEFAULT_HTTP).expect("the default format is valid");
    let (info, request, response, node) =
        (info(), request("/items?id=1"), response(), Node::default());
    let cx = LogContext {
        info: &info,
        request: Some(&request),
        response: Some(&response),
        trailers: None,
        now: clock::now(),
        node: &node,
    };
    let mut out = Vec::with_capacity(4096);
    measure("format the default access log line", || {
        out.clear();
        line.write(&mut out, black_box(&cx));
        black_box(&out);
    });
}

fn route(at: usize, path: PathMatcher, case_sensitive: bool) -> Arc<Route> {
    Arc::new(Route {
        name: format!("route {at}"),
        matches: RouteMatch {
            path,
            case_sensitive,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            grpc_only: false,
            fraction_ppm: None,
        },
        action: Action::NonForwarding,
        headers: HeaderChanges::default(),
        filters: None,
    })
}

fn table(virtual_hosts: Vec<VirtualHost>) -> RouteTable {
    RouteTable::new(&Arc::new(RouteConfiguration {
        virtual_hosts,
        ..RouteConfiguration::default()
    }))
}

fn request(path: &str) -> RequestHead {
    let mut head = RequestHead {
        method: b"GET".into(),
        path: path.into(),
        authority: b"example.com".into(),
        ..RequestHead::default()
    };
    head.headers.append(b"accept", b"*/*");
    head.headers.append(b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101");
    head.headers.append(b"x-forwarded-for", b"203.0.113.7");
    head.headers.append(b"x-request-id", b"0b7ed1d3-9d3f-4d3c-8a3b-1f0a0c1b2d3e");
    head
}

fn response() -> ResponseHead {
    let mut head = ResponseHead { status: 200, ..ResponseHead::default() };
    head.headers.append(b"content-type", b"application/json");
    head.headers.append(b"x-envoy-upstream-service-time", b"3");
    head
}

fn info() -> StreamInfo {
    let address: Option<SocketAddr> = "127.0.0.1:8080".parse().ok();
    let now = clock::now();
    StreamInfo {
        connection: Rc::new(ConnectionInfo {
            id: 1,
            peer: address,
            local: address,
            path: None,
            listener: "listener".into(),
            filter_chain: "".into(),
        }),
        remote: address,
        protocol: Some(Version::Http11),
        started_at: clock::wall(),
        started: now,
        request_received: Some(now),
        upstream_first_sent: Some(now),
        upstream_first_received: Some(now),
        upstream_last_received: Some(now),
        ended: Some(now + Duration::from_millis(4)),
        status: 200,
        details: "via_upstream".into(),
        flags: ResponseFlags::default(),
        bytes_received: 0,
        bytes_sent: 1024,
        upstream: Some(UpstreamInfo {
            address,
            connected: true,
            local: address,
            ..UpstreamInfo::new(&"items".into())
        }),
        route_name: "".into(),
        virtual_host: "all".into(),
        health_check: false,
    }
}

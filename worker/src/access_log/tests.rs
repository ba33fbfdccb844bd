//! Lines as Envoy 1.40 writes them (`tests/envoy.json` holds its output), hostile headers,
//! filters, and what happens to lines when files are reopened or cannot be written.

mod files;

use std::{net::SocketAddr, path::Path, rc::Rc, time::Duration};

use serde_json::Value;

use super::{filter::Filter, json};
use crate::{
    clock,
    config::{
        access_log::{Comparison, JsonNode, LogFilter, Op},
        matcher::{HeaderCondition, HeaderMatcher},
        model::Node,
    },
    format,
    http::{
        head::{RequestHead, ResponseHead, Version},
        stream_info::{ConnectionInfo, LogContext, ResponseFlags, StreamInfo, UpstreamInfo},
    },
};

/// A request as the test data was recorded with.
pub(super) struct Sample {
    pub(super) info: StreamInfo,
    pub(super) request: RequestHead,
    pub(super) response: ResponseHead,
    pub(super) node: Node,
}

impl Sample {
    pub(super) fn new() -> Self {
        let address = |text: &str| Some(text.parse::<SocketAddr>().unwrap());
        let now = clock::now();
        let mut response = ResponseHead { status: 201, ..ResponseHead::default() };
        response.headers.append(b"content-type", b"text/plain");
        Self {
            info: StreamInfo {
                connection: Rc::new(ConnectionInfo {
                    id: 7,
                    peer: address("127.0.0.1:40000"),
                    local: address("127.0.0.1:80"),
                    path: None,
                    listener: "l".into(),
                    filter_chain: "".into(),
                }),
                remote: address("1.2.3.4:0"),
                protocol: Some(Version::Http11),
                started_at: clock::wall(),
                started: now,
                request_received: Some(now),
                upstream_first_sent: None,
                upstream_first_received: None,
                upstream_last_received: None,
                ended: Some(now + Duration::from_millis(12)),
                status: 201,
                details: "direct_response".into(),
                flags: ResponseFlags::default(),
                bytes_received: 0,
                bytes_sent: 5,
                upstream: None,
                route_name: "rname".into(),
                virtual_host: "vhost".into(),
                health_check: false,
            },
            request: RequestHead {
                method: b"GET".into(),
                path: b"/a?x=1&y".into(),
                authority: b"example.com".into(),
                ..RequestHead::default()
            },
            response,
            node: Node::default(),
        }
    }

    pub(super) fn context(&self) -> LogContext<'_> {
        LogContext {
            info: &self.info,
            request: Some(&self.request),
            response: Some(&self.response),
            trailers: None,
            now: self.info.started,
            node: &self.node,
        }
    }
}

fn node(value: &Value) -> JsonNode {
    match value {
        Value::Object(fields) => JsonNode::Object(
            fields.iter().map(|(name, value)| (name.clone(), node(value))).collect(),
        ),
        Value::Array(items) => JsonNode::Array(items.iter().map(node).collect()),
        Value::String(text) => JsonNode::Format(format::parse(text).unwrap()),
        Value::Null | Value::Bool(_) | Value::Number(_) => JsonNode::Literal(value.clone()),
    }
}

#[test]
fn lines_are_those_of_envoy() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("tests/envoy.json")).unwrap();
    for case in &cases {
        let mut sample = Sample::new();
        for header in case["headers"].as_array().into_iter().flatten() {
            let text = |at: usize| header[at].as_str().unwrap();
            // The data has bytes as Latin-1 characters.
            let value: Vec<u8> = text(1).chars().map(|c| u8::try_from(c).unwrap()).collect();
            sample.request.headers.append(text(0).as_bytes(), &value);
        }
        let mut line = Vec::new();
        let expected = case["expected"].as_str().unwrap();
        if let Some(text) = case["text"].as_str() {
            format::parse(text).unwrap().write(&mut line, &sample.context());
            assert_eq!(String::from_utf8(line).unwrap(), expected, "{case}");
        } else {
            let omit_empty = case["omit_empty"].as_bool().unwrap_or(false);
            json::write(&mut line, &node(&case["json"]), omit_empty, &sample.context());
            let line: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(line, serde_json::from_str::<Value>(expected).unwrap(), "{case}");
        }
    }
}

#[test]
fn the_default_line_is_the_one_of_envoy() {
    let mut sample = Sample::new();
    sample.info.started_at = std::time::UNIX_EPOCH + Duration::from_millis(951_782_400_007);
    sample.request.headers.append(b"user-agent", b"curl/8");
    let mut line = Vec::new();
    format::parse(format::DEFAULT_HTTP).unwrap().write(&mut line, &sample.context());
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "[2000-02-29T00:00:00.007Z] \"GET /a?x=1&y HTTP/1.1\" 201 - 0 5 12 - \"-\" \"curl/8\" \
         \"-\" \"example.com\" \"-\"\n"
    );
}

#[test]
fn hostile_headers_stay_on_one_line_and_inside_their_string() {
    let all: Vec<u8> = (0..=255).collect();
    let hostile: [&[u8]; 5] =
        [&all, b"a\r\n{\"forged\":1}", b"\"},{\"x\":\"", "\u{2028}\u{85}".as_bytes(), b"\xff\\"];
    let fields = node(&serde_json::json!({"a": "%REQ(x)%", "b": "<%REQ(x)%>", "c": "%REQ(x):3%"}));
    let text = format::parse("%REQ(x)%").unwrap();
    for value in hostile {
        let mut sample = Sample::new();
        sample.request.headers.append(b"x", value);
        let mut line = Vec::new();
        json::write(&mut line, &fields, false, &sample.context());
        let parsed: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(parsed.as_object().unwrap().len(), 3);
        assert!(!line.contains(&b'\n'));
        line.clear();
        text.write(&mut line, &sample.context());
        let line = String::from_utf8(line).unwrap();
        assert!(!line.contains(|c: char| c == '"' || (c.is_control() && c != '\t')), "{line:?}");
    }
}

fn line_of(text: &str, sample: &Sample) -> String {
    let mut line = Vec::new();
    format::parse(text).unwrap().write(&mut line, &sample.context());
    String::from_utf8(line).unwrap()
}

#[test]
fn quotes_and_backslashes_cannot_end_a_value_in_quotes() {
    let mut sample = Sample::new();
    sample.request.path = br#"/"x\y<>{}^|"#.into();
    assert_eq!(line_of("\"%REQ(:PATH)%\"", &sample), r#""/\x22x\x5cy<>{}^|""#);
}

#[test]
fn of_a_request_that_cannot_be_read_nothing_is_known() {
    let mut sample = Sample::new();
    sample.request = RequestHead::default();
    let text = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)% %REQ(:SCHEME)%";
    assert_eq!(line_of(text, &sample), "- - - -");
}

#[test]
fn an_endpoint_that_cannot_be_reached_is_named_with_the_reason() {
    let text = "%UPSTREAM_CLUSTER% %UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS% \
                %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_TRANSPORT_FAILURE_REASON%";
    let mut sample = Sample::new();
    assert_eq!(line_of(text, &sample), "- - - 0 -");
    let mut upstream = UpstreamInfo::new(&"c".into());
    sample.info.upstream = Some(upstream.clone());
    assert_eq!(line_of(text, &sample), "c - - 1 -");
    // There is no endpoint; Envoy counts that as an attempt.
    let mut none = upstream.clone();
    none.attempt(None);
    sample.info.upstream = Some(none);
    assert_eq!(line_of(text, &sample), "c - - 1 -");
    upstream.attempt(Some(([127, 0, 0, 1], 9).into()));
    upstream.failure = Some("why".into());
    sample.info.upstream = Some(upstream.clone());
    assert_eq!(line_of(text, &sample), "c 127.0.0.1:9 - 1 why");
    upstream.attempts += 1;
    upstream.attempt(Some(([127, 0, 0, 2], 9).into()));
    upstream.connected = true;
    sample.info.upstream = Some(upstream);
    assert_eq!(line_of(text, &sample), "c 127.0.0.2:9 127.0.0.2:9 2 -");
}

#[test]
fn ends_on_unix_sockets_are_named_by_their_paths_and_have_no_port() {
    let of = |whose: &str| {
        ["ADDRESS", "ADDRESS_WITHOUT_PORT", "PORT"]
            .map(|part| format!("%{whose}_{part}%"))
            .join(" ")
    };
    let mut sample = Sample::new();
    let mut upstream = UpstreamInfo::new(&"c".into());
    upstream.attempt(None);
    upstream.path = Some(Path::new("/run/up").into());
    sample.info.upstream = Some(upstream.clone());
    assert_eq!(line_of("%UPSTREAM_HOST%", &sample), "/run/up");
    assert_eq!(line_of(&of("UPSTREAM_REMOTE"), &sample), "- - -");
    upstream.connected = true;
    sample.info.upstream = Some(upstream);
    assert_eq!(line_of(&of("UPSTREAM_REMOTE"), &sample), "/run/up /run/up -");
    assert_eq!(line_of(&of("UPSTREAM_LOCAL"), &sample), "- - -");
    let path = Some(Path::new("/run/down").into());
    let connection = ConnectionInfo { path, ..ConnectionInfo::clone(&sample.info.connection) };
    sample.info.connection = Rc::new(connection.clone());
    let direct = of("DOWNSTREAM_DIRECT_REMOTE");
    assert_eq!(line_of(&direct, &sample), "127.0.0.1:40000 127.0.0.1 40000", "it came over TCP");
    sample.info.connection = Rc::new(ConnectionInfo { peer: None, local: None, ..connection });
    for whose in [&direct, &of("DOWNSTREAM_LOCAL")] {
        assert_eq!(line_of(whose, &sample), "/run/down /run/down -");
    }
    // `x-forwarded-for` may know better.
    assert_eq!(line_of("%DOWNSTREAM_REMOTE_ADDRESS%", &sample), "1.2.3.4:0");
    sample.info.remote = None;
    assert_eq!(line_of(&of("DOWNSTREAM_REMOTE"), &sample), "/run/down /run/down -");
}

#[test]
fn filters_choose_by_status_duration_flags_and_headers() {
    use LogFilter as F;
    let comparison = |op, value| Comparison { op, value };
    let header = |wanted| {
        F::Header(Box::new(HeaderMatcher {
            name: "x".to_owned(),
            condition: HeaderCondition::Present(wanted),
            invert: false,
            missing_as_empty: false,
        }))
    };
    let flag = |name: &str| F::ResponseFlag(vec![name.to_owned()]);
    let cases = [
        (F::Status(comparison(Op::Eq, 201)), true),
        (F::Status(comparison(Op::Ge, 202)), false),
        (F::Status(comparison(Op::Le, 201)), true),
        (F::Status(comparison(Op::Ne, 201)), false),
        (F::Duration(comparison(Op::Ge, 12)), true),
        (F::Duration(comparison(Op::Ge, 13)), false),
        (F::NotHealthCheck, true),
        (F::Traceable, false),
        (header(true), false),
        (header(false), true),
        (flag("UF"), true),
        (flag("NR"), false),
        (F::ResponseFlag(vec![]), true),
        (F::Fraction(0), false),
        (F::Fraction(1_000_000), true),
        (F::And(vec![F::NotHealthCheck, F::Fraction(0)]), false),
        (F::Or(vec![F::NotHealthCheck, F::Fraction(0)]), true),
    ];
    let mut sample = Sample::new();
    sample.info.flags.set(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    for (filter, expected) in cases {
        let passes = Filter::new(&filter).matches(&sample.context());
        assert_eq!(passes, expected, "{filter:?}");
    }
}

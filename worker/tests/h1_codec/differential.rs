//! The codec against hyper and `httparse`: whatever we forward, they read as the same message.
//!
//! They may refuse or accept other inputs than we do; what must never happen is that bytes we
//! wrote mean something else to them.

use std::{convert::Infallible, sync::Arc, sync::Mutex};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::properties::{hostile, well_formed};
use baton_worker::http::h1::body::{Decoder, write_chunk, write_last_chunk};
use baton_worker::http::h1::{Framing, Limits, encode, request};
use baton_worker::http::head::RequestHead;
use baton_worker::http::headers::Headers;

/// A message as any reader sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Message {
    method: String,
    target: String,
    /// `name: value`, sorted.
    lines: Vec<String>,
    body: Vec<u8>,
}

/// What hyper makes of these bytes: the messages it accepted.
fn hyper_reads(wire: &[u8]) -> Vec<Message> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let sink = Arc::clone(&sink);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let mut lines: Vec<_> = parts
                    .headers
                    .iter()
                    .map(|(n, v)| line(n.as_str().as_bytes(), v.as_bytes()))
                    .collect();
                lines.sort();
                let (method, target) = (parts.method.to_string(), parts.uri.to_string());
                let body = body.to_bytes().to_vec();
                sink.lock().unwrap().push(Message { method, target, lines, body });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(wire).await.unwrap();
        client.shutdown().await.unwrap();
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service);
        // A refusal is an error of the connection; what was accepted before it counts.
        drop(connection.await);
        let mut answers = Vec::new();
        drop(client.read_to_end(&mut answers).await);
    });
    seen.lock().unwrap().clone()
}

fn line(name: &[u8], value: &[u8]) -> String {
    format!("{}: {}", name.escape_ascii(), value.escape_ascii())
}

/// Reads one request with our codec and writes it anew. `None` when it is not accepted whole.
fn forward(input: &[u8], limits: &Limits) -> Option<(Message, Vec<u8>)> {
    let mut head = RequestHead::default();
    let parsed = request::parse(input, limits, &mut head).ok()??;
    let mut decoder = Decoder::new(parsed.framing);
    let mut rest = &input[parsed.head_len..];
    let mut body = Vec::new();
    while !decoder.is_done() {
        let step = decoder.decode(rest).ok()?;
        body.extend_from_slice(&rest[step.data]);
        rest = &rest[step.consumed..];
        if step.consumed == 0 && !step.done {
            return None;
        }
    }
    let mut wire = Vec::new();
    encode::request(&mut wire, &head, parsed.framing, encode::Connection::Default);
    let mut lines = vec![line(b"host", &head.authority)];
    match parsed.framing {
        Framing::Chunked => {
            write_chunk(&mut wire, &body);
            write_last_chunk(&mut wire, &Headers::default());
            lines.push("transfer-encoding: chunked".to_owned());
        }
        Framing::Length(length) => {
            wire.extend_from_slice(&body);
            lines.push(format!("content-length: {length}"));
        }
        Framing::None | Framing::UntilClose => {
            if !matches!(&*head.method, b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT") {
                lines.push("content-length: 0".to_owned());
            }
        }
    }
    let others = head.headers.iter().filter(|(n, _)| *n != b"content-length");
    lines.extend(others.map(|(n, v)| line(n, v)));
    lines.sort();
    let method = String::from_utf8_lossy(&head.method).into_owned();
    let target = String::from_utf8_lossy(&head.path).into_owned();
    Some((Message { method, target, lines, body }, wire))
}

/// Demands that the bytes we wrote are one message, and ours, to both other readers.
fn check(input: &[u8]) -> bool {
    let Some((ours, wire)) = forward(input, &Limits::default()) else { return false };
    let mut slots = [httparse::EMPTY_HEADER; 128];
    let mut other = httparse::Request::new(&mut slots);
    let len = other.parse(&wire).unwrap().unwrap();
    let mut lines: Vec<_> =
        other.headers.iter().map(|h| line(h.name.as_bytes(), h.value)).collect();
    lines.sort();
    let shown = wire.escape_ascii();
    assert_eq!(lines, ours.lines, "httparse reads other headers: {shown}");
    let framing =
        |n: &&httparse::Header<'_>| matches!(n.name, "content-length" | "transfer-encoding");
    assert!(other.headers.iter().filter(framing).count() <= 1, "two framings: {shown}");
    assert!(len <= wire.len());
    // Two messages behind each other: had ours a second meaning, the next one would not be read.
    let mut twice = wire.clone();
    twice.extend_from_slice(b"GET /marker HTTP/1.1\r\nhost: m\r\n\r\n");
    let read = hyper_reads(&twice);
    // What hyper's URI type does not take, it refuses before it counts.
    if let [first, rest @ ..] = &*read {
        assert_eq!(first, &ours, "hyper reads another message: {shown}");
        assert_eq!(rest.len(), 1, "hyper reads other messages behind it: {shown}");
        assert_eq!(rest[0].target, "/marker", "{shown}");
        return true;
    }
    assert!(ours.target.bytes().any(|b| b"\"<>\\^`{|}".contains(&b)), "hyper refuses {shown}");
    true
}

fn seeded(count: usize, strategy: &impl Strategy<Value = Vec<u8>>) -> usize {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..count).filter(|_| check(&strategy.new_tree(&mut runner).unwrap().current())).count()
}

#[test]
fn hyper_and_httparse_read_what_we_forward_as_we_do() {
    assert_eq!(seeded(400, &well_formed()), 400);
}

#[test]
fn hostile_input_never_means_something_else_to_the_next_reader() {
    let accepted = seeded(6000, &hostile());
    // The mutations must leave enough alive for the comparison to mean something.
    assert!(accepted > 300, "only {accepted} accepted");
}

#[test]
fn what_httparse_refuses_is_refused() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = hostile();
    for _ in 0..20_000 {
        let input = strategy.new_tree(&mut runner).unwrap().current();
        let mut slots = [httparse::EMPTY_HEADER; 100];
        let theirs = httparse::Request::new(&mut slots).parse(&input);
        let ours = request::parse(&input, &Limits::default(), &mut RequestHead::default());
        if let (Err(_), Ok(Some(_))) = (&theirs, &ours) {
            unreachable!("accepted although httparse says {theirs:?}: {}", input.escape_ascii());
        }
    }
}

//! Prints what the HTTP/1 codec costs per message, in nanoseconds.
//!
//! `cargo bench -p baton-worker --bench h1_codec`

#![expect(clippy::print_stdout, reason = "the figures are the purpose")]
#![expect(clippy::unwrap_used, reason = "a broken benchmark should stop")]

mod measure;

use std::hint::black_box;

use baton_worker::config::hcm::EscapedSlashes;
use baton_worker::http::h1::body::Decoder;
use baton_worker::http::h1::response::Answers;
use baton_worker::http::h1::{Framing, Limits, encode, request, response};
use baton_worker::http::head::{RequestHead, ResponseHead};
use baton_worker::http::path::{PathPolicy, normalize};
use measure::measure;

const PLAIN: &[u8] = b"GET /api/items/42?full=1 HTTP/1.1\r\nHost: shop.example.com\r\n\
    User-Agent: curl/8.5.0\r\nAccept: */*\r\nX-Trace: 0123456789abcdef\r\n\
    Accept-Encoding: gzip\r\n\r\n";

const BROWSER: &[u8] = b"GET /products/shoes?size=42&colour=red HTTP/1.1\r\n\
    Host: www.shop.example.com\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"128\", \"Not;A=Brand\";v=\"24\", \"Chrome\";v=\"128\"\r\n\
    sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/128.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;\
    q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
    Referer: https://www.shop.example.com/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: upstream/1.0\r\n\
    Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: application/json\r\n\
    Content-Length: 1024\r\nCache-Control: no-store\r\n\r\n";

fn requests(limits: &Limits) {
    let policy = PathPolicy {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::Reject,
    };
    for (name, input) in [("5 headers", PLAIN), ("browser, 17 headers", BROWSER)] {
        let mut head = RequestHead::default();
        let mut out = Vec::with_capacity(4096);
        measure(&format!("request: httparse alone ({name})"), || {
            let mut slots = [httparse::EMPTY_HEADER; 100];
            black_box(httparse::Request::new(&mut slots).parse(black_box(input)).unwrap());
        });
        measure(&format!("request: parse ({name})"), || {
            black_box(request::parse(black_box(input), limits, &mut head).unwrap());
        });
        measure(&format!("request: encode ({name})"), || {
            out.clear();
            encode::request(&mut out, black_box(&head), Framing::None, encode::Connection::Default);
            black_box(&out);
        });
        measure(&format!("path: nothing to do ({name})"), || {
            black_box(normalize(black_box(&mut head.path), &policy).unwrap());
        });
        measure(&format!("request: parse, normalise, rewrite ({name})"), || {
            request::parse(black_box(input), limits, &mut head).unwrap();
            normalize(&mut head.path, &policy).unwrap();
            head.headers.append(b"x-forwarded-proto", b"http");
            head.headers.append(b"x-request-id", b"0b7ed1d3-9d3f-4d3c-8a3b-1f0a0c1b2d3e");
            out.clear();
            encode::request(&mut out, &head, Framing::None, encode::Connection::Default);
            black_box(&out);
        });
    }
}

fn responses(limits: &Limits) {
    let mut head = ResponseHead::default();
    let mut out = Vec::with_capacity(4096);
    measure("response: parse (5 headers)", || {
        black_box(response::parse(black_box(RESPONSE), limits, Answers::Plain, &mut head).unwrap());
    });
    measure("response: encode (5 headers)", || {
        out.clear();
        let framing = Framing::Length(1024);
        encode::response(&mut out, black_box(&head), framing, None, encode::Connection::Default);
        black_box(&out);
    });
}

fn bodies() {
    let mut body = Vec::new();
    for _ in 0..16 {
        body.extend_from_slice(b"1000\r\n");
        body.resize(body.len() + 4096, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    measure("body: 16 chunks of 4 KiB", || {
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut at = 0;
        while !decoder.is_done() {
            at += decoder.decode(black_box(&body[at..])).unwrap().consumed;
        }
    });
}

fn main() {
    let limits = Limits::default();
    requests(&limits);
    responses(&limits);
    bodies();
}

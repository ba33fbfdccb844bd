//! Requests that may be tried again, on their way to another generation.

use super::{Bench, config, read_exactly, read_head, until_alone};
use crate::harness::client::connect;
use std::io::Write as _;

const RETRIES: &str = "timeout: 0s, retry_policy: {retry_on: \"reset,retriable-status-codes\", \
                       retriable_status_codes: [503], num_retries: 2}";

#[test]
fn a_request_that_moved_is_tried_again_with_its_body_as_often_as_was_left() {
    let bench = Bench::new(&["--concurrency", "1"]);
    let with_retries = |mark: &str| {
        let text = config(bench.http, bench.tcp, bench.upstream, mark);
        text.replacen("timeout: 0s", RETRIES, 1)
    };
    let reload = |mark: &str| {
        bench.program.write_config(&with_retries(mark));
        bench.program.reload();
        until_alone(&bench.program);
    };
    reload("first");
    let mut client = connect(bench.http).expect("connect");
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nfirst")
        .expect("send");
    // One try ends before the move.
    let mut up = bench.accept();
    read_head(&mut up);
    assert_eq!(read_exactly(&mut up, 5), b"first");
    drop(up);
    let mut up = bench.accept();
    read_head(&mut up);
    assert_eq!(read_exactly(&mut up, 5), b"first");
    reload("second");
    // The rest comes after it, and this try ends, too.
    client.write_all(b"last").expect("send");
    assert_eq!(read_exactly(&mut up, 4), b"last");
    drop(up);
    let mut up = bench.accept();
    read_head(&mut up);
    assert_eq!(read_exactly(&mut up, 9), b"firstlast");
    // It was the last one: the answer counts.
    up.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").expect("answer");
    let head = read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("\r\nx-mark: first\r\n"), "it ends as it began: {head}");
}

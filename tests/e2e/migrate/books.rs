//! What is written down about a connection that moved: everything once, and in the words of the
//! configuration that keeps the books.

use super::{Bench, config, read_exactly, read_head};
use crate::harness::client::{self, connect};
use crate::harness::eventually;
use std::io::Write as _;
use std::net::SocketAddr;
use std::{fs, path::Path};

/// Another filter chain, that takes none of the test's connections.
const OTHERS: &str = r#"    - name: others
      filter_chain_match: {source_prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
      filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: others, cluster: up}
"#;

/// The bench's configuration with an admin interface, a log of the HTTP listener that names the filter
/// chain, one of its requests that names the connection to the endpoint, and other chains before the one that
/// serves.
fn with_log(bench: &Bench, admin: SocketAddr, log: &Path, before: &str) -> String {
    let requests = log.with_extension("requests");
    let requests = format!(
        r#"          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: "{}"
              log_format: {{text_format_source: {{inline_string: "over %UPSTREAM_LOCAL_ADDRESS%\n"}}}}
          route_config:
"#,
        requests.display()
    );
    let log = format!(
        r#"    access_log:
    - name: envoy.access_loggers.file
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
        path: "{}"
        log_format: {{text_format_source: {{inline_string: "chain %FILTER_CHAIN_NAME%\n"}}}}
    filter_chains:
{before}    - name: ours
      filters:
"#,
        log.display()
    );
    let (ip, port) = (admin.ip(), admin.port());
    let text = config(bench.http, bench.tcp, bench.upstream, "any");
    let text = text.replacen("    filter_chains:\n    - filters:\n", &log, 1);
    let text = text.replacen("          route_config:\n", &requests, 1);
    format!("admin: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}\n{text}")
}

#[test]
fn a_request_that_moves_is_counted_once_and_its_connection_logged_under_the_newest_names() {
    let bench = Bench::new(&["--concurrency", "1"]);
    let (admin, log) = (crate::harness::lab::free_address(), bench.program.path("listener.log"));
    bench.program.write_config(&with_log(&bench, admin, &log, ""));
    bench.program.reload();
    let mut client = connect(bench.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    let mut up = bench.accept();
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").expect("half an answer");
    read_head(&mut client);
    // The chain stands at another position in the newest configuration.
    bench.program.write_config(&with_log(&bench, admin, &log, OTHERS));
    bench.program.reload();
    super::until_alone(&bench.program);
    let place = format!("up::{}::", bench.upstream);
    let clusters = client::get(admin, "/clusters").body;
    for name in ["cx_total::0", "rq_total::0"] {
        assert!(clusters.contains(&format!("{place}{name}\n")), "{name}: {clusters}");
    }
    up.write_all(b"k").expect("the rest");
    assert_eq!(read_exactly(&mut client, 2), b"ok");
    // The connection to the endpoint moved, too, and is kept for the next request.
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("send");
    read_head(&mut up);
    up.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("an answer");
    read_head(&mut client);
    assert_eq!(read_exactly(&mut client, 2), b"ok");
    drop(client);
    let over = format!("over {}\n", up.peer_addr().expect("its other end"));
    eventually("both requests are in the log", || {
        let text = fs::read_to_string(log.with_extension("requests"));
        let text = text.map_err(|error| error.to_string())?;
        if text == over.repeat(2) { Ok(()) } else { Err(text) }
    });
    eventually("the connection is in the log", || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        if text.is_empty() { Err("nothing".to_owned()) } else { Ok(text) }
    });
    assert_eq!(fs::read_to_string(&log).expect("the log"), "chain ours\n");
}

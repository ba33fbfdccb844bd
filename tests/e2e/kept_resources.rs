//! Resources from files: what was accepted last serves on, and listeners change places.

use crate::harness::lab::free_address;
use crate::harness::{Program, client};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// A configuration whose listeners come from this file.
fn config(file: &Path) -> String {
    let file = file.display();
    format!(
        "dynamic_resources: {{lds_config: {{path_config_source: {{path: {file}}}}}}}\n\
         admin: {{address: {{pipe: {{path: \"@kept-{}\"}}}}}}\n",
        std::process::id()
    )
}

/// A listener that says its name.
fn listener(name: &str, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        r#"
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: {name}
  address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: {name}
        route_config:
          virtual_hosts:
          - name: all
            domains: ["*"]
            routes:
            - {{match: {{prefix: "/"}}, direct_response: {{status: 200, body: {{inline_string: {name}}}}}}}
        http_filters:
        - name: envoy.filters.http.router
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    )
}

fn put(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).expect("write the file");
    fs::rename(&next, file).expect("put it into place");
}

#[test]
fn a_reload_serves_what_the_first_generation_began_with_though_the_file_is_gone() {
    let http = free_address();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("listeners.yaml");
    put(&file, &format!("resources:{}", listener("one", http)));
    let program = Program::start(&config(&file), &["--probation-s", "0"]);
    assert_eq!(client::get(http, "/").status, 200);
    fs::remove_file(&file).expect("take the file away");
    program.reload();
    program.wait_until_alone();
    assert_eq!(client::get(http, "/").status, 200);
}

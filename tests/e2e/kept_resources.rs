//! Resources from files: what was accepted last serves on, and listeners change places.

use crate::harness::eventually::eventually;
use crate::harness::lab::free_address;
use crate::harness::{Program, client};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

/// A configuration whose listeners come from this file.
fn config(file: &Path, http: SocketAddr) -> String {
    let file = file.display();
    format!(
        "dynamic_resources: {{lds_config: {{path_config_source: {{path: {file}}}}}}}\n\
         admin: {{address: {{pipe: {{path: \"@kept-{}\"}}}}}}\n",
        http.port()
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

/// The answer, if there is one: between two listeners clients may be refused.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
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
    let program = Program::start(&config(&file, http), &["--probation-s", "0"]);
    assert_eq!(client::get(http, "/").status, 200);
    fs::remove_file(&file).expect("take the file away");
    program.reload();
    program.wait_until_alone();
    assert_eq!(client::get(http, "/").status, 200);
}

#[test]
fn a_listener_of_another_name_takes_the_address_of_one_that_goes() {
    let http = free_address();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("listeners.yaml");
    put(&file, &format!("resources:{}", listener("one", http)));
    let _program = Program::start(&config(&file, http), &[]);
    assert_eq!(client::get(http, "/").body, "one");
    put(&file, &format!("resources:{}", listener("two", http)));
    eventually("the other listener answers", || match ask(http) {
        Ok(answer) if answer.ends_with("two") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

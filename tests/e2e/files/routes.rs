//! Routes of a listener.

use super::site::{
    Held, Site, WAYS, ask, cluster, endpoints, place, rds_listener, read_head, resources, routes,
    source, until_answers, who,
};
use crate::harness::eventually::until;
use crate::harness::{Program, client};
use baton_torture::files::{ResourceFile, Way};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::SocketAddr;

/// A program with a listener whose routes come from a file, and the clusters `a` and `b`.
fn start(site: &Site, a: SocketAddr) -> (Program, ResourceFile) {
    let file = site.file("routes");
    put(&file, "v1", "a", Way::Rename);
    let mut program = launch(site, &file, "15s", a);
    program.wait_until_serving();
    (program, file)
}

fn launch(site: &Site, file: &ResourceFile, fetch_timeout: &str, a: SocketAddr) -> Program {
    let source = source(file, &json!({ "initial_fetch_timeout": fetch_timeout }));
    let listener = rds_listener("http", site.http, "r", &source);
    site.launch(&[listener], &[cluster("a", a), cluster("b", site.b)], &json!({}))
}

fn put(file: &ResourceFile, version: &str, cluster: &str, way: Way) {
    file.put(&resources(version, &[routes("r", &[("/", cluster)])]), way).expect("write the file");
}

/// How often a file was refused or not understood.
fn faults(site: &Site) -> u64 {
    let ends = ["rejected", "failure"];
    ends.iter().map(|end| site.stat(&format!("http.web.rds.r.update_{end}"))).sum()
}

#[test]
fn routes_change_by_rename_in_place_and_by_link_also_for_open_connections() {
    let site = Site::new();
    let (_program, file) = start(&site, site.a);
    let mut kept = client::connect(site.http).expect("connect");
    assert_eq!(ask(&mut kept, "/").body, "a");
    for (number, way) in WAYS.into_iter().enumerate() {
        let name = if number % 2 == 0 { "b" } else { "a" };
        put(&file, name, name, way);
        until_answers(site.http, "/", name);
        assert_eq!(ask(&mut kept, "/").body, name, "{way:?}");
    }
    assert!(site.stat("http.web.rds.r.update_success") >= 5);
    assert_eq!(site.stat("http.web.rds.r.config_reload"), 5);
    assert_eq!(faults(&site), 0);
}

/// Routes to `a` that mark each response.
fn marked(mark: &str) -> String {
    let mut routes = routes("r", &[("/", "a")]);
    let headers = json!([{ "header": { "key": "x-mark", "value": mark } }]);
    let fields = routes.as_object_mut().expect("an object");
    fields.insert("response_headers_to_add".to_owned(), headers);
    resources(mark, &[routes])
}

#[test]
fn a_request_ends_under_the_routes_it_began_with() {
    let site = Site::new();
    let held = Held::new();
    let (_program, file) = start(&site, held.address);
    file.put(&marked("first"), Way::Rename).expect("write");
    site.until_stat("http.web.rds.r.update_success", 2);
    let mut client = client::connect(site.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("ask");
    let mut server = held.accept();
    read_head(&mut server);
    file.put(&marked("second"), Way::Rename).expect("write");
    site.until_stat("http.web.rds.r.update_success", 3);
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answer");
    let response = client::receive(&mut client).expect("a response");
    assert_eq!(response.header("x-mark"), Some("first"));
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("ask");
    read_head(&mut server);
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answer");
    let response = client::receive(&mut client).expect("a response");
    assert_eq!(response.header("x-mark"), Some("second"));
}

#[test]
fn a_cluster_that_nobody_knows_is_503_and_another_file_mends_it() {
    let site = Site::new();
    let (_program, file) = start(&site, site.a);
    put(&file, "v2", "nowhere", Way::Rename);
    until_answers(site.http, "/", "503");
    put(&file, "v3", "b", Way::Rename);
    until_answers(site.http, "/", "b");
    assert_eq!(faults(&site), 0);
}

#[test]
fn a_bad_file_keeps_the_routes_and_is_told_with_its_place() {
    let site = Site::new();
    let (program, file) = start(&site, site.a);
    let good = resources("v2", &[routes("r", &[("/", "b")])]);
    let same_twice = good.replace("\"*\"", "\"*\",\n          \"*\"");
    let bad = [
        (good.replace("\"prefix\"", "\"prefixed\""), Some("\"prefixed\"")),
        (good.replace("\"r\"", "\"other\""), None),
        (same_twice, None),
        (resources("v2", &[endpoints("r", &[site.b])]), None),
        (good.get(..good.len() / 2).expect("a half").to_owned(), None),
        (String::new(), None),
    ];
    for (number, (text, wrong)) in bad.into_iter().enumerate() {
        file.put(&text, Way::Rename).expect("write");
        until("it was read", || faults(&site) == number as u64 + 1);
        assert_eq!(who(site.http, "/"), "a");
        let mut begin = format!("{}:", file.path().display());
        if let Some(wrong) = wrong {
            begin += &place(&text, wrong);
        }
        until(&begin, || program.log().contains(&begin));
    }
    assert_eq!(site.stat("http.web.rds.r.update_success"), 1);
    // The dump has what serves.
    let dump = site.dump("RoutesConfigDump");
    let version = dump.pointer("/dynamic_route_configs/0/version_info").and_then(Value::as_str);
    assert_eq!(version, Some("v1"), "{dump}");
    file.put(&good, Way::InPlace).expect("write");
    until_answers(site.http, "/", "b");
}

#[test]
fn a_file_that_is_not_there_at_the_start_is_waited_for() {
    let site = Site::new();
    let file = site.file("routes");
    let mut program = launch(&site, &file, "0s", site.a);
    until("it waits", || program.log().contains("waiting for resources in "));
    put(&file, "v1", "a", Way::Rename);
    program.wait_until_serving();
    assert_eq!(who(site.http, "/"), "a");
}

#[test]
fn without_routes_in_time_the_answer_is_404_until_they_come() {
    let site = Site::new();
    let file = site.file("routes");
    let mut program = launch(&site, &file, "0.2s", site.a);
    program.wait_until_serving();
    assert_eq!(who(site.http, "/"), "404");
    assert_eq!(site.stat("http.web.rds.r.init_fetch_timeout"), 1);
    put(&file, "v1", "a", Way::Rename);
    until_answers(site.http, "/", "a");
}

#[test]
fn headers_that_only_internal_clients_may_send_are_those_of_the_table_from_the_file() {
    let site = Site::new();
    let held = Held::new();
    let (_program, file) = start(&site, held.address);
    let mut table = routes("r", &[("/", "a")]);
    let fields = table.as_object_mut().expect("an object");
    fields.insert("internal_only_headers".to_owned(), json!(["x-secret"]));
    file.put(&resources("v2", &[table]), Way::Rename).expect("write");
    site.until_stat("http.web.rds.r.update_success", 2);
    let mut client = client::connect(site.http).expect("connect");
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-secret: 1\r\nx-open: 1\r\n\r\n")
        .expect("ask");
    let head = read_head(&mut held.accept());
    assert!(head.contains("x-open") && !head.contains("x-secret"), "{head}");
}

//! Endpoints of a cluster.

use super::site::{
    Held, Site, WAYS, ask, eds_cluster, endpoints, http_listener, place, read_head, resources,
    routes, say, source, tcp_listener, until_answers, who,
};
use crate::harness::eventually::until;
use crate::harness::{Program, client};
use baton_torture::files::{ResourceFile, Way};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

/// A program with one cluster and an HTTP and a TCP listener in front of it. Its file has the first server.
fn start(site: &Site, server: SocketAddr) -> (Program, ResourceFile) {
    let file = site.file("endpoints");
    put(&file, "v1", &[server], Way::Rename);
    (launch(site, &file, "15s", true), file)
}

fn launch(site: &Site, file: &ResourceFile, fetch_timeout: &str, wait: bool) -> Program {
    let source = source(file, &json!({ "initial_fetch_timeout": fetch_timeout }));
    let listeners =
        [http_listener("http", site.http, &[("/", "up")]), tcp_listener("tcp", site.tcp, "up")];
    let mut program = site.launch(&listeners, &[eds_cluster("up", &source)], &json!({}));
    if wait {
        program.wait_until_serving();
    }
    program
}

fn put(file: &ResourceFile, version: &str, servers: &[SocketAddr], way: Way) {
    file.put(&resources(version, &[endpoints("up", servers)]), way).expect("write the file");
}

#[test]
fn endpoints_change_by_rename_in_place_and_by_link_also_for_open_connections() {
    let site = Site::new();
    let (_program, file) = start(&site, site.a);
    let mut kept = client::connect(site.http).expect("connect");
    assert_eq!(ask(&mut kept, "/").body, "a");
    for (number, way) in WAYS.into_iter().enumerate() {
        let (server, name) = if number % 2 == 0 { (site.b, "b") } else { (site.a, "a") };
        put(&file, name, &[server], way);
        until_answers(site.http, "/", name);
        assert_eq!(ask(&mut kept, "/").body, name, "{way:?}");
    }
    assert!(site.stat("cluster.up.update_success") >= 5);
    assert_eq!(site.stat("cluster.up.update_rejected"), 0);
}

#[test]
fn a_request_at_an_endpoint_that_is_removed_gets_its_whole_answer() {
    let site = Site::new();
    let held = Held::new();
    let (_program, file) = start(&site, held.address);
    let mut client = client::connect(site.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("ask");
    let mut server = held.accept();
    read_head(&mut server);
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").expect("begin");
    put(&file, "v2", &[site.b], Way::Rename);
    until_answers(site.http, "/", "b");
    server.write_all(b"later").expect("go on");
    assert_eq!(client::receive(&mut client).expect("the answer").body, "firstlater");
    // Nothing else will come on this connection.
    client::assert_ended(&mut server);
    assert_eq!(ask(&mut client, "/").body, "b");
}

#[test]
fn a_tunnel_to_an_endpoint_that_is_removed_stays() {
    let site = Site::new();
    let held = Held::new();
    let (_program, file) = start(&site, held.address);
    let mut client = client::connect(site.tcp).expect("connect");
    client.write_all(b"x").expect("send");
    let mut server = held.accept();
    server.read_exact(&mut [0]).expect("the byte");
    put(&file, "v2", &[site.b], Way::Rename);
    until_answers(site.http, "/", "b");
    say(&mut client, &mut server, b"still here");
}

#[test]
fn weights_and_an_empty_list_count() {
    let site = Site::new();
    let (_program, file) = start(&site, site.a);
    let mut weighted = endpoints("up", &[site.a, site.b]);
    for (endpoint, weight) in [(0, 1), (1, 3)] {
        let pointer = format!("/endpoints/0/lb_endpoints/{endpoint}");
        let endpoint = weighted.pointer_mut(&pointer).and_then(|found| found.as_object_mut());
        let endpoint = endpoint.expect("an endpoint");
        endpoint.insert("load_balancing_weight".to_owned(), json!(weight));
    }
    file.put(&resources("v2", &[weighted]), Way::Rename).expect("write");
    site.until_stat("cluster.up.membership_total", 2);
    let mut kept = client::connect(site.http).expect("connect");
    let answers: Vec<String> = (0..40).map(|_| ask(&mut kept, "/").body).collect();
    let of_b = answers.iter().filter(|name| *name == "b").count();
    assert!((28..=32).contains(&of_b), "{of_b} of 40 at three quarters of the weight");

    put(&file, "v3", &[], Way::Rename);
    until_answers(site.http, "/", "503");
    put(&file, "v4", &[site.b], Way::Rename);
    until_answers(site.http, "/", "b");
}

#[test]
fn a_bad_file_keeps_the_endpoints_and_is_told_with_its_place() {
    let site = Site::new();
    let (program, file) = start(&site, site.a);
    let good = resources("v2", &[endpoints("up", &[site.b])]);
    let port = format!("\"port_value\": {}", site.b.port());
    let bad = [
        (good.replace(&port, "\"port_value\": 99999"), Some("99999")),
        (good.replace("\"cluster_name\": \"up\"", "\"cluster_name\": \"other\""), None),
        (good.replace("\"lb_endpoints\"", "\"lb_endpoint\""), Some("\"lb_endpoint\"")),
        (resources("v2", &[routes("up", &[("/", "up")])]), None),
        (good.get(..good.len() / 2).expect("a half").to_owned(), None),
        (String::new(), None),
    ];
    for (number, (text, wrong)) in bad.into_iter().enumerate() {
        file.put(&text, Way::Rename).expect("write");
        until("it was read", || {
            let [rejected, unread] =
                ["rejected", "failure"].map(|end| site.stat(&format!("cluster.up.update_{end}")));
            rejected + unread == number as u64 + 1
        });
        assert_eq!(who(site.http, "/"), "a");
        let mut begin = format!("{}:", file.path().display());
        if let Some(wrong) = wrong {
            begin += &place(&text, wrong);
        }
        until(&begin, || program.log().contains(&begin));
    }
    assert_eq!(site.stat("cluster.up.update_success"), 1);
    file.put(&good, Way::InPlace).expect("write");
    until_answers(site.http, "/", "b");
}

#[test]
fn a_file_that_is_not_there_at_the_start_is_waited_for() {
    let site = Site::new();
    let file = site.file("endpoints");
    let mut program = launch(&site, &file, "0s", false);
    until("it waits", || program.log().contains("waiting for resources in "));
    put(&file, "v1", &[site.a], Way::Rename);
    program.wait_until_serving();
    assert_eq!(who(site.http, "/"), "a");
}

#[test]
fn a_file_that_does_not_come_is_not_waited_for_longer_than_was_said() {
    let site = Site::new();
    let file = site.file("endpoints");
    let _program = launch(&site, &file, "0.2s", true);
    assert_eq!(who(site.http, "/"), "503");
    assert_eq!(site.stat("cluster.up.init_fetch_timeout"), 1);
    put(&file, "v1", &[site.a], Way::Rename);
    until_answers(site.http, "/", "a");
}

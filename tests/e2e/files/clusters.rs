//! Clusters.

use super::site::{
    Held, Site, WAYS, as_cluster, ask, cluster, eds_cluster, endpoints, http_listener, place,
    read_head, resources, routes, source, until_answers, who,
};
use crate::harness::eventually::until;
use crate::harness::{Program, client};
use baton_torture::files::{ResourceFile, Way};
use serde_json::{Value, json};
use std::io::Write as _;

/// A program whose clusters come from a file, with a route `/NAME` to each of `one`, `two` and `more`.
fn start(site: &Site, clusters: &[Value]) -> (Program, ResourceFile) {
    let file = site.file("clusters");
    put(&file, "v1", clusters, Way::Rename);
    let routes = [("/one", "one"), ("/two", "two"), ("/more", "more")];
    let dynamic = json!({ "dynamic_resources": { "cds_config": source(&file, &json!({})) } });
    let program = site.start(&[http_listener("http", site.http, &routes)], &[], &dynamic);
    (program, file)
}

fn put(file: &ResourceFile, version: &str, clusters: &[Value], way: Way) {
    let clusters: Vec<Value> = clusters.iter().cloned().map(as_cluster).collect();
    file.put(&resources(version, &clusters), way).expect("write the file");
}

fn faults(site: &Site) -> u64 {
    ["rejected", "failure"]
        .iter()
        .map(|end| site.stat(&format!("cluster_manager.cds.update_{end}")))
        .sum()
}

/// A cluster with other fields.
fn with(mut cluster: Value, name: &str, value: Value) -> Value {
    cluster.as_object_mut().expect("an object").insert(name.to_owned(), value);
    cluster
}

#[test]
fn clusters_change_by_rename_in_place_and_by_link_also_for_open_connections() {
    let site = Site::new();
    let (_program, file) = start(&site, &[cluster("one", site.a)]);
    let mut kept = client::connect(site.http).expect("connect");
    assert_eq!(ask(&mut kept, "/one").body, "a");
    for (number, way) in WAYS.into_iter().enumerate() {
        let (server, name) = if number % 2 == 0 { (site.b, "b") } else { (site.a, "a") };
        put(&file, name, &[cluster("one", server)], way);
        until_answers(site.http, "/one", name);
        assert_eq!(ask(&mut kept, "/one").body, name, "{way:?}");
    }
    assert!(site.stat("cluster_manager.cds.update_success") >= 5);
    assert_eq!(site.stat("cluster_manager.cluster_modified"), 4);
    assert_eq!(faults(&site), 0);
}

#[test]
fn clusters_come_and_go() {
    let site = Site::new();
    let (_program, file) = start(&site, &[cluster("one", site.a)]);
    assert_eq!(who(site.http, "/two"), "503", "nobody knows it");
    put(&file, "v2", &[cluster("one", site.a), cluster("two", site.b)], Way::Rename);
    until_answers(site.http, "/two", "b");
    assert_eq!(who(site.http, "/one"), "a");
    put(&file, "v3", &[cluster("two", site.b)], Way::Rename);
    until_answers(site.http, "/one", "503");
    assert_eq!(who(site.http, "/two"), "b");
    put(&file, "v4", &[cluster("two", site.b), cluster("one", site.b)], Way::Rename);
    until_answers(site.http, "/one", "b");
    site.until_stat("cluster_manager.active_clusters", 2);
    assert_eq!(site.stat("cluster_manager.cluster_removed"), 1);
    assert_eq!(site.stat("cluster_manager.cluster_added"), 3);
}

#[test]
fn a_request_gets_its_whole_answer_from_a_cluster_that_is_removed() {
    let site = Site::new();
    let held = Held::new();
    let (_program, file) = start(&site, &[cluster("one", held.address), cluster("two", site.b)]);
    let mut client = client::connect(site.http).expect("connect");
    client.write_all(b"GET /one HTTP/1.1\r\nhost: a\r\n\r\n").expect("ask");
    let mut server = held.accept();
    read_head(&mut server);
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").expect("begin");
    put(&file, "v2", &[cluster("two", site.b)], Way::Rename);
    until_answers(site.http, "/one", "503");
    server.write_all(b"later").expect("go on");
    assert_eq!(client::receive(&mut client).expect("the answer").body, "firstlater");
    client::assert_ended(&mut server);
    assert_eq!(ask(&mut client, "/two").body, "b");
}

#[test]
fn connections_to_a_cluster_stay_when_the_way_to_connect_is_the_same() {
    let site = Site::new();
    let held = Held::new();
    let one = cluster("one", held.address);
    let (_program, file) = start(&site, std::slice::from_ref(&one));
    let mut client = client::connect(site.http).expect("connect");
    let mut server = None;
    for number in 1..=3 {
        client.write_all(b"GET /one HTTP/1.1\r\nhost: a\r\n\r\n").expect("ask");
        let server = server.get_or_insert_with(|| held.accept());
        read_head(server);
        server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").expect("answer");
        assert_eq!(client::receive(&mut client).expect("the answer").body, "ok");
        let changed = with(one.clone(), "connect_timeout", json!(format!("{number}s")));
        put(&file, &number.to_string(), &[changed], Way::Rename);
        site.until_stat("cluster_manager.cluster_modified", number);
    }
    assert_eq!(site.stat("cluster.one.upstream_cx_total"), 1);
}

#[test]
fn the_good_clusters_of_a_file_apply_and_the_bad_ones_keep_their_last_good() {
    let site = Site::new();
    let (program, file) = start(&site, &[cluster("one", site.a)]);
    let bad = with(cluster("one", site.b), "lb_policy", json!("NONSENSE"));
    put(&file, "v2", &[bad, cluster("two", site.b)], Way::Rename);
    until_answers(site.http, "/two", "b");
    assert_eq!(who(site.http, "/one"), "a");
    site.until_stat("cluster_manager.cds.update_rejected", 1);
    let text = std::fs::read_to_string(file.path()).expect("the file");
    let begin = format!("{}:{}", file.path().display(), place(&text, "\"NONSENSE\""));
    until(&begin, || program.log().contains(&begin));
    put(&file, "v3", &[cluster("one", site.b), cluster("two", site.a)], Way::Rename);
    until_answers(site.http, "/one", "b");
    until_answers(site.http, "/two", "a");
}

#[test]
fn of_two_with_one_name_the_first_counts_and_one_of_another_type_is_left_out() {
    let site = Site::new();
    let (_program, file) = start(&site, &[cluster("one", site.a)]);
    let twice = [cluster("one", site.a), cluster("two", site.b), cluster("two", site.a)];
    put(&file, "v2", &twice, Way::Rename);
    until_answers(site.http, "/two", "b");
    site.until_stat("cluster_manager.cds.update_rejected", 1);
    assert_eq!(who(site.http, "/one"), "a");
    let mixed = [
        routes("other", &[]),
        as_cluster(cluster("more", site.b)),
        as_cluster(cluster("one", site.b)),
    ];
    file.put(&resources("v3", &mixed), Way::Rename).expect("write");
    until_answers(site.http, "/more", "b");
    until_answers(site.http, "/one", "b");
    site.until_stat("cluster_manager.cds.update_rejected", 2);
}

#[test]
fn a_file_that_is_no_file_of_clusters_changes_nothing() {
    let site = Site::new();
    let (program, file) = start(&site, &[cluster("one", site.a)]);
    let whole = resources("v2", &[as_cluster(cluster("one", site.b))]);
    let half = whole.get(..whole.len() / 2).expect("a half").to_owned();
    for (number, text) in [half, String::new(), "resources: 7".to_owned()].into_iter().enumerate() {
        file.put(&text, Way::Rename).expect("write");
        until("it was read", || faults(&site) == number as u64 + 1);
        assert_eq!(who(site.http, "/one"), "a");
    }
    let begin = format!("{}:", file.path().display());
    assert!(program.log().contains(&begin));
    // An empty list is a list.
    put(&file, "v3", &[], Way::Rename);
    until_answers(site.http, "/one", "503");
}

#[test]
fn a_new_cluster_is_used_once_its_endpoints_are_there() {
    let site = Site::new();
    let (_program, file) = start(&site, &[cluster("one", site.a)]);
    let of_two = site.file("endpoints");
    let forever = source(&of_two, &json!({ "initial_fetch_timeout": "0s" }));
    put(&file, "v2", &[cluster("one", site.a), eds_cluster("two", &forever)], Way::Rename);
    let warming = || {
        let dump = site.dump("ClustersConfigDump");
        let name = dump.pointer("/dynamic_warming_clusters/0/cluster/name");
        name.and_then(Value::as_str).map(str::to_owned)
    };
    until("it is shown as warming", || warming().as_deref() == Some("two"));
    assert_eq!(who(site.http, "/two"), "503");
    of_two.put(&resources("v1", &[endpoints("two", &[site.b])]), Way::Rename).expect("write");
    until_answers(site.http, "/two", "b");
    assert_eq!(warming(), None);
}

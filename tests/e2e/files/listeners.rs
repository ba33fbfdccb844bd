//! Listeners.

use super::site::{
    Held, Site, WAYS, as_cluster, as_listener, ask, cluster, http_listener, place, read_head,
    resources, say, source, tcp_listener, until_answers, who,
};
use crate::harness::eventually::{eventually, until};
use crate::harness::lab::free_address;
use crate::harness::program::send;
use crate::harness::{Program, client, proc};
use baton_torture::files::{ResourceFile, Way};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A program whose listeners come from a file, with the clusters `a` and `b`.
fn start(site: &Site, a: SocketAddr, listeners: &[Value]) -> (Program, ResourceFile) {
    let file = site.file("listeners");
    put(&file, "v1", listeners, Way::Rename);
    let dynamic = json!({ "dynamic_resources": { "lds_config": source(&file, &json!({})) } });
    let program = site.start(&[], &[cluster("a", a), cluster("b", site.b)], &dynamic);
    (program, file)
}

fn put(file: &ResourceFile, version: &str, listeners: &[Value], way: Way) {
    let listeners: Vec<Value> = listeners.iter().cloned().map(as_listener).collect();
    file.put(&resources(version, &listeners), way).expect("write the file");
}

fn faults(site: &Site) -> u64 {
    ["rejected", "failure"]
        .iter()
        .map(|end| site.stat(&format!("listener_manager.lds.update_{end}")))
        .sum()
}

fn edge(site: &Site, cluster: &str) -> Value {
    http_listener("edge", site.http, &[("/", cluster)])
}

fn until_refused(address: SocketAddr) {
    eventually("nobody listens", || match TcpStream::connect(address) {
        Ok(_) => Err("somebody does".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error.to_string()),
    });
}

#[test]
fn listeners_change_by_rename_in_place_and_by_link_and_open_connections_keep_what_they_have() {
    let site = Site::new();
    let (_program, file) = start(&site, site.a, &[edge(&site, "a")]);
    let mut kept = client::connect(site.http).expect("connect");
    assert_eq!(ask(&mut kept, "/").body, "a");
    for (number, way) in WAYS.into_iter().enumerate() {
        let name = if number % 2 == 0 { "b" } else { "a" };
        put(&file, name, &[edge(&site, name)], way);
        until_answers(site.http, "/", name);
        assert_eq!(ask(&mut kept, "/").body, "a", "{way:?}");
    }
    assert!(site.stat("listener_manager.lds.update_success") >= 5);
    assert_eq!(site.stat("listener_manager.listener_modified"), 4);
    assert_eq!(faults(&site), 0);
}

#[test]
fn a_listener_comes_and_goes_and_open_connections_finish() {
    let site = Site::new();
    let held = Held::new();
    let tunnels = tcp_listener("tunnels", site.tcp, "a");
    let (_program, file) = start(&site, held.address, &[edge(&site, "a")]);
    put(&file, "v2", &[edge(&site, "a"), tunnels], Way::Rename);
    let mut tunnel = eventually("the listener is there", || {
        client::connect(site.tcp).map_err(|error| error.to_string())
    });
    let mut end = held.accept();
    say(&mut tunnel, &mut end, b"before");
    let mut client = client::connect(site.http).expect("connect");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("ask");
    let mut server = held.accept();
    read_head(&mut server);
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").expect("begin");

    put(&file, "v3", &[], Way::Rename);
    until_refused(site.tcp);
    until_refused(site.http);
    say(&mut tunnel, &mut end, b"after");
    server.write_all(b"later").expect("go on");
    assert_eq!(client::receive(&mut client).expect("the answer").body, "firstlater");
    assert_eq!(site.stat("listener_manager.listener_removed"), 2);

    put(&file, "v4", &[edge(&site, "b")], Way::Rename);
    until_answers(site.http, "/", "b");
    say(&mut tunnel, &mut end, b"and still");
}

#[test]
fn clients_in_the_queue_of_a_listener_that_is_removed_are_served() {
    let site = Site::new();
    let (program, file) = start(&site, site.a, &[edge(&site, "a")]);
    let (_, worker) = program.serving_now();
    for version in ["v2", "v4", "v6"] {
        send(worker, Signal::SIGSTOP);
        until("the worker stands still", || proc::is_stopped(worker));
        let mut waiting: Vec<TcpStream> =
            (0..20).map(|_| client::connect(site.http).expect("the queue takes it")).collect();
        for client in &mut waiting {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("ask");
        }
        put(&file, version, &[], Way::Rename);
        send(worker, Signal::SIGCONT);
        for client in &mut waiting {
            assert_eq!(client::receive(client).expect("an answer").body, "a");
        }
        until_refused(site.http);
        put(&file, &format!("{version} and back"), &[edge(&site, "a")], Way::Rename);
        until_answers(site.http, "/", "a");
    }
}

#[test]
fn a_listener_moves_to_another_address() {
    let site = Site::new();
    let (_program, file) = start(&site, site.a, &[edge(&site, "a")]);
    let mut kept = client::connect(site.http).expect("connect");
    assert_eq!(ask(&mut kept, "/").body, "a");
    let elsewhere = free_address();
    put(&file, "v2", &[http_listener("edge", elsewhere, &[("/", "b")])], Way::Rename);
    until_answers(elsewhere, "/", "b");
    until_refused(site.http);
    // The place is free for another name.
    let other = http_listener("other", site.http, &[("/", "b")]);
    put(&file, "v3", &[http_listener("edge", elsewhere, &[("/", "a")]), other], Way::Rename);
    until_answers(site.http, "/", "b");
    until_answers(elsewhere, "/", "a");
}

#[test]
fn a_port_that_is_taken_keeps_only_its_own_listener_away() {
    let site = Site::new();
    let (program, file) = start(&site, site.a, &[edge(&site, "a")]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address");
    let wanted = || http_listener("wanted", address, &[("/", "b")]);
    put(&file, "v2", &[wanted(), edge(&site, "b")], Way::Rename);
    until_answers(site.http, "/", "b");
    site.until_stat("listener_manager.lds.update_rejected", 1);
    let dump = site.dump("ListenersConfigDump");
    let listeners = dump.get("dynamic_listeners").and_then(Value::as_array).expect("listeners");
    let found = listeners.iter().find(|one| one.get("name") == Some(&json!("wanted")));
    let details = found.and_then(|one| one.pointer("/error_state/details")).and_then(Value::as_str);
    let details = details.unwrap_or_else(|| panic!("no error_state: {dump}"));
    assert!(details.contains(&address.to_string()), "{details}");
    assert!(program.log().contains(&address.to_string()));

    drop(taken);
    put(&file, "v3", &[wanted(), edge(&site, "b")], Way::Rename);
    until_answers(address, "/", "b");
}

#[test]
fn the_good_listeners_of_a_file_apply_and_the_bad_ones_keep_their_last_good() {
    let site = Site::new();
    let (program, file) = start(&site, site.a, &[edge(&site, "a")]);
    let mut bad = edge(&site, "b");
    let fields = bad.as_object_mut().expect("an object");
    fields.insert("filter_chains".to_owned(), json!("NONSENSE"));
    let second = free_address();
    let good = || http_listener("second", second, &[("/", "b")]);
    put(&file, "v2", &[bad, good()], Way::Rename);
    until_answers(second, "/", "b");
    assert_eq!(who(site.http, "/"), "a");
    site.until_stat("listener_manager.lds.update_rejected", 1);
    let text = std::fs::read_to_string(file.path()).expect("the file");
    let begin = format!("{}:{}", file.path().display(), place(&text, "\"NONSENSE\""));
    until(&begin, || program.log().contains(&begin));
    // What is wrong with it is told until it is mended.
    let dump = site.dump("ListenersConfigDump");
    assert!(dump.pointer("/dynamic_listeners/0/error_state").is_some(), "{dump}");
    put(&file, "v3", &[edge(&site, "b"), good()], Way::Rename);
    until_answers(site.http, "/", "b");
    let dump = site.dump("ListenersConfigDump");
    assert!(!dump.to_string().contains("error_state"), "{dump}");
}

#[test]
fn of_two_with_one_name_the_first_counts_and_one_of_another_type_is_left_out() {
    let site = Site::new();
    let (_program, file) = start(&site, site.a, &[edge(&site, "a")]);
    let (second, third) = (free_address(), free_address());
    let twice = [
        edge(&site, "a"),
        http_listener("second", second, &[("/", "b")]),
        http_listener("second", third, &[("/", "b")]),
    ];
    put(&file, "v2", &twice, Way::Rename);
    until_answers(second, "/", "b");
    site.until_stat("listener_manager.lds.update_rejected", 1);
    until_refused(third);
    let mixed = [
        as_cluster(cluster("c", site.b)),
        as_listener(http_listener("third", third, &[("/", "b")])),
        as_listener(edge(&site, "b")),
    ];
    file.put(&resources("v3", &mixed), Way::Rename).expect("write");
    until_answers(third, "/", "b");
    until_answers(site.http, "/", "b");
    site.until_stat("listener_manager.lds.update_rejected", 2);
}

#[test]
fn a_file_that_is_no_file_of_listeners_changes_nothing() {
    let site = Site::new();
    let (program, file) = start(&site, site.a, &[edge(&site, "a")]);
    let whole = resources("v2", &[as_listener(edge(&site, "b"))]);
    let half = whole.get(..whole.len() / 2).expect("a half").to_owned();
    for (number, text) in [half, String::new(), "resources: 7".to_owned()].into_iter().enumerate() {
        file.put(&text, Way::Rename).expect("write");
        until("it was read", || faults(&site) == number as u64 + 1);
        assert_eq!(who(site.http, "/"), "a");
    }
    let begin = format!("{}:", file.path().display());
    assert!(program.log().contains(&begin));
}

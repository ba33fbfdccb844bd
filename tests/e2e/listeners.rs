//! Listeners and their number change under load, and the kernel counts no reset and no drop.
//!
//! The counters belong to a network namespace and count everybody in it, so the test starts itself
//! again in a namespace of its own. Where that is not allowed it fails and says so.

use crate::harness::lab::{free_address, let_clients_work};
use crate::harness::program::send;
use crate::harness::{Lab, Program, client, proc};
use crate::queue::{assert_all_served, fill, freeze};
use baton_torture::Counters;
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{env, fs, thread};

/// Names the network namespace of the test that started this one.
const OUTSIDE: &str = "BATON_TEST_OUTSIDE";
/// Clients that connect for each request.
const CLIENTS: usize = 3;

fn namespace() -> PathBuf {
    fs::read_link("/proc/self/ns/net").expect("the network namespace")
}

#[test]
fn listeners_change_and_the_kernel_counts_no_reset() {
    if let Ok(outside) = env::var(OUTSIDE) {
        let own = namespace();
        assert!(
            own != outside,
            "no network namespace is to be had here, and without one nothing is proved"
        );
        under_load();
        with_full_queues();
        return;
    }
    let output = Command::new("bash")
        .args(["-c", ". scripts/lib.sh && in_own_network \"$@\"", "listeners"])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "listeners::listeners_change_and_the_kernel_counts_no_reset"])
        .args(["--nocapture", "--test-threads=1"])
        .env(OUTSIDE, namespace())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("bash");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    eprintln!("{text}");
}

/// Runs `event` while clients connect for each request; nobody may notice.
fn quietly(what: &str, lab: &Lab, program: &Program, event: impl FnOnce()) {
    let before = Counters::read();
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = lab.config.http;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let response = client::request(address, "GET", "/echo/2/100");
                    assert_eq!(response.expect("a response").status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let_clients_work();
    event();
    let_clients_work();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().is_ok(), "{what}: a client lost something");
    }
    program.wait_until_alone();
    let served = served.load(Ordering::Relaxed);
    assert!(served > CLIENTS, "{what}: only {served} requests");
    let moved = Counters::read().moved(&before);
    assert!(moved.is_empty(), "{what}: {moved:?} after {served} requests");
    eprintln!("{what}: {served} requests, nothing lost, no reset");
}

/// The configuration with a second listener.
fn with_second(lab: &Lab, address: SocketAddr) -> String {
    let text = lab.config.text();
    let (before, after) = text.split_once("    - name: tcp\n").expect("the TCP listener");
    let (head, block) = before.split_once("    - name: http\n").expect("the HTTP listener");
    let second = block.replace(
        &format!("port_value: {}", lab.config.http.port()),
        &format!("port_value: {}", address.port()),
    );
    format!("{head}    - name: http\n{block}    - name: second\n{second}    - name: tcp\n{after}")
}

/// The configuration with these lines in the HTTP listener.
fn with_options(lab: &Lab, options: &[&str]) -> String {
    let lines = [&["    - name: http"], options].concat().join("\n      ");
    lab.config.text().replacen("    - name: http\n", &format!("{lines}\n"), 1)
}

fn under_load() {
    let lab = Lab::new();
    let program = lab.start_with(&["--probation-s", "1"]);
    let reload = |text: &str| {
        program.write_config(text);
        program.reload();
    };
    let (first, second) = (free_address(), free_address());
    quietly("add a listener", &lab, &program, || {
        reload(&with_second(&lab, first));
        assert_eq!(client::get(first, "/echo/2/10").status, 200);
    });
    quietly("change its address", &lab, &program, || {
        reload(&with_second(&lab, second));
        assert_eq!(client::get(second, "/echo/2/10").status, 200);
    });
    quietly("remove it", &lab, &program, || reload(&lab.config.text()));
    let options = [
        &["tcp_backlog_size: 64", "tcp_keepalive: { keepalive_time: 77 }"][..],
        &["freebind: true", "transparent: true", "tcp_fast_open_queue_length: 9"],
        &["tcp_fast_open_queue_length: 3"],
        &[],
    ];
    for options in options {
        let what = format!("socket options {options:?}");
        quietly(&what, &lab, &program, || reload(&with_options(&lab, options)));
    }
    for threads in ["1", "8", "1", "8", "1"] {
        quietly(&format!("{threads} threads"), &lab, &program, || {
            let (code, text) = program.reload_with(&["--concurrency", threads]);
            assert_eq!(code, 0, "{text}");
        });
    }
}

/// Connections in the accept queue of each socket that listens on this port.
fn queues(address: SocketAddr) -> Vec<usize> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the sockets of this namespace");
    let local = format!(":{:04X}", address.port());
    let queue = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, place, _, "0A", sizes, ..] = fields.as_slice() else { return None };
        let waiting = sizes.split_once(':').filter(|_| place.ends_with(&local))?.1;
        usize::from_str_radix(waiting, 16).ok()
    };
    table.lines().filter_map(queue).collect()
}

/// Fills every queue of the listener while the worker stands still, lets `event` happen, and wakes
/// the worker: everybody who waited is served.
fn while_nobody_accepts(what: &str, address: SocketAddr, program: &Program, event: impl FnOnce()) {
    let before = Counters::read();
    let (_, worker) = program.serving_now();
    freeze(worker);
    let streams = fill(address);
    let waiting = queues(address);
    assert!(waiting.len() > 1 && waiting.iter().all(|queue| *queue > 0), "{what}: {waiting:?}");
    // The worker that stands still confirms nothing, so a verdict is not the point here.
    event();
    send(worker, Signal::SIGCONT);
    assert_all_served(streams, what);
    until_gone(worker);
    let moved = Counters::read().moved(&before);
    assert!(moved.is_empty(), "{what}: {moved:?} with {waiting:?} in the queues");
    eprintln!("{what}: {waiting:?} in the queues, all served, no reset");
}

fn until_gone(worker: u32) {
    crate::harness::eventually::until("the older generation ends", || !proc::is_alive(worker));
}

fn with_full_queues() {
    let lab = Lab::new();
    let mut program = lab.start_with(&["--concurrency", "4", "--probation-s", "1"]);
    let http = lab.config.http;
    while_nobody_accepts("reload", http, &program, || drop(program.reload_with(&[])));
    for threads in ["8", "1"] {
        let concurrency = ["--concurrency", threads];
        while_nobody_accepts(&format!("{threads} threads"), http, &program, || {
            drop(program.reload_with(&concurrency));
        });
    }
    let second = free_address();
    program.write_config(&with_second(&lab, second));
    program.reload();
    program.wait_until_alone();
    while_nobody_accepts("remove", second, &program, || {
        program.write_config(&lab.config.text());
        drop(program.reload_with(&[]));
    });
    program.wait_until_alone();
    while_nobody_accepts("stop", http, &program, || {
        program.signal(Signal::SIGTERM);
        program.wait_until_stopping();
    });
    assert_eq!(program.wait().code(), Some(0));
}

//! The program's own account must agree with the clients' at every moment that can be compared.

use crate::harness::eventually::eventually;
use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::{Lab, Program, client};
use std::collections::BTreeMap;
use std::io::Write as _;

/// All numbers of `/stats`.
pub fn stats(lab: &Lab) -> BTreeMap<String, u64> {
    let text = client::get(lab.config.admin, "/stats").body;
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn sum(stats: &BTreeMap<String, u64>, prefix: &str) -> u64 {
    stats.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
}

#[test]
fn opened_is_open_plus_ended_over_reloads_and_agrees_with_the_clients() {
    let lab = Lab::new();
    let program = lab.start();
    let load = lab.load();
    for _ in 0..4 {
        program.reload();
        let_clients_work();
    }
    let seen = assert_nothing_lost(load);
    eventually("the ledger balances", || {
        let stats = stats(&lab);
        let opened = sum(&stats, "baton.connections.opened");
        let open = sum(&stats, "baton.connections.open.");
        let ended = sum(&stats, "baton.connections.ended.");
        if opened != open + ended {
            return Err(format!("opened {opened}, open {open}, ended {ended}"));
        }
        // A connection that moved was opened once by its client, and once more where it went.
        let migrated = sum(&stats, "baton.connections.ended.migrated");
        if opened < seen.connections + migrated {
            let clients = seen.connections;
            return Err(format!("opened {opened}, clients {clients}, migrated {migrated}"));
        }
        if open > 0 {
            return Err(format!("{open} connections are open after all clients left"));
        }
        let cut = stats.get("baton.connections.ended.cut_by_deadline").copied().unwrap_or(0);
        let crashed = stats.get("baton.connections.ended.crash").copied().unwrap_or(0);
        if cut + crashed > 0 {
            return Err(format!("cut {cut}, crash {crashed}"));
        }
        Ok(())
    });
}

#[test]
fn counters_and_histograms_go_on_over_a_reload() {
    let lab = Lab::new();
    let program = lab.start();
    let name = "http.ingress_http.downstream_rq_2xx";
    for _ in 0..3 {
        for _ in 0..10 {
            assert_eq!(client::get(lab.config.http, "/echo/2/10").status, 200);
        }
        program.reload();
    }
    eventually("30 requests are counted", || {
        let found = stats(&lab).get(name).copied().unwrap_or(0);
        if found == 30 { Ok(()) } else { Err(format!("{name}: {found}")) }
    });
    let prometheus = client::get(lab.config.admin, "/stats/prometheus").body;
    let histogram = prometheus
        .lines()
        .find(|line| line.starts_with("envoy_http_downstream_rq_time_count"))
        .unwrap_or_default();
    assert!(histogram.ends_with(" 30"), "{histogram}");
}

#[test]
fn a_verdict_and_the_status_count_as_the_ledger_and_the_clients_do_whoever_dies() {
    let lab = Lab::new();
    let mut program = lab.start_with(&["--crash-escrow", "off", "--probation-s", "0"]);
    let mut clients: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = client::connect(lab.config.http).expect("connect");
            write!(stream, "GET /echo/2/10 HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("send");
            assert_eq!(client::receive(&mut stream).expect("a response").status, 200);
            stream
        })
        .collect();
    program.reload();
    program.wait_until_alone();
    let ended =
        |reason: &str| stats(&lab).get(&format!("baton.connections.ended.{reason}")).copied();
    let before = ended("client").expect("a counter");
    clients.truncate(3);
    eventually("two clients have left", || match ended("client") {
        Some(count) if count == before + 2 => Ok(()),
        other => Err(format!("{other:?} ended, {before} before")),
    });
    // What the worker said about itself last was said before.
    program.set_fault("pause:kill:1");
    let (code, text) = program.reload_with(&[]);
    assert_eq!(code, 0, "{text}");
    assert!(program.clear_fault(), "the order was not obeyed");
    assert!(text.contains("moved 0, draining 0, drained 0, cut 3"), "{text}");
    for client in &mut clients {
        assert!(client::receive(client).is_err(), "its worker is dead");
    }
    let past = |program: &Program| {
        let past = &program.status().expect("status")["past"];
        let number = |value: &serde_json::Value| value.as_u64();
        (number(&past["moved"]), number(&past["moved_kinds"]["http1"]), number(&past["cut"]))
    };
    let expected = (Some(5), Some(5), Some(3));
    assert_eq!((past(&program), ended("crash")), (expected, Some(3)));
    program.kill_supervisor();
    program.launch_again();
    program.wait_until_serving();
    assert_eq!((past(&program), ended("crash")), (expected, Some(3)), "a new supervisor knows it");
}

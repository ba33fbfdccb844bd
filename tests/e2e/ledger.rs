//! The program's own account must agree with the clients' at every moment that can be compared.

use crate::harness::eventually::eventually;
use crate::harness::lab::{assert_nothing_lost, let_clients_work};
use crate::harness::{Lab, client};
use std::collections::BTreeMap;

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

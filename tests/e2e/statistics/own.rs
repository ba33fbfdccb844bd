//! The same for the statistics that Envoy does not have, each by its labels.

use std::collections::BTreeMap;

use super::house::{House, open};
use super::{START, Scenario, walk};
use crate::harness::client;

/// What no user can make move by what clients and endpoints do; other tests do.
const ELSEWHERE: &[&str] = &[
    // A fault of this program: `a_connection_that_does_not_get_further_is_cut_and_counted`.
    "baton_connections_stuck",
    // Descriptors run out: `limits`.
    "baton_descriptors_connect_failed",
    "baton_descriptors_refused",
    // There are more connections than the supervisor has descriptors for, or no pipes: tests of the tunnel.
    "baton_escrow_failed",
    "baton_escrow_full",
    // Disks that are full: `a_log_that_takes_no_more_is_told_and_counted`.
    "baton_log_lost{log=\"access\"}",
    "baton_log_lost{log=\"program\"}",
    // Two generations that do not understand each other, or of which one does not answer:
    // `every_reason_has_a_counter_of_its_own`.
    "baton_migration_stayed{reason=\"config\"}",
    "baton_migration_stayed{reason=\"malformed\"}",
    "baton_migration_stayed{reason=\"no_peer\"}",
    "baton_migration_stayed{reason=\"overload\"}",
    "baton_migration_stayed{reason=\"timeout\"}",
    "baton_migration_stayed{reason=\"version\"}",
    // Tens of thousands of names: `shared_limits`.
    "baton_stats_overflow",
];

const SCENARIOS: &[Scenario] = &[
    (
        START,
        House::name,
        &[
            "baton_descriptors_connections_max",
            "baton_descriptors_limit",
            "baton_generations",
            "baton_supervisor_generations",
        ],
    ),
    (
        "a connection of each kind",
        House::each_kind,
        &[
            "baton_connections_open{kind=\"http1\"}",
            "baton_connections_open{kind=\"tcp\"}",
            "baton_connections_open{kind=\"upgraded\"}",
            "baton_connections_opened",
            "baton_generation_connections",
        ],
    ),
    (
        "a client that is gone",
        |house| house.reset("/hang"),
        &["baton_connections_ended{reason=\"client\"}"],
    ),
    (
        "an endpoint that is gone",
        |house| house.get_half("/half"),
        &["baton_connections_ended{reason=\"upstream\"}"],
    ),
    (
        "a tunnel with nothing to say",
        |house| open(house.tcp_idle),
        &["baton_connections_ended{reason=\"timeout\"}"],
    ),
    (
        "a reload",
        House::move_all,
        &[
            "baton_connections_ended{reason=\"migrated\"}",
            "baton_migration_freeze_us",
            "baton_migration_imported",
            "baton_migration_moved{kind=\"http1\"}",
            "baton_migration_moved{kind=\"pooled\"}",
            "baton_migration_moved{kind=\"tcp\"}",
            "baton_migration_moved{kind=\"upgraded\"}",
            "baton_supervisor_reload_success",
        ],
    ),
    (
        "a connection that cannot move",
        House::stay,
        &[
            "baton_connections_ended{reason=\"cut_by_deadline\"}",
            "baton_generation_drain_remaining_ms",
        ],
    ),
    (
        "a connection that ends where it stayed",
        House::end_busy,
        &["baton_migration_stayed{reason=\"busy\"}"],
    ),
    (
        "a listener that is gone",
        House::leave,
        &[
            "baton_connections_ended{reason=\"drained\"}",
            "baton_migration_stayed{reason=\"no_listener\"}",
            "baton_migration_thawed",
        ],
    ),
    ("a configuration that is wrong", House::spoil, &["baton_supervisor_reload_failure"]),
    (
        "a tunnel that is kept over crashes",
        House::tunnel,
        &["baton_escrow_deposited", "baton_supervisor_connections_in_escrow"],
    ),
    (
        "a worker that is killed",
        House::kill,
        &["baton_connections_ended{reason=\"crash\"}", "baton_supervisor_worker_respawn"],
    ),
];

/// What each series of ours has; of a histogram the count. Generations are added up.
fn series(house: &House) -> BTreeMap<String, f64> {
    let text = client::get(house.admin, "/stats/prometheus").body;
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("baton_")) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let name = name.trim_end_matches("{}");
        if name.contains("_bucket{") || name.ends_with("_sum") {
            continue;
        }
        let family = name.split('{').next().unwrap_or_default();
        let name = if family.starts_with("baton_generation_") { family } else { name };
        let name = name.strip_suffix("_count").unwrap_or(name);
        *series.entry(name.to_owned()).or_default() += value.parse::<f64>().expect("a number");
    }
    series
}

#[test]
fn every_statistic_of_our_own_moves_when_what_it_counts_happens() {
    let times = ["--probation-s", "0", "--drain-time-s", "1", "--parent-shutdown-time-s", "6"];
    let arguments = [&["--on-removed", "drain"][..], &times].concat();
    walk(&House::start(&arguments), SCENARIOS, ELSEWHERE, series);
}

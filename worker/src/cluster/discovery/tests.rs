//! DNS discovery against a resolver whose answers the test chooses.

use std::{collections::HashMap, net::Ipv4Addr, sync::atomic::AtomicU64};

use super::*;
use crate::{
    cluster::{ClusterManager, report::Reporter, resolver::Query},
    config::{
        cluster::{Balancer, Cluster, DnsFamily},
        model::{Bootstrap, ClusterIndex},
    },
    stats::{MembershipStats, ThreadStats},
};

/// Answers from a table; a name that is not in it fails, `hang.test` never answers.
#[derive(Debug, Default)]
struct Fake {
    answers: Mutex<HashMap<String, Vec<u8>>>,
    queries: AtomicU64,
}

impl Fake {
    fn set(&self, name: &str, last_octets: &[u8]) {
        self.answers.lock().unwrap().insert(name.to_owned(), last_octets.to_vec());
    }

    fn fail(&self, name: &str) {
        self.answers.lock().unwrap().remove(name);
    }
}

impl Resolve for Fake {
    fn resolve<'a>(&'a self, name: &'a str, _family: DnsFamily) -> Query<'a> {
        self.queries.fetch_add(1, Relaxed);
        let answer = self.answers.lock().unwrap().get(name).cloned();
        Box::pin(async move {
            if name == "hang.test" {
                std::future::pending::<()>().await;
            }
            let octets = answer.ok_or_else(|| ResolveError::NoAddress(name.to_owned()))?;
            let addresses = octets.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last).into());
            Ok(Answer { addresses: addresses.collect(), ttl: Duration::from_secs(7) })
        })
    }
}

fn endpoint(host: &str) -> EndpointConfig {
    let address = match host.parse() {
        Ok(address) => Address::Ip(address),
        Err(_) => Address::Name { host: host.to_owned(), port: 80 },
    };
    EndpointConfig { address, hostname: String::new(), weight: 1, priority: 0, zone: String::new() }
}

fn cluster(discovery: config::cluster::Discovery, hosts: &[&str]) -> Cluster {
    Cluster {
        name: "c".to_owned(),
        stat_name: "c".to_owned(),
        discovery,
        balancer: Balancer::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        endpoints: hosts.iter().map(|host| endpoint(host)).collect(),
        dns_refresh: Duration::from_secs(5),
        respect_dns_ttl: false,
        dns_family: DnsFamily::Auto,
        keepalive: None,
        idle_timeout: None,
        max_requests_per_connection: None,
        source_address: None,
        buffer_limit_bytes: 1024 * 1024,
    }
}

struct Rig {
    fake: Arc<Fake>,
    manager: Arc<ClusterManager>,
}

fn rig(clusters: Vec<Cluster>) -> Rig {
    let fake = Arc::new(Fake::default());
    let bootstrap = Bootstrap {
        clusters: clusters.into_iter().map(Arc::new).collect(),
        ..Bootstrap::default()
    };
    let resolver: Arc<dyn Resolve> = Arc::<Fake>::clone(&fake);
    Rig { manager: ClusterManager::with_resolver(&bootstrap, &resolver), fake }
}

impl Rig {
    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.manager.table().get(ClusterIndex(0)).unwrap().endpoints.load().endpoints.clone()
    }

    fn addresses(&self) -> Vec<String> {
        self.endpoints().iter().map(|endpoint| endpoint.address().to_string()).collect()
    }
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Lets the refresh run until something is so.
async fn refresh_until(rig: &Rig, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = rig.manager.run_refresh() => unreachable!("it never returns"),
        waited = tokio::time::timeout(Duration::from_secs(10), waiting) => waited.expect("in time"),
    }
}

use config::cluster::Discovery::{LogicalDns, Static, StrictDns};

#[test]
fn literal_addresses_are_there_at_once_and_nobody_is_asked() {
    block_on(async {
        let strict = cluster(StrictDns, &["127.0.0.1:81", "127.0.0.2"]);
        let rig = rig(vec![strict, cluster(Static, &["127.0.0.1:82"])]);
        rig.manager.warm(Duration::ZERO, Wait::FirstResult).await;
        assert_eq!(rig.addresses(), ["127.0.0.1:81", "127.0.0.2:80"]);
        let refreshed = tokio::time::timeout(Duration::from_millis(5), rig.manager.run_refresh());
        assert!(refreshed.await.is_err());
        assert_eq!(rig.fake.queries.load(Relaxed), 0);
    });
}

#[test]
fn strict_dns_makes_every_address_an_endpoint_and_keeps_those_that_stay() {
    block_on(async {
        let rig = rig(vec![cluster(StrictDns, &["a.test", "10.0.0.9:80"])]);
        rig.fake.set("a.test", &[2, 1]);
        rig.manager.warm(Duration::from_secs(1), Wait::FirstResult).await;
        assert_eq!(rig.addresses(), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"]);
        let before = rig.endpoints();
        let version = rig.manager.table().get(ClusterIndex(0)).unwrap().endpoints.load().version;
        let discovery = &rig.manager.discoveries()[0];

        rig.fake.set("a.test", &[1, 2]);
        discovery.ask(0).await;
        let set = rig.manager.table().get(ClusterIndex(0)).unwrap().endpoints.load_full();
        assert_eq!(set.version, version, "another order is no change");

        rig.fake.set("a.test", &[2, 3, 9]);
        discovery.ask(0).await;
        assert_eq!(rig.addresses(), ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.9:80"]);
        let after = rig.endpoints();
        assert_eq!(after[0].id, before[1].id);
        assert!(
            rig.manager.table().get(ClusterIndex(0)).unwrap().endpoints.load().version > version
        );
    });
}

#[test]
fn a_failure_keeps_the_last_good_answer() {
    block_on(async {
        let rig = rig(vec![cluster(StrictDns, &["a.test"])]);
        rig.fake.set("a.test", &[1]);
        rig.manager.warm(Duration::from_secs(1), Wait::FirstResult).await;
        let id = rig.endpoints()[0].id;
        rig.fake.fail("a.test");
        let discovery = &rig.manager.discoveries()[0];
        discovery.ask(0).await;
        discovery.ask(0).await;
        assert_eq!(discovery.lock()[0].failures, 2);
        assert_eq!(rig.endpoints()[0].id, id);
        rig.fake.set("a.test", &[1, 2]);
        discovery.ask(0).await;
        assert_eq!(rig.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!(rig.endpoints()[0].id, id);
        assert_eq!(discovery.lock()[0].failures, 0);

        let stats = ThreadStats::detached();
        let mut reporter = Reporter::new(&rig.manager, &stats);
        reporter.report();
        reporter.report();
        let stats = MembershipStats::new(&stats, "c");
        assert_eq!(stats.update_attempt.value(), 4);
        assert_eq!(stats.update_success.value(), 2);
        assert_eq!((stats.update_failure.value(), stats.update_empty.value()), (2, 2));
        assert_eq!(stats.membership_change.value(), 2);
        assert_eq!((stats.membership_total.value(), stats.membership_healthy.value()), (2, 2));
    });
}

#[test]
fn logical_dns_moves_its_one_endpoint_to_the_newest_address() {
    block_on(async {
        let rig = rig(vec![cluster(LogicalDns, &["a.test"])]);
        rig.fake.set("a.test", &[1, 2]);
        rig.manager.warm(Duration::from_secs(1), Wait::FirstResult).await;
        let endpoint = Arc::clone(&rig.endpoints()[0]);
        assert_eq!(
            (rig.addresses(), &*endpoint.info.hostname),
            (vec!["10.0.0.1:80".into()], "a.test")
        );
        rig.fake.set("a.test", &[3]);
        rig.manager.discoveries()[0].ask(0).await;
        assert_eq!(endpoint.address().to_string(), "10.0.0.3:80");
        assert_eq!(rig.endpoints()[0].id, endpoint.id);
    });
}

#[test]
fn a_name_that_does_not_answer_delays_the_start_no_longer_than_the_timeout() {
    block_on(async {
        let strict = cluster(StrictDns, &["10.0.0.1:80", "hang.test"]);
        let rig = rig(vec![strict, cluster(LogicalDns, &["fails.test"])]);
        rig.manager.warm(Duration::from_millis(50), Wait::FirstResult).await;
        assert_eq!(rig.addresses(), ["10.0.0.1:80"]);
        assert!(
            rig.manager.table().get(ClusterIndex(1)).unwrap().endpoints.load().endpoints.is_empty()
        );
    });
}

#[test]
fn a_fast_failure_ends_the_wait_only_when_nothing_is_served_meanwhile() {
    block_on(async {
        let rig = rig(vec![cluster(StrictDns, &["a.test"])]);
        rig.manager.warm(Duration::from_secs(60), Wait::FirstResult).await;
        assert_eq!(rig.fake.queries.load(Relaxed), 1);
        let missing = rig.manager.missing().join("|");
        let expected =
            "cluster `c` has no address: `a.test` does not resolve (`a.test` has no address)";
        assert_eq!(missing, expected);
        let comes_back = async {
            while rig.fake.queries.load(Relaxed) < 4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            rig.fake.set("a.test", &[1]);
        };
        tokio::join!(rig.manager.warm(Duration::from_secs(60), Wait::Address), comes_back);
        assert_eq!((rig.addresses(), rig.manager.missing()), (vec!["10.0.0.1:80".into()], vec![]));
    });
}

#[test]
fn the_first_question_after_a_start_that_failed_comes_soon() {
    block_on(async {
        let rig = rig(vec![cluster(StrictDns, &["a.test"])]);
        rig.manager.warm(Duration::from_millis(500), Wait::Address).await;
        assert!(rig.fake.queries.load(Relaxed) > 1);
        let due = rig.manager.discoveries()[0].lock()[0].due.expect("it is known");
        assert!(due <= clock::now() + Duration::from_secs(2));
    });
}

#[test]
fn a_generation_inherits_addresses_of_the_same_name_and_cluster_and_tells_them_on() {
    block_on(async {
        let old = rig(vec![cluster(StrictDns, &["a.test", "b.test"])]);
        old.fake.set("a.test", &[2, 1]);
        old.manager.warm(Duration::from_secs(1), Wait::FirstResult).await;
        let known = old.manager.take_news();
        let counts: Vec<_> = known.iter().map(|answer| answer.addresses.len()).collect();
        assert_eq!(counts, [2, 0], "{known:?}");
        assert!(old.manager.take_news().is_empty(), "nothing changed");
        old.manager.discoveries()[0].ask(0).await;
        assert!(old.manager.take_news().is_empty(), "the same answer is no news");
        old.manager.tell_again();
        assert_eq!(old.manager.take_news(), known);

        let new = rig(vec![cluster(StrictDns, &["a.test", "b.test"])]);
        new.manager.inherit(&known);
        new.manager.warm(Duration::from_secs(60), Wait::Address).await;
        assert_eq!(new.addresses(), ["10.0.0.1:80", "10.0.0.2:80"]);
        assert_eq!((new.manager.inherited().len(), new.manager.missing()), (1, vec![]));
        assert_eq!(new.manager.take_news(), known);
        new.fake.set("a.test", &[3]);
        new.manager.discoveries()[0].ask(0).await;
        assert_eq!(new.addresses(), ["10.0.0.3:80"], "an answer is better");
        assert_eq!(new.manager.inherited(), Vec::<String>::new());

        let v6 = Cluster { dns_family: DnsFamily::V6Only, ..cluster(LogicalDns, &["a.test"]) };
        let other = Cluster { name: "d".to_owned(), ..cluster(LogicalDns, &["a.test"]) };
        for stranger in [v6, other, cluster(LogicalDns, &["b.test"])] {
            let rig = rig(vec![stranger]);
            rig.manager.inherit(&known);
            assert_eq!(rig.addresses(), Vec::<String>::new());
        }
    });
}

#[test]
fn what_the_generation_that_serves_lacks_is_not_waited_for_and_nothing_else() {
    block_on(async {
        let old = rig(vec![cluster(StrictDns, &["a.test"])]);
        old.manager.warm(Duration::from_secs(1), Wait::FirstResult).await;
        assert!(old.manager.take_news().is_empty(), "it does not serve yet");
        old.manager.tell_lacks();
        let known = old.manager.take_news();
        assert_eq!(known.len(), 1);

        let new = rig(vec![cluster(StrictDns, &["a.test"])]);
        new.manager.inherit(&known);
        new.manager.warm(Duration::from_secs(60), Wait::Address).await;
        assert_eq!(new.fake.queries.load(Relaxed), 1);
        let lines = (new.manager.missing().len(), new.manager.still_missing().len());
        assert_eq!(lines, (0, 1));

        let more = rig(vec![cluster(StrictDns, &["a.test", "b.test"])]);
        more.manager.inherit(&known);
        more.manager.warm(Duration::from_millis(300), Wait::Address).await;
        assert!(more.fake.queries.load(Relaxed) > 2);
        let lines = (more.manager.missing().len(), more.manager.still_missing().len());
        assert_eq!(lines, (1, 0));
    });
}

#[test]
fn the_refresh_asks_again_and_again() {
    block_on(async {
        let rig = rig(vec![cluster(StrictDns, &["a.test"])]);
        rig.fake.set("a.test", &[1]);
        refresh_until(&rig, || rig.addresses() == ["10.0.0.1:80"]).await;
        let due = rig.manager.discoveries()[0].lock()[0].due.expect("it is known");
        assert!(due > clock::now() + Duration::from_secs(2), "not before the refresh rate is over");
        rig.manager.discoveries()[0].lock()[0].due = Some(clock::now() + Duration::from_millis(10));
        rig.fake.set("a.test", &[2]);
        refresh_until(&rig, || rig.addresses() == ["10.0.0.2:80"]).await;
        assert_eq!(rig.fake.queries.load(Relaxed), 2);
    });
}

#[test]
fn waits_follow_the_ttl_the_rate_and_the_number_of_failures() {
    let mut config = cluster(StrictDns, &[]);
    assert_eq!(refresh_after(&config, Duration::from_secs(99)), Duration::from_secs(5));
    config.respect_dns_ttl = true;
    assert_eq!(refresh_after(&config, Duration::from_secs(99)), Duration::from_secs(99));
    assert_eq!(refresh_after(&config, Duration::ZERO), SHORTEST_REFRESH);
    assert_eq!(refresh_after(&config, Duration::from_secs(u64::MAX)), LONGEST_REFRESH);
    let waits: Vec<u64> =
        (0..7).map(|failures| backoff(config.dns_refresh, failures).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(backoff(Duration::from_mins(5), 40).as_secs(), 300);
    for _ in 0..100 {
        let wait = jittered(Duration::from_secs(10));
        assert!((10_000..=11_000).contains(&wait.as_millis()));
    }
}

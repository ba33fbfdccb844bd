//! A file that sets every field, so that every read of lowering is tried.

use std::{collections::HashSet, time::Duration};

use super::{
    super::{
        cluster::{Balancer, Discovery},
        hcm::Routes,
        listener::NetworkFilter,
        message::{Item, Msg, Value},
        model::ClusterIndex,
        retry::RetryOn,
        route::Action,
        subscription::FileSource,
        support::{Effect, TABLES},
    },
    *,
};

const EVERYTHING: &str = include_str!("../../../tests/data/everything.yaml");

fn source() -> Source {
    Source { path: "everything.yaml".into(), bytes: EVERYTHING.as_bytes().to_vec() }
}

/// Collects the fields that are set, by message.
fn collect(message: &Msg, found: &mut HashSet<(String, &'static str)>) {
    for set in &message.fields {
        found.insert((message.ty.full_name.clone(), message.field(set).unwrap().name));
        collect_item(&set.item, found);
    }
}

fn collect_item(item: &Item, found: &mut HashSet<(String, &'static str)>) {
    if let Value::List(items) = &item.value {
        for item in items {
            collect_item(item, found);
        }
    }
    if let Value::Map(entries) = &item.value {
        for (_, item) in entries {
            collect_item(item, found);
        }
    }
    if let Some(message) = item.message() {
        collect(message, found);
    }
}

#[test]
fn every_field_that_is_read_can_be_set() {
    let loaded = load(&source(), &crate::extension::load_options());
    let loaded =
        loaded.unwrap_or_else(|list| panic!("{}", super::super::diagnostics::render(&list)));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);

    let (mut report, schema) = (Report::default(), Schema::new(crate::extension::ALL));
    let root = read(&source(), &crate::extension::load_options(), &mut report).unwrap();
    let parents = RefCell::default();
    let decoder = Decoder { schema: &schema, report: &report, parents: &parents };
    let message = decoder.document(&root, &schema.message(BOOTSTRAP).unwrap()).unwrap();
    let mut found = HashSet::new();
    collect(&message, &mut found);
    let mut unset = Vec::new();
    let of_filters = crate::extension::ALL.http.iter().flat_map(|known| known.tables);
    for table in TABLES.iter().flat_map(|(_, table)| *table).chain(of_filters) {
        for field in table.fields.iter().filter(|field| field.effect == Effect::Read) {
            if !found.contains(&(table.name.to_owned(), field.name)) {
                unset.push(format!("{}.{}", table.name, field.name));
            }
        }
    }
    // There is no listener filter yet, so there is no way to set its fields.
    unset.retain(|name| !name.starts_with("envoy.config.listener.v3.ListenerFilter."));
    assert!(unset.is_empty(), "not in everything.yaml: {unset:#?}");
}

#[test]
fn values_arrive_in_the_model() {
    let loaded = load(&source(), &crate::extension::load_options()).unwrap();
    let bootstrap = &loaded.bootstrap;
    assert_eq!(bootstrap.max_connections, Some(9000));
    let web = &bootstrap.listeners[0];
    assert!(web.socket.ignores_global_limit);
    assert_eq!(web.addresses.len(), 2);
    assert_eq!(web.socket.max_connections, Some(1000));
    let ranges = &web.filter_chains[0].matches.prefix_ranges;
    assert_eq!(ranges[0].address.to_string(), "10.0.0.0");
    assert_eq!(bootstrap.listeners[3].name, "0.0.0.0:10002");
    assert_eq!(bootstrap.listener_limits["web"], 1000);
    assert_eq!(bootstrap.clusters[0].stat_name, "a_b");
    assert_eq!(bootstrap.clusters[0].balancer, Balancer::LeastRequest(3));
    assert_eq!(bootstrap.clusters[0].max_requests_per_connection, Some(10));
    assert_eq!(bootstrap.clusters[1].idle_timeout, None);
    assert_eq!(bootstrap.clusters[2].balancer, Balancer::LeastRequest(5));
    let NetworkFilter::TcpProxy(tcp) = &bootstrap.listeners[1].filter_chains[0].filters[0] else {
        panic!()
    };
    assert_eq!((tcp.idle_timeout, tcp.max_connect_attempts), (None, 3));
}

#[test]
fn a_route_has_its_own_retry_policy_or_the_virtual_host_s_whole_one() {
    let loaded = load(&source(), &crate::extension::load_options()).unwrap();
    let NetworkFilter::HttpConnectionManager(hcm) =
        &loaded.bootstrap.listeners[0].filter_chains[0].filters[0]
    else {
        panic!()
    };
    let routes = &hcm.routes.fixed().unwrap().virtual_hosts[0].routes;
    let retry = |at: usize| match &routes[at].action {
        Action::Forward(forward) => &forward.retry,
        Action::Redirect(_) | Action::DirectResponse(_) | Action::NonForwarding => panic!(),
    };
    let policy = retry(0).policy.as_ref().unwrap();
    assert_eq!((policy.num_retries, policy.host_selection_attempts), (3, 5));
    assert_eq!(policy.status_codes, [425, 429]);
    assert_eq!(policy.back_off.base, Duration::from_millis(10));
    assert_eq!(policy.rate_limited.as_ref().unwrap().headers[0].name, "retry-after");
    assert!(policy.avoid_previous_hosts && !policy.retry_on.any(RetryOn::CONNECT_FAILURE));
    assert!(policy.retry_on.any(RetryOn::GRPC_UNAVAILABLE));
    assert!(!retry(0).hedge.on_per_try_timeout, "its own message, which says nothing");
    let inherited = retry(1).policy.as_ref().unwrap();
    assert!(Arc::ptr_eq(inherited, retry(2).policy.as_ref().unwrap()), "made once");
    assert_eq!(inherited.num_retries, 2);
    assert_eq!(inherited.retry_on, RetryOn::CONNECT_FAILURE | RetryOn::REFUSED_STREAM);
    assert!(retry(1).hedge.on_per_try_timeout && retry(1).tells.timeout_retry);
    assert_eq!((retry(0).body_limit, retry(1).body_limit), (Some(2000), Some(100_000)));
}

#[test]
fn sources_arrive_in_the_model() {
    let loaded = load(&source(), &crate::extension::load_options()).unwrap();
    let bootstrap = &loaded.bootstrap;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let file = |watched_directory: Option<&str>, initial_fetch_timeout| FileSource {
        path: "/dev/null".into(),
        watched_directory: watched_directory.map(PathBuf::from),
        initial_fetch_timeout,
    };
    assert_eq!(bootstrap.dynamic.clusters, Some(file(Some("/dev"), seconds(5))));
    assert_eq!(bootstrap.dynamic.listeners, Some(file(None, seconds(15))));
    let Discovery::Eds(eds) = &bootstrap.clusters[3].discovery else { panic!() };
    assert_eq!(eds.service_name, "elsewhere");
    assert_eq!(eds.source, file(None, seconds(15)));
    let NetworkFilter::HttpConnectionManager(hcm) =
        &bootstrap.listeners[2].filter_chains[0].filters[0]
    else {
        panic!()
    };
    let Routes::Rds(rds) = &hcm.routes else { panic!() };
    assert_eq!((rds.name.as_str(), &rds.source), ("elsewhere", &file(None, None)));
    assert!(hcm.routes.at_first().virtual_hosts.is_empty());
}

#[test]
fn static_clusters_have_the_first_numbers() {
    let loaded = load(&source(), &crate::extension::load_options()).unwrap();
    let bootstrap = &loaded.bootstrap;
    for (position, cluster) in bootstrap.clusters.iter().enumerate() {
        assert_eq!(bootstrap.cluster_names.get(&cluster.name), Some(ClusterIndex(position)));
    }
}

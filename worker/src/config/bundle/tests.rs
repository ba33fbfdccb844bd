//! A set as bytes and back.

use super::*;
use crate::{
    config::{
        model::{Address, ClusterIndex},
        route::{Action, ClusterTarget},
    },
    extension,
};

const CONFIGURATION: &str = r#"
dynamic_resources: { cds_config: { path: /dev/null }, lds_config: { path: /dev/null } }
static_resources:
  clusters: [{ name: fixed }]
  listeners:
  - name: first
    address: { socket_address: { address: 127.0.0.1, port_value: 9000 } }
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          rds: { route_config_name: table, config_source: { path: /dev/full } }
          http_filters: [{ name: r, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router } }]
    - filter_chain_match: { destination_port: 1 }
      filters:
      - name: tcp
        typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, cluster: never_there }
"#;
const CLUSTERS: &str = r#"
version_info: "5"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: unused
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: found
  type: EDS
  eds_cluster_config: { service_name: service, eds_config: { path: /dev/zero } }
"#;
const ENDPOINTS: &str = r#"{"resources": [{"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name": "service", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}}]}]}]}"#;
const LISTENERS: &str = r#"
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: second
  address: { socket_address: { address: 127.0.0.1, port_value: 9001 } }
  filter_chains: [{ filters: [{ name: echo, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo } }] }]
"#;
const ROUTES: &str = r#"
resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: table
  virtual_hosts: [{ name: a, domains: ["*"], routes: [{ match: { prefix: / }, route: { cluster: found } }] }]
"#;

fn source() -> Source {
    Source { path: "envoy.yaml".into(), bytes: CONFIGURATION.as_bytes().to_vec() }
}

/// What the files give; of the clusters only the one that is used.
fn entries() -> Vec<(Entry, String)> {
    let options = extension::load_options();
    let loaded = load(&source(), &options).unwrap();
    let context = Context { bootstrap: &loaded.bootstrap, options: &options };
    let mut entries = Vec::new();
    for (kind, path, text) in [
        (Kind::Cluster, "/dev/null", CLUSTERS),
        (Kind::ClusterLoadAssignment, "/dev/zero", ENDPOINTS),
        (Kind::Listener, "/dev/null", LISTENERS),
        (Kind::RouteConfiguration, "/dev/full", ROUTES),
    ] {
        let document = Arc::new(Document { path: path.into(), bytes: text.into() });
        let read = resource::read(&document, kind, &context, &|_| None).unwrap();
        assert!(read.rejected.is_empty(), "{:?}", read.rejected);
        let version = read.version;
        entries.extend(read.entries.into_iter().map(|entry| (entry, version.clone())));
    }
    entries.retain(|(entry, _)| &*entry.name != "unused");
    entries
}

fn bundle(entries: &[(Entry, String)]) -> Vec<u8> {
    write(&source(), entries.iter().map(|(entry, version)| (entry, version.as_str())))
}

#[test]
fn a_set_comes_back_as_it_was() {
    let entries = entries();
    let bytes = bundle(&entries);
    assert!(is_bundle(&bytes) && !is_bundle(CONFIGURATION.as_bytes()));
    let bundle = read(&bytes).unwrap();
    assert_eq!(bundle.source.bytes, CONFIGURATION.as_bytes());
    let options = extension::load_options();
    let loaded = load(&bundle.source, &options).unwrap();
    let context = Context { bootstrap: &loaded.bootstrap, options: &options };
    let back = bundle.entries(&context).unwrap();
    let shown = |entry: &Entry| (entry.kind, entry.name.to_string(), entry.hash, entry.position);
    let before: Vec<_> = entries.iter().map(|(entry, _)| shown(entry)).collect();
    assert_eq!(before, back.iter().map(|(entry, _)| shown(entry)).collect::<Vec<_>>());
    assert_eq!((back[0].1, back[1].1), ("5", ""));
}

#[test]
fn a_bundle_loads_as_one_configuration() {
    let source = Source { path: "bundle".into(), bytes: bundle(&entries()) };
    let loaded = load(&source, &extension::load_options());
    let loaded = loaded.unwrap_or_else(|list| panic!("{list:?}"));
    let bootstrap = &loaded.bootstrap;
    let names: Vec<&str> = bootstrap.clusters.iter().map(|cluster| &*cluster.name).collect();
    assert_eq!(names, ["fixed", "found"]);
    for (position, name) in names.iter().enumerate() {
        assert_eq!(bootstrap.cluster_names.get(name), Some(ClusterIndex(position)), "{name}");
    }
    let address = Address::Ip("10.0.0.1:80".parse().unwrap());
    assert_eq!(bootstrap.clusters[1].endpoints[0].address, address);
    let names: Vec<&str> = bootstrap.listeners.iter().map(|listener| &*listener.name).collect();
    assert_eq!(names, ["first", "second"]);
    let filter = &bootstrap.listeners[0].filter_chains[0].filters[0];
    let NetworkFilter::HttpConnectionManager(manager) = filter else { panic!("{filter:?}") };
    let table = manager.routes.fixed().unwrap();
    let Action::Forward(action) = &table.virtual_hosts[0].routes[0].action else { panic!() };
    assert!(matches!(action.target, ClusterTarget::Cluster(ClusterIndex(1))));
}

#[test]
fn a_resource_that_is_not_good_any_more_makes_the_bundle_useless() {
    let mut entries = entries();
    let document =
        Document { path: "/dev/null".into(), bytes: CLUSTERS.replace("EDS", "X").into() };
    entries[0].0.document = Arc::new(document);
    let source = Source { path: "bundle".into(), bytes: bundle(&entries) };
    let list = load(&source, &extension::load_options()).unwrap_err();
    assert_eq!(list[0].message, "`found` is not good here");
    assert!(list.iter().any(|diagnostic| diagnostic.line == 8), "{list:?}");
}

/// What one program writes another one must read.
#[test]
fn the_layout_stays_as_it_is() {
    let golden = b"BATONSET\x01\x00\x01\x00\
        \x01\x80\x01\x00\x00\x00c\
        \x02\x80\x02\x00\x00\x00{}\
        \x03\x80\x05\x00\x00\x00\x01\x00\x00\x00d\
        \x04\x80\x06\x00\x00\x00\x02\x00\x00\x00[]\
        \x05\x80\x40\x00\x00\x00\x3c\x00\x00\x00\
        \x02\x00\x01\x00\
        \x01\x80\x08\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\
        \x02\x80\x01\x00\x00\x00n\
        \x03\x00\x01\x00\x00\x00v\
        \x04\x80\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
        \x05\x80\x08\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00";
    let bundle = read(golden).unwrap();
    assert_eq!((bundle.source.path.to_str(), &*bundle.source.bytes), (Some("c"), &b"{}"[..]));
    let stored = &bundle.resources[0];
    let document = Document { path: "d".into(), bytes: b"[]".to_vec() };
    assert_eq!((stored.kind, &*stored.document), (Kind::Listener, &document));
    assert_eq!((stored.name.as_str(), stored.version.as_str(), stored.position), ("n", "v", 7));
    let mut entry = entries().pop().unwrap().0;
    (entry.kind, entry.name, entry.position) = (Kind::Listener, "n".into(), 7);
    entry.document = Arc::new(document);
    let source = Source { path: "c".into(), bytes: b"{}".to_vec() };
    let written = write(&source, [(&entry, "v")]);
    assert_eq!(written.escape_ascii().to_string(), golden.escape_ascii().to_string());
}

#[test]
fn damaged_bytes_are_an_error() {
    let whole = bundle(&entries());
    for length in 0..whole.len().min(400) {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    assert!(matches!(read(b"{}"), Err(BundleError::Alien)));
    let mut newer = whole;
    newer[10] = 2;
    assert!(matches!(read(&newer), Err(BundleError::Newer(2))));
}

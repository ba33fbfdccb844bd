//! Files of resources: what is good in them, what is said about the rest, and that nothing is done twice.

#![allow(clippy::panic, clippy::unwrap_used, reason = "these are tests")]

use std::{collections::HashMap, fmt::Write as _, fs, path::PathBuf, sync::Arc};

use baton_worker::{
    config::{
        cluster::Discovery,
        diagnostics::{self, Diagnostic},
        hcm::HttpConnectionManager,
        listener::NetworkFilter,
        load::{LoadOptions, Source, load},
        model::{Bootstrap, ClusterIndex},
        resource::{self, Context, Document, Entry, Kind, Read, Resource},
        route::{Action, ClusterTarget},
    },
    extension,
};
use proptest::prelude::*;

/// The configuration that the files belong to.
const BOOTSTRAP: &str = r#"
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 9901 } } }
layered_runtime: { layers: [{ name: s, static_layer: { envoy.resource_limits.listener.web.connection_limit: 7 } }] }
dynamic_resources: { cds_config: { path: /dev/null }, lds_config: { path: /dev/null } }
static_resources:
  clusters: [{ name: fixed }]
  listeners:
  - name: fixed
    address: { socket_address: { address: 127.0.0.1, port_value: 9000 } }
    filter_chains: [{ filters: [{ name: echo, typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo } }] }]
"#;

fn bootstrap(text: &str) -> Arc<Bootstrap> {
    let source = Source { path: "envoy.yaml".into(), bytes: text.as_bytes().to_vec() };
    let loaded = load(&source, &extension::load_options());
    loaded.unwrap_or_else(|list| panic!("{}", diagnostics::render(&list))).bootstrap
}

/// Files that are read one after the other.
struct Reading {
    bootstrap: Arc<Bootstrap>,
    options: LoadOptions,
    known: HashMap<u128, Entry>,
}

impl Reading {
    fn new() -> Self {
        let known = HashMap::new();
        Self { bootstrap: bootstrap(BOOTSTRAP), options: extension::load_options(), known }
    }

    fn context(&self) -> Context<'_> {
        Context { bootstrap: &self.bootstrap, options: &self.options }
    }

    fn try_read(&self, kind: Kind, path: &str, bytes: &[u8]) -> Result<Read, Vec<Diagnostic>> {
        let document = Arc::new(Document { path: path.into(), bytes: bytes.to_vec() });
        resource::read(&document, kind, &self.context(), &|hash| self.known.get(&hash).cloned())
    }

    fn read(&mut self, kind: Kind, text: &str) -> Read {
        let read = self.try_read(kind, "file.yaml", text.as_bytes());
        let read = read.unwrap_or_else(|list| panic!("{}", diagnostics::render(&list)));
        self.known = read.entries.iter().map(|entry| (entry.hash, entry.clone())).collect();
        read
    }
}

fn names(read: &Read) -> Vec<&str> {
    read.entries.iter().map(|entry| &*entry.name).collect()
}

fn cluster(entry: &Entry) -> *const () {
    let Resource::Cluster(cluster) = &entry.resource else { panic!("{entry:?}") };
    Arc::as_ptr(cluster).cast()
}

/// A file in block style, one in JSON, and one that can only be parsed as a whole.
fn in_all_styles(clusters: &[(&str, &str)]) -> [String; 3] {
    const TYPE: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let mut block = "version_info: \"1\"\nresources:\n".to_owned();
    let mut json = "{\"version_info\":\"1\",\"resources\":[".to_owned();
    for (position, (name, timeout)) in clusters.iter().enumerate() {
        let fields = format!("  name: {name}\n  connect_timeout: {timeout}\n");
        block += &["- \"@type\": ", TYPE, "\n", &fields].concat();
        let comma = if position == 0 { "" } else { "," };
        write!(
            json,
            "{comma}{{\"@type\":\"{TYPE}\",\"name\":\"{name}\",\"connect_timeout\":\"{timeout}\"}}"
        )
        .unwrap();
    }
    json += "]}\n";
    let whole = block.replacen("version_info: \"1\"", "version_info: &v \"1\"\nnonce: *v", 1);
    let whole = whole.replacen("resources:", "\"resources\":", 1);
    [block, json, whole]
}

#[test]
fn what_did_not_change_is_not_made_again() {
    let before = in_all_styles(&[("a", "1s"), ("b", "1s"), ("c", "1s")]);
    let after = in_all_styles(&[("x", "1s"), ("c", "1s"), ("b", "2s"), ("a", "1s")]);
    for (before, after) in before.iter().zip(&after) {
        let mut reading = Reading::new();
        let first = reading.read(Kind::Cluster, before);
        assert_eq!((names(&first), first.version.as_str()), (vec!["a", "b", "c"], "1"));
        let second = reading.read(Kind::Cluster, after);
        assert_eq!(names(&second), ["x", "c", "b", "a"]);
        assert_eq!(cluster(&first.entries[0]), cluster(&second.entries[3]), "{before}");
        assert_eq!(cluster(&first.entries[2]), cluster(&second.entries[1]));
        assert_ne!(cluster(&first.entries[1]), cluster(&second.entries[2]));
        assert_ne!(first.entries[1].hash, second.entries[2].hash);
        // An entry belongs to the file it was found in last.
        assert_eq!(second.entries[3].position, 3);
        let json = resource::json(&second.entries, &reading.options);
        let shown: Vec<&str> = json.iter().map(|json| json["name"].as_str().unwrap()).collect();
        assert_eq!(shown, names(&second));
        assert_eq!(json[2]["connect_timeout"], "2s");
        assert_eq!(json[2]["@type"], "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    }
}

#[test]
fn a_file_may_be_empty_of_resources_but_not_empty() {
    let mut reading = Reading::new();
    for text in ["{}", "resources: []", "resources:\n", "version_info: x\n", "{\"resources\":[]}"] {
        let read = reading.read(Kind::Cluster, text);
        assert!(read.entries.is_empty() && read.rejected.is_empty(), "{text}");
    }
    assert!(reading.try_read(Kind::Cluster, "file.yaml", b"").is_err());
}

#[test]
fn a_resource_may_stand_in_an_envelope_or_alone() {
    let mut reading = Reading::new();
    let inner = "{ \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a }";
    let wrapper = "{ \"@type\": type.googleapis.com/envoy.service.discovery.v3.Resource";
    let text = format!("resources:\n- {wrapper}, name: b, version: x, resource: {inner} }}\n");
    assert_eq!(names(&reading.read(Kind::Cluster, &text)), ["a"]);
    assert_eq!(names(&reading.read(Kind::Cluster, &format!("resources: {inner}\n"))), ["a"]);
    assert_eq!(names(&reading.read(Kind::Cluster, &format!("resources: [{inner}]\n"))), ["a"]);
}

#[test]
fn a_cluster_keeps_its_number_and_a_listener_its_limit() {
    let mut reading = Reading::new();
    let listener = r#"
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: web
  address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
  filter_chains:
  - filters:
    - name: tcp
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: tcp
        cluster: later
        access_log: [{ name: a, typed_config: { "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: { text_format_source: { inline_string: "%UPSTREAM_LOCAL_ADDRESS%" } } } }]
"#;
    let read = reading.read(Kind::Listener, listener);
    let Resource::Listener(web) = &read.entries[0].resource else { panic!() };
    assert_eq!(web.socket.max_connections, Some(7));
    assert!(read.entries[0].shows_upstream_local);
    let NetworkFilter::TcpProxy(tcp) = &web.filter_chains[0].filters[0] else { panic!() };
    assert_eq!(tcp.clusters[0].cluster, ClusterIndex(1));
    assert_eq!(reading.bootstrap.cluster_names.get("later"), Some(ClusterIndex(1)));
}

#[test]
fn a_factor_for_priorities_is_no_mistake_and_overload_is() {
    let mut reading = Reading::new();
    let text = |policy: &str| {
        format!(
            "resources:\n- {{ \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: a, policy: {{ {policy} }} }}\n"
        )
    };
    let read = reading.read(Kind::ClusterLoadAssignment, &text("overprovisioning_factor: 140"));
    assert_eq!((names(&read), read.warnings.len()), (vec!["a"], 1));
    let drops = "drop_overloads: [{ category: a, drop_percentage: { numerator: 10 } }]";
    let read = reading.read(Kind::ClusterLoadAssignment, &text(drops));
    assert!(read.rejected[0].diagnostics[0].message.contains("`drop_overloads`"));
}

#[test]
fn endpoints_have_addresses_and_a_cluster_that_names_them() {
    let mut reading = Reading::new();
    let text = "resources:\n- { \"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: a, endpoints: [{ locality: { zone: z }, lb_endpoints: [{ endpoint: { address: { socket_address: { address: 10.0.0.1, port_value: 80 } } }, load_balancing_weight: 3 }, { endpoint: { address: { pipe: { path: /tmp/x } } } }] }] }\n";
    let read = reading.read(Kind::ClusterLoadAssignment, text);
    let Resource::Endpoints(assignment) = &read.entries[0].resource else { panic!() };
    assert_eq!((assignment.name.as_str(), assignment.endpoints.len()), ("a", 2));
    assert_eq!((assignment.endpoints[0].weight, assignment.endpoints[0].zone.as_str()), (3, "z"));
    let text = "resources:\n- { \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b, type: EDS, eds_cluster_config: { service_name: a, eds_config: { path: /dev/null } } }\n";
    let read = reading.read(Kind::Cluster, text);
    let Resource::Cluster(cluster) = &read.entries[0].resource else { panic!() };
    let Discovery::Eds(eds) = &cluster.discovery else { panic!() };
    assert_eq!(eds.service_name, "a");
}

fn manager(filters: &str) -> Arc<HttpConnectionManager> {
    let text = format!(
        r#"
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: 9000 }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          rds: {{ route_config_name: r, config_source: {{ path: /dev/null }} }}
          http_filters: [{filters} {{ name: envoy.filters.http.router, typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}]
"#
    );
    let bootstrap = bootstrap(&text);
    let filter = &bootstrap.listeners[0].filter_chains[0].filters[0];
    let NetworkFilter::HttpConnectionManager(manager) = filter else { panic!() };
    Arc::clone(manager)
}

#[test]
fn a_route_table_is_made_for_the_filters_of_who_uses_it() {
    const TABLE: &str = "resources:\n- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  name: r\n  virtual_hosts: [{ name: a, domains: [\"*\"], routes: [{ match: { prefix: / }, route: { cluster: later } }] }]\n";
    let mut reading = Reading::new();
    let plain = reading.read(Kind::RouteConfiguration, TABLE);
    let Resource::Routes(table) = &plain.entries[0].resource else { panic!() };
    let Action::Forward(action) = &table.virtual_hosts[0].routes[0].action else { panic!() };
    assert!(matches!(action.target, ClusterTarget::Cluster(ClusterIndex(1))));
    let bare = manager("");
    let bound = resource::routes_for(&plain.entries[0], &bare, &reading.context()).unwrap();
    assert!(Arc::ptr_eq(&bound.routes, table), "it is the same for everybody");

    let config = |name: &str| {
        format!(
            "  typed_per_filter_config: {{ {name}: {{ \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true }} }}\n"
        )
    };
    let text = format!("{TABLE}{}", config("envoy.filters.http.fault"));
    let read = reading.read(Kind::RouteConfiguration, &text);
    let entry = &read.entries[0];
    let fault = manager(
        "{ name: envoy.filters.http.fault, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault } },",
    );
    let bound = resource::routes_for(entry, &fault, &reading.context()).unwrap();
    let levels = bound.routes.virtual_hosts[0].routes[0].filters.as_ref().unwrap();
    assert_eq!(levels.iter().map(|level| level.disabled).collect::<Vec<_>>(), [Some(true), None]);
    let bound = resource::routes_for(entry, &bare, &reading.context()).unwrap();
    assert!(bound.warnings[0].message.contains("there is no `envoy.filters.http.fault`"));
    assert_eq!(bound.warnings[0].line, 5);

    let text = format!("{TABLE}{}", config("envoy.filters.http.router"));
    let read = reading.read(Kind::RouteConfiguration, &text);
    let list = resource::routes_for(&read.entries[0], &bare, &reading.context()).unwrap_err();
    assert!(list[0].message.contains("cannot be switched off"), "{list:?}");
}

fn kind_of(path: &std::path::Path) -> Kind {
    let name = path.file_stem().unwrap().to_str().unwrap();
    match name.split('-').next().unwrap() {
        "clusters" => Kind::Cluster,
        "endpoints" => Kind::ClusterLoadAssignment,
        "listeners" => Kind::Listener,
        "routes" => Kind::RouteConfiguration,
        other => panic!("{other}"),
    }
}

/// What a file gives, as text.
fn describe(path: &std::path::Path) -> String {
    let reading = Reading::new();
    let name = path.file_name().unwrap().to_str().unwrap();
    match reading.try_read(kind_of(path), name, &fs::read(path).unwrap()) {
        Err(list) => format!("nothing is good\n\n{}", diagnostics::render(&list)),
        Ok(read) => {
            let mut text = format!("good: {:?}\n\n", names(&read));
            text += &diagnostics::render(&read.warnings);
            for rejected in &read.rejected {
                let name = rejected.name.as_deref().unwrap_or("?");
                write!(text, "\nrefused: {} {name}\n\n", rejected.position).unwrap();
                text += &diagnostics::render(&rejected.diagnostics);
                assert!(rejected.diagnostics.iter().any(Diagnostic::is_error));
            }
            text
        }
    }
}

/// `BLESS=1 cargo test -p baton-worker --test resources` writes the texts anew.
#[test]
fn each_mistake_is_explained_as_before() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/resources");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_none_or(|e| e != "txt")).collect();
    assert!(files.len() >= 9);
    for path in files {
        let (text, golden) = (describe(&path), path.with_extension("txt"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&golden).unwrap_or_default(), text, "set BLESS=1 to accept");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let reading = Reading::new();
        drop(reading.try_read(Kind::Cluster, "file", &bytes));
    }

    /// A file with some bytes exchanged.
    #[test]
    fn no_damage_makes_the_reader_panic(
        file in 0_usize..4,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let name = ["clusters.yaml", "endpoints.json", "listeners.yaml", "routes.yaml"][file];
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/resources").join(name);
        let mut bytes = fs::read(&path).unwrap();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let reading = Reading::new();
        drop(reading.try_read(kind_of(&path), name, &bytes));
    }
}

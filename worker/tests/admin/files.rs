//! What the pages show of resources that came from files.

use super::*;

const CLUSTERS: &str = r#"
version_info: c2
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: added
  type: STATIC
  load_assignment:
    cluster_name: added
    endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8081}}}}]}]
- {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: warming, type: STATIC}
"#;

const LISTENERS: &str = r#"
version_info: l3
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: edge
  address: {socket_address: {address: 127.0.0.1, port_value: 10001}}
  filter_chains:
  - filters:
    - name: tcp
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
        stat_prefix: tcp
        cluster: added
"#;

const ROUTES: &str = r#"
version_info: r1
resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: table
  virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: added}}]}]
"#;

const UPDATED: &str = "1970-01-01T00:00:07.000Z";

/// A file all of whose resources are used.
fn file(server: &Server, kind: Kind, text: &str) -> File {
    let path = PathBuf::from(format!("{kind:?}.yaml"));
    let document = Arc::new(Document { path: path.clone(), bytes: text.as_bytes().to_vec() });
    let AdminContext { bootstrap, load_options, .. } = &*server.context;
    let context = Context { bootstrap, options: load_options };
    let found = read(&document, kind, &context, &|_| None).unwrap();
    assert!(found.rejected.is_empty(), "{:?}", found.rejected);
    let updated = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
    let version = found.version.clone();
    let shown = |entry| Shown { entry, version: version.clone(), updated };
    let resources = found.entries.into_iter().map(shown).collect();
    File { kind, path, version: found.version, resources, problems: vec![], is_awaited: false }
}

/// A generation with one of everything: what is used, what warms, and what is wrong.
fn with_files() -> Server {
    let server = server(false);
    let clusters = file(&server, Kind::Cluster, CLUSTERS);
    let manager = &server.context.clusters;
    if let Resource::Cluster(config) = &clusters.resources[0].entry.resource {
        let index = server.context.bootstrap.cluster_names.intern("added");
        manager.apply(vec![Change::Put(manager.candidate(index, config, 2))]);
    }
    let mut listeners = file(&server, Kind::Listener, LISTENERS);
    let mut shown = server.context.bootstrap.listeners.clone();
    if let Resource::Listener(listener) = &listeners.resources[0].entry.resource {
        shown.push(Arc::clone(listener));
    }
    listeners.problems = ["edge", "other"]
        .map(|name| Problem {
            name: Some(name.to_owned()),
            text: format!("Listener.yaml:3:3: {name} is bad"),
            at: SystemTime::UNIX_EPOCH,
        })
        .into();
    let mut routes = file(&server, Kind::RouteConfiguration, ROUTES);
    routes.is_awaited = true;
    let files = vec![clusters, listeners, routes];
    server.context.shown.store(Arc::new(View { listeners: shown, files }));
    server
}

/// A section of the dump.
async fn section(server: &Server, path: &str, name: &str) -> Value {
    let dump = get_json(server, path).await;
    let sections = dump["configs"].as_array().unwrap();
    let ty = format!("type.googleapis.com/envoy.admin.v3.{name}");
    sections.iter().find(|section| section["@type"] == *ty).unwrap().clone()
}

#[test]
fn the_dump_shows_what_came_from_files() {
    run(async {
        let server = with_files();
        let clusters = section(&server, "/config_dump", "ClustersConfigDump").await;
        assert_eq!(clusters["version_info"], "c2");
        assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "some_service");
        assert!(clusters["static_clusters"][0]["last_updated"].is_string());
        let active = &clusters["dynamic_active_clusters"];
        assert_eq!(
            (&active[0]["version_info"], &active[0]["last_updated"], &active[1]),
            (&json!("c2"), &json!(UPDATED), &Value::Null)
        );
        assert_eq!(
            active[0]["cluster"]["@type"],
            "type.googleapis.com/envoy.config.cluster.v3.Cluster"
        );
        assert_eq!(clusters["dynamic_warming_clusters"][0]["cluster"]["name"], "warming");

        let listeners = section(&server, "/config_dump", "ListenersConfigDump").await;
        let items = listeners["dynamic_listeners"].as_array().unwrap();
        assert_eq!((items.len(), &listeners["version_info"]), (2, &json!("l3")));
        assert_eq!(items[0]["active_state"]["listener"]["name"], "edge");
        assert_eq!(items[0]["error_state"]["details"], "Listener.yaml:3:3: edge is bad");
        assert_eq!(
            items[1],
            json!({"name": "other", "error_state": {
                "last_update_attempt": "1970-01-01T00:00:00.000Z",
                "details": "Listener.yaml:3:3: other is bad"}})
        );

        let routes = section(&server, "/config_dump", "RoutesConfigDump").await;
        assert_eq!(routes["static_route_configs"].as_array().unwrap().len(), 1);
        let table = &routes["dynamic_route_configs"][0];
        assert_eq!(
            (&table["version_info"], &table["route_config"]["name"]),
            (&json!("r1"), &json!("table"))
        );
    });
}

#[test]
fn the_dump_is_selected_and_has_endpoints_when_asked() {
    run(async {
        let server = with_files();
        let path = "/config_dump?resource=dynamic_listeners&mask=name,active_state.version_info";
        let listeners = get_json(&server, path).await;
        assert_eq!(
            listeners["configs"][0],
            json!({
                "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.DynamicListener",
                "name": "edge", "active_state": {"version_info": "l3"}})
        );
        let path = "/config_dump?resource=dynamic_active_clusters&name_regex=warm";
        assert_eq!(get_json(&server, path).await, json!({"configs": []}));
        let path = "/config_dump?resource=dynamic_endpoint_configs";
        assert_eq!(get(&server, path).await.0, 404);
        let path = format!("{path}&include_eds");
        let endpoints = get_json(&server, &path).await;
        let config = &endpoints["configs"][0]["endpoint_config"];
        let endpoint = &config["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(
            (&config["cluster_name"], &endpoint["address"]["socket_address"]["port_value"]),
            (&json!("added"), &json!(8081))
        );
        let all = section(&server, "/config_dump?include_eds", "EndpointsConfigDump").await;
        let fixed = &all["static_endpoint_configs"][0]["endpoint_config"]["cluster_name"];
        assert_eq!(fixed, "some_service");
    });
}

#[test]
fn other_pages_tell_what_came_from_files_and_what_is_awaited() {
    run(async {
        let server = with_files();
        let (_, text) = get(&server, "/clusters").await;
        for line in ["some_service::added_via_api::false", "added::added_via_api::true"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let clusters = get_json(&server, "/clusters?format=json").await;
        let statuses = &clusters["cluster_statuses"];
        assert_eq!(
            (&statuses[0]["added_via_api"], &statuses[1]["added_via_api"]),
            (&Value::Null, &json!(true))
        );
        let (_, text) = get(&server, "/listeners").await;
        assert!(text.contains("edge::127.0.0.1:10001\n"), "{text}");
        let awaited = json!({"unready_targets_dumps": [
            {"name": "init manager Server", "target_names": ["RouteConfiguration.yaml"]}]});
        assert_eq!(get_json(&server, "/init_dump").await, awaited);
        assert_eq!(get_json(&server, "/init_dump?mask=listener").await, awaited);
        server.context.shown.store(Arc::default());
        assert_eq!(get_json(&server, "/init_dump").await, json!({}));
    });
}

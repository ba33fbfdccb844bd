//! HTTP filters, configured as users do. What is expected was seen of Envoy.

use baton_worker::{
    config::{
        hcm::HttpConnectionManager,
        listener::NetworkFilter,
        load::{Source, load},
    },
    extension,
    stats::MetricName,
};

use super::harness::{Proxy, Script, run};

#[path = "filters/buffer.rs"]
mod buffer;
#[path = "filters/fault.rs"]
mod fault;
#[path = "filters/header_mutation.rs"]
mod header_mutation;
#[path = "filters/local_ratelimit.rs"]
mod local_ratelimit;

/// A connection manager with these filters before the router, and this route configuration.
pub fn configured(filters: &str, routes: &str) -> HttpConnectionManager {
    let text = format!(
        r#"{{ node: {{ id: n1, cluster: k1 }}, static_resources: {{
        clusters: [{{ name: main }}, {{ name: dead }}, {{ name: empty }}],
        listeners: [{{ name: l, address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }},
        filter_chains: [{{ filters: [{{ name: h, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
            stat_prefix: test, http_protocol_options: {{ enable_trailers: true }},
            route_config: {routes},
            http_filters: [{filters}, {{ name: r, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}]
        }} }}] }}] }}] }} }}"#,
    );
    let source = Source { path: "envoy.yaml".into(), bytes: text.into_bytes() };
    let loaded = load(&source, &extension::load_options())
        .unwrap_or_else(|list| panic!("{}", baton_worker::config::diagnostics::render(&list)));
    let filter = &loaded.bootstrap.listeners[0].filter_chains[0].filters[0];
    let NetworkFilter::HttpConnectionManager(manager) = filter else { panic!("{filter:?}") };
    HttpConnectionManager::clone(manager)
}

/// Sends requests one after the other on a connection: what the upstream saw, what the client saw.
pub fn exchange(manager: HttpConnectionManager, request: &str, response: &str) -> (String, String) {
    run(async {
        let response = response.to_owned();
        let script = Script::new(move |_, _| response.clone());
        let proxy = Proxy::start_with(script, |own| *own = manager).await;
        let mut client = proxy.connect().await;
        client.send(request).await;
        client.end().await;
        let seen = client.read_to_end().await;
        (proxy.upstream_saw(), seen)
    })
}

/// A route table of these routes.
pub fn routes(list: &[String]) -> String {
    format!("{{ virtual_hosts: [{{ name: v, domains: [\"*\"], routes: [{}] }}] }}", list.join(", "))
}

/// A route for this prefix, whose configuration of the filter `f` is this.
pub fn route(prefix: &str, settings: &str) -> String {
    format!(
        "{{ match: {{ prefix: {prefix} }}, route: {{ cluster: main }}, typed_per_filter_config: {{ f: \
         {settings} }} }}"
    )
}

/// The value of a statistic of the connection manager.
pub fn counter(proxy: &Proxy, name: &str) -> u64 {
    let tags = [("envoy.http_conn_manager_prefix", "test")];
    let name = MetricName::tagged(format!("http.test.{name}"), format!("http.{name}"), &tags);
    proxy.all_stats.counter(&name).value()
}

/// The values of a header, in the order they stand.
pub fn values(message: &str, name: &str) -> Vec<String> {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn a_health_check_is_answered_with_the_name_of_the_cluster() {
    let filter = "{ name: f, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, pass_through_mode: false, headers: [{ name: \":path\", string_match: { exact: /hc } }] } }";
    let table = routes(&["{ match: { prefix: / }, response_headers_to_add: [{ header: { key: x-r, value: \"1\" } }], route: { cluster: main } }".to_owned()]);
    let request = "GET /hc HTTP/1.1\r\nhost: a\r\n\r\n";
    let (upstream, client) = exchange(configured(filter, &table), request, "");
    assert!(upstream.is_empty() && client.starts_with("HTTP/1.1 200 "), "{client}");
    // As the answer belongs to a route, it has the headers of that route.
    assert_eq!(values(&client, "x-r"), ["1"], "{client}");
}

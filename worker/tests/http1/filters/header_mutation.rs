//! `envoy.filters.http.header_mutation`.

use super::{configured, exchange, values};

const TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const GET: &str = "GET /w?z=1&b=2&a=%20x&gone=1&b=3&noval HTTP/1.1\r\nhost: a\r\nuser-agent: u\r\nx-c: 0\r\nx-q1: 1\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-up: 1\r\n\r\nok";

fn filter(rest: &str) -> String {
    format!("{{ name: hm, typed_config: {{ \"@type\": {TYPE}, {rest} }} }}")
}

fn append(name: &str, value: &str, action: &str) -> String {
    format!(
        "{{ append: {{ header: {{ key: {name}, value: \"{value}\" }}, append_action: {action} }} }}"
    )
}

const ADD: &str = "APPEND_IF_EXISTS_OR_ADD";
const OVERWRITE: &str = "OVERWRITE_IF_EXISTS_OR_ADD";

/// What a level of the route table says.
fn level(name: &str) -> String {
    let mutations = [append("x-level", name, ADD), append("x-last", name, OVERWRITE)].join(", ");
    format!(
        "typed_per_filter_config: {{ hm: {{ \"@type\": {TYPE}PerRoute, mutations: {{ \
         request_mutations: [{mutations}], response_mutations: [{mutations}] }} }} }}"
    )
}

/// A route table that says something on each level.
fn routes() -> String {
    let off = "{ match: { prefix: /off }, route: { cluster: main }, typed_per_filter_config: { hm: { \
               \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true } } }";
    let weighted = format!(
        "{{ match: {{ prefix: /w }}, {}, route: {{ weighted_clusters: {{ clusters: [{{ name: main, \
         weight: 1, {} }}] }} }} }}",
        level("route"),
        level("cluster")
    );
    let plain =
        format!("{{ match: {{ prefix: / }}, route: {{ cluster: main }}, {} }}", level("route"));
    format!(
        "{{ {}, virtual_hosts: [{{ name: v, domains: [\"*\"], {}, routes: [{off}, {weighted}, {plain}] }}] }}",
        level("config"),
        level("vhost")
    )
}

#[test]
fn each_change_sees_what_the_ones_before_it_did() {
    let request = [
        append("x-a", "1", ADD),
        append("x-a", "2", ADD),
        append("x-b", "%REQ(x-a)%", "ADD_IF_ABSENT"),
        append("x-b", "never", "ADD_IF_ABSENT"),
        append("x-c", "c", "OVERWRITE_IF_EXISTS"),
        append("x-d", "d", "OVERWRITE_IF_EXISTS"),
        append("x-empty", "", ADD),
        append("x-b2", "%REQ(x-b)%", ADD),
        "{ remove: user-agent }".to_owned(),
        "{ remove_on_match: { key_matcher: { prefix: x-q } } }".to_owned(),
    ]
    .join(", ");
    let response = append("x-resp", "%RESP(x-up)%-%REQ(x-a)%", ADD);
    let manager = configured(
        &filter(&format!(
            "mutations: {{ request_mutations: [{request}], response_mutations: [{response}] }}"
        )),
        "{ virtual_hosts: [{ name: v, domains: [\"*\"], routes: [{ match: { prefix: / }, route: { cluster: main } }] }] }",
    );
    let (upstream, client) = exchange(manager, GET, OK);
    for (name, expected) in [
        ("x-a", &["1", "2"][..]),
        ("x-b", &["1"]),
        ("x-c", &["c"]),
        ("x-d", &[]),
        ("x-empty", &[]),
        ("x-b2", &["1"]),
        ("user-agent", &[]),
        ("x-q1", &[]),
    ] {
        assert_eq!(values(&upstream, name), expected, "{name}: {upstream}");
    }
    assert_eq!(values(&client, "x-resp"), ["1-1"], "{client}");
}

#[test]
fn the_levels_of_a_route_add_up_and_the_least_specific_one_is_the_last() {
    let own = append("x-level", "filter", ADD);
    for (wins, levels, last) in [
        ("false", ["filter", "cluster", "route", "vhost", "config"], "config"),
        ("true", ["filter", "config", "vhost", "route", "cluster"], "cluster"),
    ] {
        let rest = format!(
            "most_specific_header_mutations_wins: {wins}, mutations: {{ request_mutations: [{own}], \
             response_mutations: [{own}] }}"
        );
        let (upstream, client) = exchange(configured(&filter(&rest), &routes()), GET, OK);
        for seen in [&upstream, &client] {
            assert_eq!(values(seen, "x-level"), levels, "{seen}");
            assert_eq!(values(seen, "x-last"), [last], "{seen}");
        }
    }
}

#[test]
fn a_route_can_switch_a_filter_off_and_on() {
    let off = "GET /off HTTP/1.1\r\nhost: a\r\n\r\n";
    let on = "GET /on HTTP/1.1\r\nhost: a\r\n\r\n";
    let own = format!("mutations: {{ request_mutations: [{}] }}", append("x-m", "1", ADD));
    let (upstream, _) = exchange(configured(&filter(&own), &routes()), off, OK);
    assert!(values(&upstream, "x-m").is_empty(), "{upstream}");

    let disabled =
        format!("{{ name: hm, disabled: true, typed_config: {{ \"@type\": {TYPE}, {own} }} }}");
    let table = "{ virtual_hosts: [{ name: v, domains: [\"*\"], routes: [
        { match: { prefix: /on }, route: { cluster: main }, typed_per_filter_config: { hm: {
          \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {} } } },
        { match: { prefix: / }, route: { cluster: main } }] }] }";
    for (request, expected) in [(on, &["1"][..]), (off, &[])] {
        let (upstream, _) = exchange(configured(&disabled, table), request, OK);
        assert_eq!(values(&upstream, "x-m"), expected, "{upstream}");
    }
}

#[test]
fn parameters_of_the_query_change_and_the_others_stay_as_they_are() {
    let add = |name: &str, value: &str, action: &str| {
        format!(
            "{{ append: {{ record: {{ key: {name}, value: \"{value}\" }}, action: {action} }} }}"
        )
    };
    let query = [
        add("z", "new %PROTOCOL%", ADD),
        add("b", "ow", "OVERWRITE_IF_EXISTS"),
        add("absent", "1", "OVERWRITE_IF_EXISTS"),
        add("noval", "1", "ADD_IF_ABSENT"),
        "{ remove: gone }".to_owned(),
    ]
    .join(", ");
    let rest = format!("mutations: {{ query_parameter_mutations: [{query}] }}");
    let (upstream, _) = exchange(configured(&filter(&rest), &routes()), GET, OK);
    let line = upstream.lines().next().unwrap();
    assert_eq!(line, "GET /w?z=1&a=%20x&noval&z=new%20HTTP%2F1.1&b=ow HTTP/1.1", "{upstream}");
}

#[test]
fn an_answer_of_ours_passes_the_filters_and_trailers_change() {
    let add = append("x-t", "%RESP(x-up)%", ADD);
    let rest = format!(
        "mutations: {{ response_mutations: [{}], response_trailers_mutations: [{add}], \
         request_trailers_mutations: [{}] }}",
        append("x-m", "1", ADD),
        append("x-rt", "2", ADD),
    );
    let dead = "{ virtual_hosts: [{ name: v, domains: [\"*\"], routes: [{ match: { prefix: / }, route: { cluster: dead } }] }] }";
    let (_, client) = exchange(configured(&filter(&rest), dead), GET, OK);
    assert!(client.starts_with("HTTP/1.1 503"), "{client}");
    assert_eq!(values(&client, "x-m"), ["1"], "{client}");

    let request = "POST /on HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\na: b\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-up: 1\r\n\r\n1\r\na\r\n0\r\nc: d\r\n\r\n";
    let (upstream, client) = exchange(configured(&filter(&rest), &routes()), request, response);
    assert!(upstream.ends_with("0\r\na: b\r\nx-rt: 2\r\n\r\n"), "{upstream}");
    assert!(client.contains("0\r\nc: d\r\nx-t: "), "{client}");
}

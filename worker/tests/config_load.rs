//! Configurations that load, what they become, and that nothing makes the loader panic.

#![allow(clippy::panic, clippy::unwrap_used, reason = "these are tests")]

use baton_worker::config::{
    cluster::{Balancer, Discovery},
    diagnostics::Diagnostic,
    hcm::{CodecType, EscapedSlashes, HttpConnectionManager},
    listener::NetworkFilter,
    load::{LoadOptions, Loaded, Source, load},
    model::{Address, ClusterIndex},
    route::{Action, ClusterTarget, PathMatcher, PathRewrite},
};
use baton_worker::extension::http::router::RouterSettings;
use proptest::prelude::*;
use std::time::Duration;

const OWNER: &str = include_str!("data/owner-envoy.yaml");
const EVERYTHING: &str = include_str!("data/everything.yaml");

fn try_load(text: &str, options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    load(&Source { path: "envoy.yaml".into(), bytes: text.as_bytes().to_vec() }, options)
}

fn must_load(text: &str) -> Loaded {
    try_load(text, &baton_worker::extension::load_options())
        .unwrap_or_else(|list| panic!("{}", baton_worker::config::diagnostics::render(&list)))
}

fn messages(list: &[Diagnostic]) -> Vec<&str> {
    list.iter().map(|d| d.message.as_str()).collect()
}

fn hcm(loaded: &Loaded) -> &HttpConnectionManager {
    let filter = &loaded.bootstrap.listeners[0].filter_chains[0].filters[0];
    let NetworkFilter::HttpConnectionManager(hcm) = filter else { panic!("{filter:?}") };
    hcm
}

#[test]
fn the_example_configuration_loads_with_one_warning() {
    let loaded = must_load(OWNER);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", messages(&loaded.warnings));
    assert!(loaded.warnings[0].hints[0].contains("typed_config"));
    assert_eq!(loaded.warnings[0].line, 26);

    let bootstrap = &loaded.bootstrap;
    let admin = bootstrap.admin.as_ref().unwrap();
    assert_eq!(admin.address, Address::Ip("127.0.0.1:9901".parse().unwrap()));
    assert_eq!(bootstrap.listeners[0].name, "listener_0");
    let cluster = &bootstrap.clusters[0];
    assert_eq!(cluster.discovery, Discovery::LogicalDns);
    assert_eq!(cluster.balancer, Balancer::RoundRobin);
    assert_eq!(cluster.connect_timeout, Duration::from_millis(250));
    let address = Address::Name { host: "simple".into(), port: 80 };
    assert_eq!(cluster.endpoints[0].address, address);

    let hcm = hcm(&loaded);
    assert_eq!(hcm.codec, CodecType::Auto);
    assert_eq!(hcm.filters.len(), 1);
    assert!(!RouterSettings::of(&hcm.filters).suppress_envoy_headers);
    let host = &hcm.routes.fixed().unwrap().virtual_hosts[0];
    assert_eq!(host.domains, ["*"]);
    assert!(matches!(&host.routes[0].matches.path, PathMatcher::Prefix(p) if p == "/"));
    let Action::Forward(action) = &host.routes[0].action else { panic!() };
    assert!(matches!(action.target, ClusterTarget::Cluster(index) if index.0 == 0));
    assert_eq!(action.timeout, Some(Duration::from_secs(15)));
}

#[test]
fn silence_means_safe_defaults() {
    let loaded = must_load(OWNER);
    let hcm = hcm(&loaded);
    assert_eq!(hcm.request_headers_timeout, Some(Duration::from_secs(10)));
    assert_eq!(hcm.stream_idle_timeout, Some(Duration::from_mins(5)));
    assert_eq!(hcm.idle_timeout, Some(Duration::from_hours(1)));
    assert_eq!((hcm.max_headers_bytes, hcm.max_headers_count), (60 * 1024, 100));
    assert_eq!(hcm.escaped_slashes, EscapedSlashes::Keep);
    assert!(hcm.internal.ranges.is_empty() && !hcm.internal.unix_sockets);
    assert!(hcm.normalize_path && hcm.generate_request_id && !hcm.use_remote_address);
    assert_eq!(hcm.server_name, "baton");
}

#[test]
fn the_dump_has_envoys_shape() {
    let loaded = must_load(OWNER);
    let dump = loaded.bootstrap.dump.json();
    let configs = &dump["configs"];
    let prefix = "type.googleapis.com/envoy.admin.v3.";
    assert_eq!(configs[0]["@type"], format!("{prefix}BootstrapConfigDump"));
    let cluster = &configs[1]["static_clusters"][0]["cluster"];
    assert_eq!(cluster["connect_timeout"], "0.250s");
    assert_eq!(configs[2]["static_listeners"][0]["listener"]["name"], "listener_0");
    assert_eq!(configs[3]["static_route_configs"][0]["route_config"]["name"], "local_route");
}

/// Replaces one piece of the example; the result must load.
fn changed(from: &str, to: &str) -> Loaded {
    assert!(OWNER.contains(from), "{from}");
    must_load(&OWNER.replacen(from, to, 1))
}

#[test]
fn a_refusing_route_that_escaped_slashes_pass_is_warned_about() {
    const ROUTES: &str = "routes:\n";
    const KEEP: &str = "path_with_escaped_slashes_action: KEEP_UNCHANGED\n";
    let warned = |path: &str, answer: &str, more: &str| {
        let route = format!("{0:24}- match: {{ {path} }}\n{0:26}{answer}\n", "");
        let text = OWNER.replacen(ROUTES, &format!("{ROUTES}{route}"), 1).replacen(
            "codec_type: AUTO\n",
            &format!("codec_type: AUTO\n{:16}{more}", ""),
            1,
        );
        let loaded = must_load(&text);
        loaded.warnings.iter().any(|warning| warning.message.contains("%2F"))
    };
    let deny = "direct_response: { status: 403 }";
    assert!(warned("prefix: /admin", deny, "\n"));
    assert!(warned("path: /admin", "direct_response: { status: 404 }", "\n"));
    assert!(warned("safe_regex: { regex: /a.* }", deny, "\n"));
    assert!(!warned("prefix: /admin", deny, KEEP));
    assert!(!warned("prefix: /ok", "direct_response: { status: 200 }", "\n"));
    assert!(!warned("prefix: /", deny, "\n"));
    assert!(!warned("prefix: /admin", "route: { cluster: some_service }", "\n"));
}

#[test]
fn envoys_leniencies_are_kept() {
    let check = |from: &str, to: &str| drop(changed(from, to));
    check("LOGICAL_DNS", "logical_dns");
    check("type: LOGICAL_DNS", "type: 2");
    check("codec_type: AUTO", "codecType: auto");
    check("domains: [\"*\"]", "domains: \"*\"");
    check("connect_timeout: 0.25s", "connect_timeout: { seconds: 1, nanos: 500 }");
    check("connect_timeout: 0.25s", "connectTimeout: .25s");
    check("port_value: 80", "port_value: \"80\"");
    check("codec_type: AUTO", "codec_type: null");
    check("codec_type: AUTO", "codec_type: ~\n                use_remote_address: yes");
    check("- name: envoy.filters.http.router", "- name: envoy.router");
    check("lb_policy: ROUND_ROBIN", "lb_policy: ROUND_ROBIN\n      !ignore x: { y: z }");
    check("      lb_policy: ROUND_ROBIN\n", "");
}

#[test]
fn the_same_configuration_in_json_loads() {
    let dump = must_load(OWNER).bootstrap.dump.json()["configs"][0]["bootstrap"].clone();
    for text in [dump.to_string(), serde_json::to_string_pretty(&dump).unwrap()] {
        let loaded = must_load(&text);
        assert!(loaded.warnings.is_empty());
        assert_eq!(loaded.bootstrap.dump.json()["configs"][0]["bootstrap"], dump);
    }
}

#[test]
fn merge_keys_and_anchors_are_followed() {
    let loaded = changed(
        "  clusters:\n    - name: some_service\n      connect_timeout: 0.25s\n",
        "  clusters:\n    - &defaults\n      name: other\n      connect_timeout: 3s\n      type: STATIC\n\
         \x20   - <<: *defaults\n      name: some_service\n",
    );
    assert_eq!(loaded.bootstrap.clusters[1].connect_timeout, Duration::from_secs(3));
    assert_eq!(loaded.bootstrap.clusters[1].name, "some_service");
}

#[test]
fn typed_struct_and_rewrites_are_understood() {
    let loaded = changed(
        "- name: envoy.filters.http.router",
        "- name: router\n                    typed_config:\n                      \
         \"@type\": type.googleapis.com/udpa.type.v1.TypedStruct\n                      \
         type_url: type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n                      \
         value: { suppress_envoy_headers: true }",
    );
    let filters = &hcm(&loaded).filters;
    assert_eq!(filters.len(), 1);
    assert!(RouterSettings::of(filters).suppress_envoy_headers);

    let loaded = changed(
        "route: { cluster: some_service }",
        r"route: { cluster: some_service, timeout: 0s, regex_rewrite: { pattern: { regex: '^/(a)$' }, substitution: '/\1$x\\' } }",
    );
    let table = hcm(&loaded).routes.at_first();
    let Action::Forward(action) = &table.virtual_hosts[0].routes[0].action else { panic!() };
    assert_eq!(action.timeout, None);
    let Some(PathRewrite::Regex(regex, text)) = &action.rewrite else { panic!() };
    assert_eq!(&*regex.replace_all(b"/a", text.as_bytes()), br"/a$x\");
}

#[test]
fn unimplemented_fields_are_errors_or_warnings_but_never_silent() {
    let text = OWNER.replacen(
        "    - name: some_service\n",
        "    - name: some_service\n      outlier_detection: {}\n",
        1,
    );
    let list = try_load(&text, &baton_worker::extension::load_options()).unwrap_err();
    assert!(messages(&list).contains(&"`outlier_detection` is not implemented by baton yet"));
    let allow =
        LoadOptions { allow_unimplemented: true, ..baton_worker::extension::load_options() };
    let loaded = try_load(&text, &allow).unwrap();
    assert!(messages(&loaded.warnings).iter().any(|m| m.contains("outlier_detection")));
}

#[test]
fn what_restricts_is_an_error_even_when_unimplemented_fields_are_allowed() {
    let allow =
        LoadOptions { allow_unimplemented: true, ..baton_worker::extension::load_options() };
    let check = |from: &str, to: &str, field: &str| {
        let text = OWNER.replacen(from, to, 1);
        assert_ne!(text, OWNER, "{from}");
        let list = try_load(&text, &allow).unwrap_err();
        let found = list.iter().find(|d| d.is_error()).unwrap();
        assert!(found.message.contains(field), "{found}");
    };
    let cluster = "    - name: some_service\n";
    let breakers =
        format!("{cluster}      circuit_breakers: {{ thresholds: [{{ max_requests: 1 }}] }}\n");
    check(cluster, &breakers, "circuit_breakers");
    let route = "route: { cluster: some_service }";
    check(
        route,
        "route: { cluster: some_service, max_stream_duration: {} }",
        "max_stream_duration",
    );
    check(
        route,
        "route: { cluster: some_service }\n                          typed_per_filter_config: { x: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute } }",
        "rbac",
    );
    let router = "- name: envoy.filters.http.router";
    for filter in [
        "bandwidth_limit.v3.BandwidthLimit, stat_prefix: x",
        "lua.v3.Lua",
        "rbac.v3.RBAC",
        "nobody.v3.KnowsIt",
    ] {
        let with = format!(
            "- name: x\n                    typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.{filter} }}\n                  {router}"
        );
        check(router, &with, filter.split('.').next().unwrap());
    }
}

#[test]
fn an_extension_without_content_is_left_out() {
    let router = "- name: envoy.filters.http.router";
    for empty in ["typed_config: {}", "typedConfig: {}", "config: {}", "typed_config:", "config:"] {
        let loaded = changed(router, &format!("{router}\n                    {empty}"));
        assert_eq!(hcm(&loaded).filters.len(), 1, "{empty}");
    }
}

#[test]
fn a_transport_socket_and_a_listener_filter_are_never_lost() {
    let cluster = "    - name: some_service\n";
    let listener = "    - name: listener_0\n";
    for config in ["", ", typed_config: {}", ", config: {}"] {
        for (at, text) in [
            (
                cluster,
                format!(
                    "      transport_socket: {{ name: envoy.transport_sockets.tls{config} }}\n"
                ),
            ),
            (listener, format!("      listener_filters: [{{ name: a.b.c{config} }}]\n")),
        ] {
            let text = OWNER.replacen(at, &format!("{at}{text}"), 1);
            assert_ne!(text, OWNER);
            let list = try_load(&text, &baton_worker::extension::load_options()).unwrap_err();
            assert!(
                messages(&list).iter().any(|m| m.ends_with("needs a `typed_config`")),
                "{list:?}"
            );
        }
    }
}

#[test]
fn two_virtual_hosts_may_have_one_name() {
    let host =
        "                    - name: local_service\n                      domains: [\"*\"]\n";
    let more =
        format!("                    - {{ name: local_service, domains: [a.example] }}\n{host}");
    let loaded = changed(host, &more);
    assert_eq!(hcm(&loaded).routes.at_first().virtual_hosts.len(), 2);
    assert!(messages(&loaded.warnings).iter().any(|m| m.contains("stands twice")));
}

#[test]
fn an_access_log_that_cannot_be_opened_is_an_error_of_the_file() {
    let from = "                stat_prefix: ingress_http\n";
    let log = |path: &str| {
        format!(
            "{from}                access_log: [{{ name: x, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {path} }} }}]\n"
        )
    };
    for path in ["/nonexistent/x.log", "/", "/dev/null/x"] {
        let text = OWNER.replacen(from, &log(path), 1);
        assert_ne!(text, OWNER);
        let list = try_load(&text, &baton_worker::extension::load_options()).unwrap_err();
        let error = list.iter().find(|d| d.is_error()).unwrap();
        assert!(error.message.contains("cannot write the access log"), "{error}");
        assert!(
            text.lines().nth(usize::try_from(error.line).unwrap() - 1).unwrap().contains(path),
            "{error}"
        );
    }
}

#[test]
fn suggestions_are_made_for_what_is_shown() {
    let mut text = OWNER.to_owned();
    let at = text.find("                  - name: envoy.filters.http.router").unwrap();
    for index in (0..600).rev() {
        text.insert_str(at, &format!("                  - {{ name: f{index}, typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Routes{index} }} }}\n"));
    }
    let list = try_load(&text, &baton_worker::extension::load_options()).unwrap_err();
    assert_eq!(list.len(), 50);
    assert!(list.iter().all(|d| !d.hints.is_empty() && !d.source_line.is_empty()));
    assert!(list[49].hints.iter().any(|hint| hint.contains("more errors")), "{}", list[49]);
}

#[test]
fn what_protects_is_never_left_out() {
    let allow =
        LoadOptions { allow_unimplemented: true, ..baton_worker::extension::load_options() };
    let rbac = "- name: rbac\n                    typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC }\n                  - name: envoy.filters.http.router";
    let text = OWNER.replacen("- name: envoy.filters.http.router", rbac, 1);
    assert!(try_load(&text, &allow).is_err());
    let cors = rbac.replace("rbac.v3.RBAC", "cors.v3.Cors");
    let text = OWNER.replacen("- name: envoy.filters.http.router", &cors, 1);
    assert!(try_load(&text, &allow).is_ok());
}

#[test]
fn variables_are_replaced_only_when_asked_for() {
    let text = OWNER.replacen("name: listener_0", "name: \"${BATON_TEST_UNSET:-fallback}\"", 1);
    assert_eq!(must_load(&text).bootstrap.listeners[0].name, "${BATON_TEST_UNSET:-fallback}");
    let expand = LoadOptions { expand_env: true, ..baton_worker::extension::load_options() };
    assert_eq!(try_load(&text, &expand).unwrap().bootstrap.listeners[0].name, "fallback");
    let text = text.replace(":-fallback", "");
    let list = try_load(&text, &expand).unwrap_err();
    assert_eq!((list[0].line, list[0].column), (7, 13));
}

#[test]
fn an_overlay_wins_and_its_mistakes_have_its_own_positions() {
    let with = |text: &str| LoadOptions {
        overlay: Some(text.into()),
        ..baton_worker::extension::load_options()
    };
    let overlay = "admin: { address: { socket_address: { port_value: 9902 } } }";
    let loaded = try_load(OWNER, &with(overlay)).unwrap();
    let admin = loaded.bootstrap.admin.clone().unwrap();
    assert_eq!(admin.address, Address::Ip("127.0.0.1:9902".parse().unwrap()));
    let list = try_load(OWNER, &with("admin: { adress: {} }")).unwrap_err();
    let error = list.iter().find(|d| d.is_error()).unwrap();
    assert!(error.path == "<config-yaml>" && error.column == 10, "{error}");
}

#[test]
fn a_listener_takes_its_connection_limit_from_the_static_runtime() {
    let text = format!(
        "{OWNER}\nlayered_runtime:\n  layers:\n  - name: static\n    static_layer:\n      \
         envoy.resource_limits.listener.listener_0.connection_limit: 100\n"
    );
    let loaded = must_load(&text);
    assert_eq!(loaded.bootstrap.listeners[0].socket.max_connections, Some(100));
}

#[test]
fn the_limit_of_all_listeners_comes_from_the_static_runtime() {
    let text = |value: &str| {
        format!(
            "{OWNER}\nlayered_runtime:\n  layers:\n  - name: static\n    static_layer:\n      \
             overload: {{ global_downstream_max_connections: {value} }}\n"
        )
    };
    assert_eq!(must_load(&text("50000")).bootstrap.max_connections, Some(50_000));
    let list = try_load(&text("many"), &baton_worker::extension::load_options()).unwrap_err();
    assert!(list.iter().any(|d| d.is_error() && d.message.contains("whole number")));
}

/// Whatever comes in, there is no panic and each error has a place in the file.
fn survives(bytes: Vec<u8>) {
    // In YAML a carriage return ends a line, too.
    let lines = bytes.split(|b| matches!(b, b'\n' | b'\r')).count();
    let source = Source { path: "fuzz.yaml".into(), bytes };
    let options = LoadOptions { expand_env: true, ..baton_worker::extension::load_options() };
    if let Err(list) = load(&source, &options) {
        assert!(list.iter().any(Diagnostic::is_error));
        for diagnostic in list {
            let line = usize::try_from(diagnostic.line).unwrap();
            assert!((1..=lines).contains(&line), "{diagnostic}");
            assert!(diagnostic.column >= 1 && !diagnostic.message.is_empty());
            drop(diagnostic.to_string());
            drop(diagnostic.to_json());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(bytes);
    }

    #[test]
    fn random_yaml_like_text_never_panics(text in "[-a-z:{}\\[\\],&*!|>'\"#%@` \t\n0-9.$]{0,200}") {
        survives(text.into_bytes());
    }

    #[test]
    fn a_damaged_configuration_never_panics(edits in edits()) {
        survives(damage(OWNER, edits));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_large_configuration_never_panics(edits in edits()) {
        survives(damage(EVERYTHING, edits));
    }
}

type Edit = (prop::sample::Index, u8, u8);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0_u8..5, any::<u8>()), 1..6)
}

/// Changes, removes, inserts, cuts off and doubles.
fn damage(text: &str, edits: Vec<Edit>) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (index, kind, byte) in edits {
        let at = index.index(bytes.len());
        match kind {
            0 => bytes[at] = byte,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, b"-: {}[]\n\"'&*!%$"[usize::from(byte) % 15]),
            // A value of another kind takes the place of the rest of the line.
            3 => {
                let end =
                    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n);
                let values =
                    ["null", "-1", "[]", "{}", "[[]]", "{a: b}", "x", "99999999999999999999"];
                let value = values[usize::from(byte) % values.len()];
                drop(bytes.splice(at..end, value.bytes()));
            }
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(b' ');
        }
    }
    bytes
}

/// A configuration with these `dynamic_resources`, and a listener whose cluster is not in it.
fn with_dynamic(resources: &str) -> String {
    let text = OWNER.replacen("cluster: some_service", "cluster: not_here", 1);
    assert_ne!(text, OWNER);
    format!("{text}\ndynamic_resources: {{ {resources} }}\n")
}

#[test]
fn a_cluster_may_come_from_a_file_later() {
    let loaded = must_load(&with_dynamic("cds_config: { path: /dev/null }"));
    let bootstrap = &loaded.bootstrap;
    assert_eq!((bootstrap.clusters.len(), bootstrap.cluster_names.len()), (1, 2));
    let table = hcm(&loaded).routes.at_first();
    let Action::Forward(action) = &table.virtual_hosts[0].routes[0].action else { panic!() };
    assert!(matches!(action.target, ClusterTarget::Cluster(index) if index.0 == 1));
    assert_eq!(bootstrap.cluster_names.name(ClusterIndex(1)).as_deref(), Some("not_here"));
}

#[test]
fn a_cluster_that_comes_from_nowhere_is_a_mistake() {
    let unknown = "unknown cluster `not_here`";
    let options = baton_worker::extension::load_options();
    let list = try_load(&with_dynamic("lds_config: { path: /dev/null }"), &options).unwrap_err();
    assert!(messages(&list).contains(&unknown), "{list:?}");
    // What is not implemented is said, and nothing that may follow from it.
    let ads = with_dynamic("cds_config: { ads: {} }");
    let list = try_load(&ads, &options).unwrap_err();
    assert_eq!(messages(&list)[1..], ["`ads` is not implemented by baton yet"], "{list:?}");
    let allow = LoadOptions { allow_unimplemented: true, ..options };
    let list = try_load(&ads, &allow).unwrap_err();
    assert!(messages(&list).contains(&unknown), "{list:?}");
}

#[test]
fn listeners_that_come_from_a_file_are_listeners() {
    must_load("dynamic_resources: { lds_config: { path: /dev/null } }");
    let options = baton_worker::extension::load_options();
    let text = "dynamic_resources: { cds_config: { path: /dev/null } }";
    let list = try_load(text, &options).unwrap_err();
    assert_eq!(messages(&list), ["this configuration listens nowhere"]);
}

#[test]
fn a_file_that_is_not_there_yet_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lds.yaml");
    let text = format!("dynamic_resources: {{ lds_config: {{ path: {} }} }}", path.display());
    let loaded = must_load(&text);
    assert!(messages(&loaded.warnings)[0].starts_with("there is no file"), "{:?}", loaded.warnings);
    std::fs::write(&path, "").unwrap();
    assert!(must_load(&text).warnings.is_empty());
    // A file without a directory is in this one.
    let loaded = must_load("dynamic_resources: { lds_config: { path: lds.yaml } }");
    let source = loaded.bootstrap.dynamic.listeners.as_ref().unwrap();
    assert_eq!(source.path, std::path::Path::new("./lds.yaml"));
}

#[test]
fn routes_and_endpoints_from_elsewhere_are_never_left_out() {
    let allow =
        LoadOptions { allow_unimplemented: true, ..baton_worker::extension::load_options() };
    let eds = OWNER.replacen(
        "type: LOGICAL_DNS",
        "type: EDS\n      eds_cluster_config: { eds_config: { ads: {} } }",
        1,
    );
    assert_ne!(eds, OWNER);
    let list = try_load(&eds, &allow).unwrap_err();
    assert!(list.iter().any(|d| d.message.starts_with("endpoints can only come from a file")));
}

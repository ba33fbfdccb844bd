//! The admin interface over a real connection: what it answers, and that names, labels, types and
//! shapes are those of Envoy 1.40.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; a failure is the end of the test"
)]

#[path = "admin/files.rs"]
mod files;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use baton_contract::peer::Stay;
use baton_contract::{
    generation::{Generation, State},
    message::DrainStrategy,
    shm::{SegmentOwner, SegmentReader, SegmentWorker},
};
use baton_worker::{
    LogControl,
    admin::{
        self, AdminAction, AdminContext, AdminOptions, ListenersEnd, Peer,
        resources::{File, Problem, Shown, View},
    },
    clock,
    cluster::{Change, ClusterManager},
    config::{
        kind::Kind,
        load::{Source, load},
        resource::{Context, Document, Resource, read},
    },
    drain::Scope,
    stats::{
        ClusterStats, ConnectionKind, EndReason, HttpStats, Ledger, ListenerStats, MembershipStats,
        MigrationStats, ServerStats, TcpStats, ThreadStats,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    task::LocalSet,
};

const CONFIG: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - name: listener_0
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          route_config:
            virtual_hosts:
            - {name: v, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: some_service}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: some_service
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: some_service
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]
"#;

/// The level of everything, and one component.
#[derive(Debug)]
struct Log(Mutex<String>);

impl LogControl for Log {
    fn reopen(&self) {}

    fn set(&self, component: Option<&str>, level: &str) -> Result<(), String> {
        if component.is_some_and(|name| name != "admin") {
            return Err(format!("no component {component:?}"));
        }
        level.clone_into(&mut self.0.lock().unwrap());
        Ok(())
    }

    fn levels(&self) -> Vec<(String, String)> {
        vec![("admin".to_owned(), self.0.lock().unwrap().clone())]
    }
}

/// A generation that has counted something.
struct Server {
    owner: SegmentOwner,
    context: Rc<AdminContext>,
    actions: mpsc::UnboundedReceiver<AdminAction>,
    _stats: ThreadStats,
}

fn server(allow_mutations: bool) -> Server {
    let base_id = 3_000_000_000 + std::process::id() % 1_000_000;
    let mut owner = SegmentOwner::create(base_id).unwrap();
    let slot = owner.register(Generation(4), 2).unwrap();
    owner.set_state(slot, State::Serving);
    owner.set_pid(slot, std::process::id());
    let segment = SegmentWorker::open(owner.os_id(), slot).unwrap();
    let stats = ThreadStats::new(segment.thread(0).unwrap());
    count_something(&stats);
    let source = Source { path: PathBuf::from("envoy.yaml"), bytes: CONFIG.as_bytes().to_vec() };
    let bootstrap = load(&source, &baton_worker::extension::load_options()).unwrap().bootstrap;
    let (sender, actions) = mpsc::unbounded_channel();
    let context = AdminContext {
        reader: SegmentReader::open(owner.os_id()).unwrap(),
        segment,
        generation: Generation(4),
        clusters: ClusterManager::new(&bootstrap),
        shown: Arc::new(ArcSwap::from_pointee(View {
            listeners: bootstrap.listeners.clone(),
            files: Vec::new(),
        })),
        bootstrap,
        log: Arc::new(Log(Mutex::new("info".to_owned()))),
        actions: sender,
        options: AdminOptions {
            config_path: "envoy.yaml".to_owned(),
            concurrency: 2,
            drain_time: Duration::from_secs(600),
            parent_shutdown_time: Duration::from_secs(900),
            drain_strategy: DrainStrategy::Migrate,
            allow_mutations,
            supervisor_keeps_sockets: false,
        },
        started: clock::now(),
        started_at: clock::wall(),
        load_options: baton_worker::extension::load_options(),
        health_failed: AtomicBool::new(false),
    };
    Server { owner, context: Rc::new(context), actions, _stats: stats }
}

fn drain(scope: Scope, end: ListenersEnd) -> AdminAction {
    AdminAction::DrainListeners { scope, end }
}

fn count_something(stats: &ThreadStats) {
    let http = HttpStats::new(stats, "ingress_http");
    http.downstream_cx_total.add(9);
    http.response(200);
    http.response(404);
    http.downstream_rq_time.record(7);
    http.downstream_rq_time.record(300);
    MembershipStats::new(stats, "some_service").membership_total.set(1);
    let cluster = ClusterStats::new(stats, "some_service");
    cluster.upstream_cx_total.add(2);
    cluster.response(200);
    ListenerStats::new(stats, "127.0.0.1_10000").downstream_cx_total.add(9);
    TcpStats::new(stats, "tcp1").downstream_cx_total.inc();
    let migration = MigrationStats::new(stats);
    migration.moved(Some(ConnectionKind::Upgraded)).add(7);
    migration.stayed(Stay::Busy).inc();
    ServerStats::new(stats).server.concurrency.set(2);
    let ledger = Ledger::new(stats);
    for _ in 0..3 {
        ledger.opened();
    }
    ledger.open(ConnectionKind::Http1).inc();
    ledger.closed(EndReason::Client);
    ledger.closed(EndReason::Drained);
}

/// Status and body of the answer to one request.
async fn ask(context: &Rc<AdminContext>, peer: Peer, request: &str) -> (u16, String) {
    let (mut client, stream) = UnixStream::pair().unwrap();
    let serving = tokio::task::spawn_local(admin::serve(Rc::clone(context), stream, peer));
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    serving.await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    for line in ["cache-control: no-cache, max-age=0", "x-content-type-options: nosniff"] {
        assert!(head.contains(line), "{head}");
    }
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:9901\r\nconnection: close\r\n\r\n")
}

async fn get(server: &Server, path: &str) -> (u16, String) {
    ask(&server.context, Peer::Tcp, &request("GET", path)).await
}

async fn get_json(server: &Server, path: &str) -> Value {
    let (status, body) = get(server, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn reading_answers_in_envoys_shapes() {
    run(async {
        let server = server(false);
        assert_eq!(get(&server, "/ready").await, (200, "LIVE\n".to_owned()));
        let (_, text) = get(&server, "/listeners").await;
        assert_eq!(text, "listener_0::127.0.0.1:10000\n");
        let listeners = get_json(&server, "/listeners?format=json").await;
        assert_eq!(
            listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"],
            10000
        );
        let (_, text) = get(&server, "/clusters").await;
        assert_eq!(text.lines().count(), 29);
        for line in [
            "some_service::default_priority::max_connections::1024",
            "some_service::added_via_api::false",
            "some_service::127.0.0.1:8080::cx_active::0",
            "some_service::127.0.0.1:8080::health_flags::healthy",
            "some_service::127.0.0.1:8080::local_origin_success_rate::-1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        let clusters = get_json(&server, "/clusters?format=json").await;
        assert_eq!(clusters["cluster_statuses"][0]["host_statuses"][0]["weight"], 1);
        let info = get_json(&server, "/server_info").await;
        assert_eq!(
            (&info["state"], &info["command_line_options"]["drain_time"]),
            (&json!("LIVE"), &json!("600s"))
        );
        assert_eq!(info["command_line_options"]["drain_strategy"], "Migrate");
        let version = baton_contract::version::hot_restart_version();
        assert_eq!(info["hot_restart_version"], json!(version));
        let dump = get_json(&server, "/config_dump").await;
        assert_eq!(
            dump["configs"][0]["@type"],
            "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"
        );
        let dump = get_json(&server, "/config_dump?resource=static_clusters").await;
        assert_eq!(dump["configs"][0]["cluster"]["name"], "some_service");
        let dump = get_json(&server, "/config_dump?resource=static_clusters&name_regex=x").await;
        assert_eq!(dump["configs"], json!([]));
        assert_eq!(get_json(&server, "/certs").await, json!({"certificates": []}));
        let runtime = get_json(&server, "/runtime").await;
        assert_eq!(runtime, json!({"entries": {}, "layers": []}));
        assert!(get_json(&server, "/memory").await["allocated"].is_string());
        let (status, page) = get(&server, "/").await;
        assert!(status == 200 && page.contains("/quitquitquit") && page.contains("listener_0"));
        let (status, help) = get(&server, "/nothing").await;
        assert!(status == 404 && help.starts_with("invalid path. admin commands are:\n"));
    });
}

#[test]
fn the_generations_and_the_ledger_are_shown() {
    run(async {
        let server = server(false);
        let report = get_json(&server, "/generations").await;
        let row = &report["generations"][0];
        assert_eq!((&row["generation"], &row["state"]), (&json!(4), &json!("SERVING")));
        assert_eq!(
            row["connections"],
            json!({"open": 1, "by_kind": {"http1": 1, "upgraded": 0, "tcp": 0}})
        );
        let ended = &report["ledger"]["ended"];
        assert_eq!(
            (&ended["client"], &ended["drained"], &ended["crash"]),
            (&json!(1), &json!(1), &json!(0))
        );
        assert_eq!(
            (&report["ledger"]["opened"], &report["ledger"]["open"]),
            (&json!(3), &json!(1))
        );
        let migration = &report["migration"];
        assert_eq!(migration["moved"]["upgraded"], 7);
        assert_eq!(
            (&migration["stayed"]["busy"], &migration["moved"]["http1"]),
            (&json!(1), &json!(0))
        );
        server.owner.set_state(server.context.segment.slot(), State::Draining);
        assert_eq!(get(&server, "/ready").await, (503, "DRAINING\n".to_owned()));
    });
}

#[test]
fn statistics_are_selected_and_rendered() {
    run(async {
        let server = server(false);
        let (_, text) =
            get(&server, "/stats?filter=^http.ingress_http.downstream_(rq_2|rq_time$)").await;
        assert_eq!(
            text,
            "http.ingress_http.downstream_rq_2xx: 1\n\
             http.ingress_http.downstream_rq_time: P0(nan,7) P25(nan,7) P50(nan,7) P75(nan,300) \
             P90(nan,300) P95(nan,300) P99(nan,300) P99.5(nan,300) P99.9(nan,300) P100(nan,300)\n"
        );
        let (_, text) = get(&server, "/stats?filter=upstream_rq_time$").await;
        assert_eq!(text, "cluster.some_service.upstream_rq_time: No recorded values\n");
        let (_, text) = get(&server, "/stats?usedonly&type=Counters&filter=tcp").await;
        assert_eq!(text, "tcp.tcp1.downstream_cx_total: 1\n");
        let stats =
            get_json(&server, "/stats?format=json&filter=http.*downstream_cx_total|rq_time$").await;
        assert_eq!(
            stats["stats"][0],
            json!({"name": "http.ingress_http.downstream_cx_total", "value": 9})
        );
        let histograms = &stats["stats"].as_array().unwrap().last().unwrap()["histograms"];
        assert_eq!(histograms["supported_quantiles"][7], 99.5);
        assert_eq!(
            histograms["computed_quantiles"][1]["values"][2],
            json!({"interval": null, "cumulative": 7})
        );
        assert_eq!(get(&server, "/stats?filter=(").await.0, 400);
        assert_eq!(get(&server, "/stats?format=x").await.0, 400);
    });
}

#[test]
fn changes_need_post_and_permission() {
    run(async {
        let mut reading = server(false);
        let post = request("POST", "/quitquitquit");
        let (status, text) = get(&reading, "/quitquitquit").await;
        assert_eq!((status, text.as_str()), (405, "Method GET not allowed, POST required."));
        assert_eq!(ask(&reading.context, Peer::Tcp, &post).await.0, 403);
        assert_eq!(ask(&reading.context, Peer::Unix, &post).await, (200, "OK\n".to_owned()));
        assert_eq!(reading.actions.try_recv(), Ok(AdminAction::Quit));

        let mut changing = server(true);
        let evil = post.replace("connection", "origin: http://evil.example\r\nconnection");
        assert_eq!(ask(&changing.context, Peer::Tcp, &evil).await.0, 403);
        let rebound = post.replace("127.0.0.1", "rebound.example");
        assert_eq!(ask(&changing.context, Peer::Tcp, &rebound).await.0, 403);
        assert!(changing.actions.try_recv().is_err());
        for (path, action) in [
            ("/quitquitquit", AdminAction::Quit),
            ("/reopen_logs", AdminAction::ReopenLogs),
            ("/healthcheck/fail", AdminAction::FailHealthChecks(true)),
            ("/drain_listeners", drain(Scope::All, ListenersEnd::Now)),
            ("/drain_listeners?graceful", drain(Scope::All, ListenersEnd::AfterDrain)),
            ("/drain_listeners?skip_exit", drain(Scope::All, ListenersEnd::Never)),
            ("/drain_listeners?graceful&skip_exit", drain(Scope::All, ListenersEnd::Never)),
            ("/drain_listeners?inboundonly=false", drain(Scope::Inbound, ListenersEnd::Now)),
            (
                "/drain_listeners?inboundonly&graceful",
                drain(Scope::Inbound, ListenersEnd::AfterDrain),
            ),
        ] {
            let answer = ask(&changing.context, Peer::Tcp, &request("POST", path)).await;
            assert_eq!(answer, (200, "OK\n".to_owned()), "{path}");
            assert_eq!(changing.actions.try_recv(), Ok(action));
        }
        assert_eq!(get(&changing, "/ready").await, (503, "DRAINING\n".to_owned()));
        ask(&changing.context, Peer::Tcp, &request("POST", "/healthcheck/ok")).await;
        assert_eq!(get(&changing, "/ready").await.0, 200);
        let (_, levels) =
            ask(&changing.context, Peer::Tcp, &request("POST", "/logging?level=debug")).await;
        assert_eq!(levels, "active loggers:\n  admin: debug\n\n");
        let wrong = request("POST", "/logging?paths=none:debug");
        assert_eq!(ask(&changing.context, Peer::Tcp, &wrong).await.0, 400);
        ask(&changing.context, Peer::Tcp, &request("POST", "/reset_counters")).await;
        let (_, text) = get(&changing, "/stats?filter=tcp1.downstream_cx_total").await;
        assert_eq!(text, "tcp.tcp1.downstream_cx_total: 0\n");
    });
}

#[test]
fn who_drains_listeners_under_an_older_supervisor_is_told_that_clients_wait() {
    run(async {
        let mut server = server(true);
        let context = Rc::get_mut(&mut server.context).unwrap();
        context.options.supervisor_keeps_sockets = true;
        let (status, text) =
            ask(&server.context, Peer::Tcp, &request("POST", "/drain_listeners")).await;
        assert_eq!(status, 200);
        assert!(text.starts_with("OK\nwarning: the supervisor is of an older version"), "{text}");
        assert_eq!(server.actions.try_recv(), Ok(drain(Scope::All, ListenersEnd::Now)));
        let announced = request("POST", "/drain_listeners?skip_exit");
        let answer = ask(&server.context, Peer::Tcp, &announced).await;
        assert_eq!(answer, (200, "OK\n".to_owned()), "nothing is closed");
    });
}

/// A family of the exposition.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads the text format of Prometheus and accepts nothing that is not in its grammar: one TYPE
/// before the samples of a family, families in one piece, no sample twice, known escapes only.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'));
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut seen) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!families.contains_key(name) && !help.is_empty(), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{line}");
            name.clone_into(&mut current);
            continue;
        }
        let (name, rest) = line.split_once('{').unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
        let (labels, value) = labels(rest);
        let family = families.get_mut(&current).unwrap();
        let suffix = name.strip_prefix(current.as_str()).unwrap();
        let suffixes: &[&str] =
            if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        assert!(seen.insert((name.to_owned(), labels.clone())), "{line}");
        family.labels.extend(labels.keys().filter(|key| *key != "le").cloned());
        family.samples.push((suffix.to_owned(), labels, value.parse().unwrap()));
    }
    families
}

/// Labels after the opening brace, and what follows the closing one.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.starts_with('}') {
        let (key, after) = rest.split_once("=\"").unwrap();
        let key = key.strip_prefix(',').unwrap_or(key);
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{text}");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("unknown escape {other} in {text}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(key.to_owned(), value).is_none(), "{text}");
        rest = after.get(end..).unwrap();
    }
    (labels, rest.strip_prefix("} ").unwrap())
}

#[test]
fn the_prometheus_text_is_well_formed() {
    run(async {
        let server = server(false);
        let odd = "odd \"name\"\\\n";
        let stats = ThreadStats::new(server.context.segment.thread(1).unwrap());
        ClusterStats::new(&stats, odd).upstream_rq_total.add(5);
        let (_, text) = get(&server, "/stats/prometheus").await;
        let families = parse(&text);
        let total = &families["envoy_cluster_upstream_rq_total"];
        assert!(total.samples.iter().any(|(_, labels, value)| {
            labels["envoy_cluster_name"] == odd && (*value - 5.0).abs() < f64::EPSILON
        }));
        for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
            let mut last = (f64::MIN, 0.0);
            for (suffix, labels, value) in &family.samples {
                match suffix.as_str() {
                    "_bucket" => {
                        let bound: f64 = labels["le"].parse().unwrap();
                        assert!(bound > last.0 && *value >= last.1, "{name}");
                        last = (bound, *value);
                    }
                    "_count" => {
                        assert!(last.0.is_infinite(), "{name}");
                        assert!((value - last.1).abs() < f64::EPSILON, "{name}");
                        last = (f64::MIN, 0.0);
                    }
                    _ => {}
                }
            }
        }
        let (_, same) = get(&server, "/stats?format=prometheus").await;
        assert_eq!(parse(&same).len(), families.len());
    });
}

#[test]
fn families_types_and_labels_are_those_of_envoy() {
    run(async {
        let server = server(false);
        let (_, text) = get(&server, "/stats/prometheus").await;
        let ours: BTreeSet<String> = parse(&text)
            .into_iter()
            .filter(|(name, _)| name.starts_with("envoy_"))
            .map(|(name, family)| {
                let labels: Vec<_> = family.labels.into_iter().collect();
                format!("{} {name} {}", family.kind, labels.join(",")).trim_end().to_owned()
            })
            .collect();
        let known: BTreeSet<String> = include_str!("envoy_metrics.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect();
        let missing: Vec<_> = known.difference(&ours).collect();
        let unknown: Vec<_> = ours.difference(&known).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "{missing:#?} {unknown:#?}");
    });
}

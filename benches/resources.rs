//! What it costs to read a file of resources of which little changed:
//! `cargo bench -p baton-worker --bench resources`.
//!
//! Not a test: nothing is asserted about time.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::expect_used, reason = "a broken set-up must stop it")]

mod measure;

use std::{collections::HashMap, fmt::Write as _, hint::black_box, sync::Arc};

use baton_worker::{
    config::{
        load::{LoadOptions, Source, load},
        model::Bootstrap,
        resource::{Context, Document, Entry, Kind, Read, read},
    },
    extension,
};
use measure::measure;

const COUNT: usize = 10_000;

fn main() {
    let options = extension::load_options();
    let text =
        "dynamic_resources: { cds_config: { path: /dev/null }, lds_config: { path: /dev/null } }";
    let source = Source { path: "envoy.yaml".into(), bytes: text.into() };
    let bootstrap = load(&source, &options).expect("a configuration").bootstrap;
    let reader = Reader { bootstrap, options };

    for (style, before, after) in [
        ("block style", clusters("1s"), clusters("2s")),
        ("JSON", clusters_json("1s"), clusters_json("2s")),
    ] {
        println!("{style}: {} bytes", before.len());
        let before = document(before);
        let first = reader.read(&before, Kind::Cluster, &HashMap::new());
        assert_eq!(first.entries.len(), COUNT);
        let known: HashMap<u128, Entry> =
            first.entries.into_iter().map(|entry| (entry.hash, entry)).collect();
        measure(&format!("{style}: {COUNT} clusters, all new"), || {
            black_box(reader.read(&before, Kind::Cluster, &HashMap::new()));
        });
        let after = document(after);
        measure(&format!("{style}: {COUNT} clusters, one changed"), || {
            black_box(reader.read(&after, Kind::Cluster, &known));
        });
    }
    let assignment = document(endpoints());
    measure(&format!("one list of {COUNT} endpoints"), || {
        black_box(reader.read(&assignment, Kind::ClusterLoadAssignment, &HashMap::new()));
    });
}

struct Reader {
    bootstrap: Arc<Bootstrap>,
    options: LoadOptions,
}

impl Reader {
    fn read(&self, document: &Arc<Document>, kind: Kind, known: &HashMap<u128, Entry>) -> Read {
        let context = Context { bootstrap: &self.bootstrap, options: &self.options };
        let read = read(document, kind, &context, &|hash| known.get(&hash).cloned());
        let read = read.expect("a file of resources");
        assert!(read.rejected.is_empty(), "{:?}", read.rejected);
        read
    }
}

fn document(text: String) -> Arc<Document> {
    Arc::new(Document { path: "resources.yaml".into(), bytes: text.into_bytes() })
}

/// Clusters in block style, of which the one in the middle has this timeout.
fn clusters(timeout: &str) -> String {
    let mut text = "version_info: \"1\"\nresources:\n".to_owned();
    for number in 0..COUNT {
        let timeout = if number == COUNT / 2 { timeout } else { "1s" };
        write!(
            text,
            "- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  \
             name: service-{number}\n  type: EDS\n  connect_timeout: {timeout}\n  \
             eds_cluster_config:\n    eds_config:\n      path_config_source:\n        \
             path: /dev/null\n"
        )
        .expect("memory");
    }
    text
}

/// The same in JSON, on one line.
fn clusters_json(timeout: &str) -> String {
    let items: Vec<String> = (0..COUNT)
        .map(|number| {
            let timeout = if number == COUNT / 2 { timeout } else { "1s" };
            format!(
                "{{\"@type\":\"type.googleapis.com/envoy.config.cluster.v3.Cluster\",\
                 \"name\":\"service-{number}\",\"type\":\"EDS\",\"connect_timeout\":\"{timeout}\",\
                 \"eds_cluster_config\":{{\"eds_config\":{{\"path_config_source\":\
                 {{\"path\":\"/dev/null\"}}}}}}}}"
            )
        })
        .collect();
    format!("{{\"version_info\":\"1\",\"resources\":[{}]}}", items.join(","))
}

fn endpoints() -> String {
    let mut text = "version_info: \"1\"\nresources:\n- \"@type\": \
                    type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n  \
                    cluster_name: service\n  endpoints:\n  - lb_endpoints:\n"
        .to_owned();
    for number in 0..COUNT {
        let (high, low) = (number / 250, number % 250);
        writeln!(
            text,
            "    - endpoint: {{ address: {{ socket_address: {{ address: 10.0.{high}.{low}, \
             port_value: 8080 }} }} }}"
        )
        .expect("memory");
    }
    text
}

//! Tests of the store of resources.

use serde_json::json;

use super::*;
use crate::config::load::load;

/// A configuration whose listeners have their routes from this many files.
fn resources(directory: &std::path::Path, files: usize) -> Resources {
    let listener = |at: usize| {
        let path = directory.join(format!("routes{at}.json"));
        let hcm = "envoy.extensions.filters.network.http_connection_manager.v3";
        let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
        json!({
            "name": format!("l{at}"),
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 10000 + at}},
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": format!("type.googleapis.com/{hcm}.HttpConnectionManager"),
                    "stat_prefix": "http",
                    "rds": {
                        "route_config_name": "r",
                        "config_source": {"path_config_source": {"path": path}},
                    },
                    "http_filters": [{
                        "name": "envoy.filters.http.router",
                        "typed_config": {"@type": router},
                    }],
                },
            }]}],
        })
    };
    let listeners: Vec<_> = (0..files).map(listener).collect();
    let admin = json!({"address": {"pipe": {"path": "@admin"}}});
    let config = json!({"admin": admin, "static_resources": {"listeners": listeners}});
    let bytes = config.to_string().into_bytes();
    let source = Source { path: "envoy.json".into(), bytes };
    let options = crate::extension::load_options();
    let bootstrap = load(&source, &options).unwrap().bootstrap;
    let mut resources = Resources::new(&bootstrap, options, source);
    resources.open(None);
    resources
}

#[tokio::test]
async fn generations_that_accepted_the_same_name_it_alike() {
    let directory = tempfile::tempdir().unwrap();
    for at in 0..8 {
        let text = json!({"resources": [{
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "r",
            "virtual_hosts": [{"name": format!("v{at}"), "domains": ["*"]}],
        }]});
        let path = directory.path().join(format!("routes{at}.json"));
        std::fs::write(path, text.to_string()).unwrap();
    }
    let file = memfd::sealed("test", b"").unwrap();
    let source = ConfigSource { hash: 1, file_hash: 1, edition: 0, path: String::new(), file };
    let mut hashes = (0..4).map(|_| {
        let mut resources = resources(directory.path(), 8);
        assert_eq!(resources.subscriptions().filter(|it| it.only().is_some()).count(), 8);
        resources.next_edition(&source).unwrap().hash
    });
    let first = hashes.next().unwrap();
    assert_ne!(first, 1);
    assert!(hashes.all(|hash| hash == first), "connections would name an edition nobody knows");
}

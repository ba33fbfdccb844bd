//! What was accepted last goes on to the next generation, whatever the files say meanwhile.

use super::site::{
    Site, as_cluster, as_listener, eds_cluster, endpoints, http_listener, kill_worker,
    rds_listener, resources, routes, source, until_answers, who,
};
use crate::harness::eventually::until;
use crate::harness::lab::free_address;
use crate::harness::{Program, client};
use baton_torture::files::{ResourceFile, Way};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// All four kinds of files.
struct World {
    site: Site,
    clusters: ResourceFile,
    endpoints: ResourceFile,
    listeners: ResourceFile,
    routes: ResourceFile,
    /// A listener that is in the second version only.
    second: SocketAddr,
}

impl World {
    fn new() -> Self {
        let site = Site::new();
        let world = Self {
            clusters: site.file("clusters"),
            endpoints: site.file("endpoints"),
            listeners: site.file("listeners"),
            routes: site.file("routes"),
            second: free_address(),
            site,
        };
        let none = json!({});
        let cluster = as_cluster(eds_cluster("up", &source(&world.endpoints, &none)));
        put(&world.clusters, "v1", &[cluster]);
        put(&world.endpoints, "v1", &[endpoints("up", &[world.site.a])]);
        put(&world.routes, "v1", &[routes("r", &[("/", "up")])]);
        put(&world.listeners, "v1", &[world.edge()]);
        world
    }

    fn edge(&self) -> Value {
        as_listener(rds_listener("edge", self.site.http, "r", &source(&self.routes, &json!({}))))
    }

    fn start(&self) -> Program {
        let none = json!({});
        let dynamic = json!({ "dynamic_resources": {
            "cds_config": source(&self.clusters, &none),
            "lds_config": source(&self.listeners, &none),
        }});
        self.site.start(&[], &[], &dynamic)
    }

    /// Another server, another route, another listener, and another cluster.
    fn change(&self) {
        let endpoints_of =
            |name: &str| as_cluster(eds_cluster(name, &source(&self.endpoints, &json!({}))));
        put(&self.endpoints, "v2", &[endpoints("up", &[self.site.b])]);
        until_answers(self.site.http, "/", "b");
        let more = as_cluster(super::site::cluster("more", self.site.a));
        put(&self.clusters, "v2", &[endpoints_of("up"), more]);
        put(&self.routes, "v2", &[routes("r", &[("/more", "more"), ("/", "up")])]);
        until_answers(self.site.http, "/more", "a");
        let second = as_listener(http_listener("second", self.second, &[("/", "more")]));
        put(&self.listeners, "v2", &[self.edge(), second]);
        until_answers(self.second, "/", "a");
    }

    /// Every file becomes bad, and that was seen.
    fn spoil(&self) {
        let counted = [
            (&self.clusters, "cluster_manager.cds"),
            (&self.endpoints, "cluster.up"),
            (&self.routes, "http.web.rds.r"),
            (&self.listeners, "listener_manager.lds"),
        ];
        for (file, scope) in counted {
            file.put("resources: [", Way::Rename).expect("write");
            let name = format!("{scope}.update_failure");
            until(&name, || self.site.stat(&name) >= 1);
        }
    }

    /// The second version serves.
    fn check(&self) {
        assert_eq!(who(self.site.http, "/"), "b");
        assert_eq!(who(self.site.http, "/more"), "a");
        assert_eq!(who(self.second, "/"), "a");
        assert_eq!(client::get(self.site.admin, "/ready").status, 200);
    }
}

fn put(file: &ResourceFile, version: &str, list: &[Value]) {
    file.put(&resources(version, list), Way::Rename).expect("write the file");
}

#[test]
fn a_reload_serves_what_was_accepted_last_though_the_files_are_bad() {
    let world = World::new();
    let program = world.start();
    world.change();
    program.reload();
    world.check();
    world.spoil();
    world.check();
    for _ in 0..2 {
        program.reload();
        world.check();
    }
    // A good file counts again.
    put(&world.endpoints, "v3", &[endpoints("up", &[world.site.a])]);
    until_answers(world.site.http, "/", "a");
}

#[test]
fn a_killed_worker_is_replaced_by_one_that_serves_what_was_accepted_last() {
    let world = World::new();
    let program = world.start();
    world.change();
    world.spoil();
    for _ in 0..2 {
        kill_worker(&program);
        world.check();
    }
    put(&world.endpoints, "v3", &[endpoints("up", &[world.site.a])]);
    until_answers(world.site.http, "/", "a");
}

#[test]
fn a_new_supervisor_goes_on_with_what_was_accepted_last() {
    let world = World::new();
    let mut program = world.start();
    world.change();
    world.spoil();
    program.kill_supervisor();
    // The worker serves on.
    world.check();
    program.launch_again();
    program.wait_until_serving();
    world.check();
    program.reload();
    world.check();
    kill_worker(&program);
    world.check();
}

/// Nobody is there to bind and release, so what needs it waits for the next supervisor.
#[test]
fn a_worker_without_a_supervisor_takes_changes() {
    let world = World::new();
    let mut program = world.start();
    world.change();
    program.kill_supervisor();
    put(&world.endpoints, "v3", &[endpoints("up", &[world.site.a])]);
    until_answers(world.site.http, "/", "a");
    program.launch_again();
    program.wait_until_serving();
    put(&world.endpoints, "v4", &[endpoints("up", &[world.site.b])]);
    until_answers(world.site.http, "/", "b");
    program.reload();
    world.check();
}

#[test]
fn an_upgrade_serves_what_was_accepted_last() {
    let world = World::new();
    let program = world.start();
    world.change();
    world.spoil();
    for _ in 0..2 {
        let output = program.command(&["upgrade"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        world.check();
    }
}

#[test]
fn files_that_changed_while_nobody_looked_are_read_by_the_next_generation() {
    let world = World::new();
    let program = world.start();
    world.change();
    let (_, worker) = program.serving_now();
    crate::harness::program::send(worker, nix::sys::signal::Signal::SIGSTOP);
    put(&world.endpoints, "v3", &[endpoints("up", &[world.site.a])]);
    crate::harness::program::send(worker, nix::sys::signal::Signal::SIGKILL);
    until_answers(world.site.http, "/", "a");
    assert_eq!(who(world.second, "/"), "a");
}

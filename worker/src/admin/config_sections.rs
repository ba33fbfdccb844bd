//! The sections of `/config_dump`: what the configuration itself says, and what came from files.

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use serde_json::{Map, Value, json};

use super::{
    AdminContext, config_endpoints as endpoints,
    resources::{File, Problem, Shown, View},
};
use crate::{
    config::{
        kind::{Kind, Resource},
        resource,
    },
    format::TimeFormat,
};

/// A list that `?resource=` can name.
#[derive(Debug)]
pub(super) struct List {
    pub(super) name: &'static str,
    /// The section that has it.
    pub(super) section: &'static str,
    /// The type of its items, inside that of the section.
    pub(super) item: &'static str,
}

const fn list(section: &'static str, name: &'static str, item: &'static str) -> List {
    List { name, section, item }
}

/// Every list.
pub(super) const LISTS: &[List] = &[
    list(CLUSTERS, "static_clusters", "StaticCluster"),
    list(CLUSTERS, "dynamic_active_clusters", "DynamicCluster"),
    list(CLUSTERS, "dynamic_warming_clusters", "DynamicCluster"),
    list(ENDPOINTS, "static_endpoint_configs", "StaticEndpointConfig"),
    list(ENDPOINTS, "dynamic_endpoint_configs", "DynamicEndpointConfig"),
    list(LISTENERS, "static_listeners", "StaticListener"),
    list(LISTENERS, "dynamic_listeners", "DynamicListener"),
    list(ROUTES, "static_route_configs", "StaticRouteConfig"),
    list(ROUTES, "dynamic_route_configs", "DynamicRouteConfig"),
];

const CLUSTERS: &str = "ClustersConfigDump";
pub(super) const ENDPOINTS: &str = "EndpointsConfigDump";
const LISTENERS: &str = "ListenersConfigDump";
const SCOPED_ROUTES: &str = "ScopedRoutesConfigDump";
const ROUTES: &str = "RoutesConfigDump";
const ROUTE_CONFIGURATION: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// The type of a section.
pub(super) fn type_url(section: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{section}")
}

/// All sections, in Envoy's order.
pub(super) fn all(context: &AdminContext, with_endpoints: bool) -> Vec<Value> {
    let view = context.shown.load();
    let mut dump = context.bootstrap.dump.json();
    let Some(Value::Array(known)) = dump.get_mut("configs").map(Value::take) else {
        return Vec::new();
    };
    let mut inline = Vec::new();
    let mut sections = Vec::new();
    for mut section in known {
        date_all(&mut section, context.started_at);
        let Some(fields) = section.as_object_mut() else { continue };
        let ty = fields.get("@type").and_then(Value::as_str).unwrap_or_default();
        let name = ty.rsplit('.').next().unwrap_or_default().to_owned();
        match name.as_str() {
            CLUSTERS => add_clusters(context, &view, fields),
            LISTENERS => inline = add_listeners(context, &view, fields),
            ROUTES => add_routes(context, &view, std::mem::take(&mut inline), fields),
            _ => {}
        }
        let has_routes = fields.len() > 1 || of(&view, Kind::RouteConfiguration).next().is_some();
        // There are tables of routes as soon as there is a connection manager.
        if name != ROUTES || has_routes {
            if name == ROUTES {
                sections.push(json!({ "@type": type_url(SCOPED_ROUTES) }));
            }
            sections.push(section);
        }
        if name == CLUSTERS && with_endpoints {
            sections.push(endpoints::section(context));
        }
    }
    sections
}

/// What stands in the configuration has been there since the start.
fn date_all(section: &mut Value, at: SystemTime) {
    if let (true, Some(fields)) = (section.get("bootstrap").is_some(), section.as_object_mut()) {
        fields.insert("last_updated".into(), TimeFormat::utc(at).into());
    }
    for (_, list) in section.as_object_mut().into_iter().flatten() {
        for item in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            item.insert("last_updated".into(), TimeFormat::utc(at).into());
        }
    }
}

fn of(view: &View, kind: Kind) -> impl Iterator<Item = &File> {
    view.files.iter().filter(move |file| file.kind == kind)
}

/// The fields of a section with what came from files before its lists.
fn put(fields: &mut Map<String, Value>, version: &str, lists: Map<String, Value>) {
    if !version.is_empty() {
        fields.shift_insert(1, "version_info".into(), version.into());
    }
    fields.extend(
        lists.into_iter().filter(|(_, list)| list.as_array().is_some_and(|it| !it.is_empty())),
    );
}

/// A resource with its version and time.
fn dated(shown: &Shown, key: &str, json: Value) -> Value {
    let mut object = Map::new();
    if !shown.version.is_empty() {
        object.insert("version_info".into(), shown.version.as_str().into());
    }
    object.insert(key.into(), json);
    object.insert("last_updated".into(), TimeFormat::utc(shown.updated).into());
    Value::Object(object)
}

fn jsons(context: &AdminContext, file: &File) -> Vec<Value> {
    let entries = file.resources.iter().map(|shown| &shown.entry);
    resource::json(entries, &context.load_options)
}

fn add_clusters(context: &AdminContext, view: &View, fields: &mut Map<String, Value>) {
    let table = context.clusters.table();
    let is_active = |shown: &Shown| {
        let state = table.by_name(&shown.entry.name).and_then(|index| table.get(index));
        match &shown.entry.resource {
            Resource::Cluster(cluster) => {
                state.is_some_and(|state| Arc::ptr_eq(&state.config, cluster))
            }
            Resource::Endpoints(_) | Resource::Listener(_) | Resource::Routes(_) => false,
        }
    };
    for file in of(view, Kind::Cluster) {
        let (mut active, mut warming) = (Vec::new(), Vec::new());
        for (shown, json) in file.resources.iter().zip(jsons(context, file)) {
            let list = if is_active(shown) { &mut active } else { &mut warming };
            list.push(dated(shown, "cluster", json));
        }
        let mut lists = Map::new();
        lists.insert("dynamic_active_clusters".into(), active.into());
        lists.insert("dynamic_warming_clusters".into(), warming.into());
        put(fields, &file.version, lists);
    }
}

/// Adds the listeners; returns the tables of routes that stand in them.
fn add_listeners(
    context: &AdminContext,
    view: &View,
    fields: &mut Map<String, Value>,
) -> Vec<Value> {
    let mut inline = Vec::new();
    for file in of(view, Kind::Listener) {
        let mut items = Vec::new();
        let mut named = HashSet::new();
        for (shown, json) in file.resources.iter().zip(jsons(context, file)) {
            find_routes(&json, shown.updated, &mut inline);
            let at = view.listeners.iter().position(|it| is_it(shown, it));
            let state = if at.is_some() { "active_state" } else { "warming_state" };
            let mut item = Map::new();
            item.insert("name".into(), shown.entry.name.as_ref().into());
            item.insert(state.into(), dated(shown, "listener", json));
            if let Some(problem) = last_problem(file, &shown.entry.name) {
                item.insert("error_state".into(), error(problem));
            }
            named.insert(&*shown.entry.name);
            items.push((at.unwrap_or(usize::MAX), Value::Object(item)));
        }
        items.sort_by_key(|(at, _)| *at);
        let mut items: Vec<_> = items.into_iter().map(|(_, item)| item).collect();
        for problem in &file.problems {
            let Some(name) = problem.name.as_deref() else { continue };
            if named.insert(name) {
                items.push(json!({ "name": name, "error_state": error(problem) }));
            }
        }
        let mut lists = Map::new();
        lists.insert("dynamic_listeners".into(), items.into());
        put(fields, &file.version, lists);
    }
    inline
}

fn is_it(shown: &Shown, listener: &Arc<crate::config::listener::Listener>) -> bool {
    match &shown.entry.resource {
        Resource::Listener(it) => Arc::ptr_eq(it, listener),
        Resource::Cluster(_) | Resource::Endpoints(_) | Resource::Routes(_) => false,
    }
}

fn last_problem<'a>(file: &'a File, name: &str) -> Option<&'a Problem> {
    file.problems.iter().rfind(|problem| problem.name.as_deref() == Some(name))
}

fn error(problem: &Problem) -> Value {
    json!({ "last_update_attempt": TimeFormat::utc(problem.at), "details": problem.text })
}

/// Collects the tables of routes inside a listener.
fn find_routes(json: &Value, at: SystemTime, found: &mut Vec<Value>) {
    match json {
        Value::Array(items) => items.iter().for_each(|item| find_routes(item, at, found)),
        Value::Object(fields) => {
            for (name, inner) in fields {
                match inner.as_object().filter(|_| name == "route_config") {
                    Some(table) => {
                        let mut config = Map::new();
                        config.insert("@type".into(), ROUTE_CONFIGURATION.into());
                        config.extend(table.clone());
                        let updated = TimeFormat::utc(at);
                        found.push(json!({ "route_config": config, "last_updated": updated }));
                    }
                    None => find_routes(inner, at, found),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn add_routes(
    context: &AdminContext,
    view: &View,
    mut inline: Vec<Value>,
    fields: &mut Map<String, Value>,
) {
    if !inline.is_empty() {
        let list = fields.entry("static_route_configs").or_insert_with(|| json!([]));
        list.as_array_mut().into_iter().for_each(|list| list.append(&mut inline));
    }
    let mut tables = Vec::new();
    for file in of(view, Kind::RouteConfiguration) {
        for (shown, json) in file.resources.iter().zip(jsons(context, file)) {
            tables.push((Arc::clone(&shown.entry.name), dated(shown, "route_config", json)));
        }
    }
    // The files have no order of their own.
    tables.sort_by(|one, other| one.0.cmp(&other.0));
    let mut lists = Map::new();
    let tables: Vec<_> = tables.into_iter().map(|(_, table)| table).collect();
    lists.insert("dynamic_route_configs".into(), tables.into());
    put(fields, "", lists);
}
